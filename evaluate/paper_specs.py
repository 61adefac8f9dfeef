"""The paper's tables and figures: where the figures of each come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """One table: where its figures come from, and its columns."""

    number: str
    """As the paper counts, such as `Table II` or `Figure 4`."""
    title: str
    benchmark: str
    dataset: str
    """Beginning of the data set's name in the cache; empty for that of the run."""
    protocol: str
    printed: str = ""
    """Key of the paper's rows in paper_figures.json; empty where it prints none."""
    panels: bool = False
    """Whether a figure is drawn of it too."""
    exact: bool = False
    """Whether `dataset` is the whole name."""


SPECS = (
    Spec("Table II", "QQP, cosine threshold 0.9", "paraphrase", "qqp", "paper", "II"),
    Spec("Table II, standard", "QQP, tuned threshold", "paraphrase", "qqp", "standard"),
    Spec("Table III", "MRPC, cosine threshold 0.9", "paraphrase", "mrpc", "paper", "III"),
    Spec("Table III, standard", "MRPC, tuned threshold", "paraphrase", "mrpc", "standard"),
    Spec(
        "Figure 3",
        "STS-B, accuracy within an error tolerance, mean over 100 tolerances from 0.1 to 1",
        "similarity",
        "stsb",
        "paper",
        panels=True,
    ),
    Spec(
        "Figure 3, standard", "STS-B, correlation with the grades", "similarity", "stsb", "standard"
    ),
    Spec("Table IV", "CIFAR-10 zero-shot, bare class names", "zero-shot", "cifar10", "names", "IV"),
    Spec(
        "Table IV, standard", "CIFAR-10 zero-shot, 18 templates", "zero-shot", "cifar10", "ensemble"
    ),
    Spec("Table V", "CIFAR-100, linear head by epoch", "linear", "cifar100", "paper", "V"),
    Spec("Table V, standard", "CIFAR-100, L-BFGS probe", "linear", "cifar100", "standard"),
    Spec("Table VI", "Tiny ImageNet, fine-tuned, by epoch", "fine-tune", "tiny-imagenet", "", "VI"),
    Spec("Figure 4", "Retrieval, precision at k", "retrieval", "flickr8k", "paper", panels=True),
    Spec("Figure 4, standard", "Retrieval, recall at k", "retrieval", "flickr8k", "standard"),
    Spec("Retrieval", "COCO, recall at k", "retrieval", "coco", "standard"),
)
