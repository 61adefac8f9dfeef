"""Linear classification (Table V): how much of an image's class its features tell at a glance.

The model stays as it is; only a linear classifier is learned. N images, M features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..cache.catalog import Cache
from ..cache.items import Items
from ..cache.stream import Stream
from ..train.run import Run
from .classification import DEEPEST, mean_class_recall
from .labelled import Task, are_labelled, interval_of, prepare, ranks_of, result_of
from .probe import logistic_scores, sgd_scores
from .projections import projected
from .ranks import recall_at
from .results import Result, Row
from .systems import models_of

BENCHMARK = "linear"
EPOCHS = (20, 40, 60, 80, 100)
"""Of the paper's head, after which it is scored."""
WHITENED = "{}, whitened"
"""A model's features in axes of equal variance."""
FLAT = 1e-6
"""Share of the largest variance below which an axis is left out of whitening."""
BESIDE = "{} ⊕ raw"
"""A model's features with the encoder's own vector beside them."""


@dataclass(frozen=True)
class Features:
    """What a system gives the images."""

    system: str
    kind: str
    """As in `results.Row`."""
    train: np.ndarray
    """(N, M) float32."""
    test: np.ndarray
    """(N, M) float32."""


def suits(items: Items) -> bool:
    """Whether a split has labelled images; that there is a split `train`, too, shows later."""
    return are_labelled(items)


def evaluate_linear(
    cache: Cache, run: Run, dataset: str, split: str, report: Callable[[str], None]
) -> list[Result]:
    """Accuracy of linear classifiers learned on the split `train` of a labelled data set.

    Protocol `standard` is logistic regression by L-BFGS, its penalty chosen on a held-out part of
    the training images; `paper` a head trained by plain SGD for 100 epochs, scored every 20. See
    `probe`. The features are the model's unit rows, the same whitened and with the encoder's
    pooled vector beside them, the rows of what was fitted beside and of the untrained model, and
    the pooled vectors alone: the floor. All are standardised on the training images.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: The one that is scored; never `train`.
        report: Called with the system that is being measured.

    Raises:
        InputError: As `labelled.prepare`; and if no class has two training images.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    started = time.perf_counter()
    task = prepare(cache, run, dataset, split)
    seed = run.config.seed
    standard, paper, strengths = [], [], []
    for features in features_of(run, task):
        report(f"{BENCHMARK} {dataset}/{split}: {features.system}")
        learned = (features.train, task.train.labels, features.test, task.classes, seed)
        scores, strength = logistic_scores(*learned)
        strengths.append(f"{features.system} {strength:.2g}")
        standard.append(_standard_row(features, ranks_of(scores, task.test.labels), task))
        paper.append(_paper_row(features, sgd_scores(*learned, EPOCHS), task))
    chosen = f"C of the logistic regression, chosen on a fifth of train: {', '.join(strengths)}"
    notes = {"standard": chosen, "paper": f"SGD on standardised features, seed {seed}"}
    rows = {"standard": [*standard, _chance(task)], "paper": [*paper, _paper_chance(task)]}
    seconds = round(time.perf_counter() - started, 3)
    return [
        result_of(run, task, BENCHMARK, name, rows[name], notes[name], seconds) for name in rows
    ]


def features_of(run: Run, task: Task) -> Iterator[Features]:
    """What each system gives the images, one system after the other."""
    raw = [part.stream.pooled() for part in (task.train, task.test)]
    for name, kind, model in models_of(run):

        def rows(stream: Stream, model=model) -> np.ndarray:
            return projected(run, model, task.encoder, stream).cpu().numpy()

        both = [rows(part.stream) for part in (task.train, task.test)]
        yield Features(name, kind, *both)
        if kind == "model":
            yield Features(WHITENED.format(name), kind, *whitened(*both))
            beside = [np.concatenate(pair, axis=1) for pair in zip(both, raw, strict=True)]
            yield Features(BESIDE.format(name), kind, *beside)
    if not run.alone:
        yield Features(f"raw {task.test.stream.encoder}", "raw", *raw)


def whitened(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the principal axes of the training images, each with variance 1.

    Captions put most of a model's variance into a few axes; a penalised classifier then overlooks
    what tells classes apart in the others. Axes in which the training images hardly differ are
    left out.

    Args:
        train: (N, D) float32.
        test: (M, D) float32.
    """
    from sklearn.decomposition import PCA

    variance = PCA(random_state=0).fit(train).explained_variance_
    kept = max(1, int((variance > FLAT * variance[0]).sum()))
    axes = PCA(kept, whiten=True, svd_solver="full").fit(train)
    return axes.transform(train), axes.transform(test)


def _standard_row(features: Features, ranks: np.ndarray, task: Task) -> Row:
    metrics = {f"top-{k}": recall_at(ranks, k) for k in _depths(task.classes)}
    metrics["mean_class_recall"] = mean_class_recall(ranks, task.test.labels)
    return Row(features.system, features.kind, metrics, {"top-1": interval_of(ranks)})


def _paper_row(features: Features, scores: dict[int, np.ndarray], task: Task) -> Row:
    ranks = {epoch: ranks_of(part, task.test.labels) for epoch, part in scores.items()}
    metrics = {f"epoch {epoch}": recall_at(each, 1) for epoch, each in ranks.items()}
    last = max(ranks)
    return Row(features.system, features.kind, metrics, {f"epoch {last}": interval_of(ranks[last])})


def _depths(classes: int) -> tuple[int, ...]:
    """The k for which top-k accuracy is told; with few classes top-5 says nothing."""
    return (1, DEEPEST) if classes > DEEPEST else (1,)


def _chance(task: Task) -> Row:
    metrics = {f"top-{k}": k / task.classes for k in _depths(task.classes)}
    return Row("chance", "chance", {**metrics, "mean_class_recall": 1 / task.classes})


def _paper_chance(task: Task) -> Row:
    return Row("chance", "chance", {f"epoch {epoch}": 1 / task.classes for epoch in EPOCHS})
