"""Classification by the nearest class embedding.

N images, K classes, Q prompts, D width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .ranks import BLOCK, Relation, best_ranks

DEEPEST = 5
"""Top-1 to top-5 are told."""


def class_embeddings(prompts: Tensor, labels: np.ndarray, classes: int) -> Tensor:
    """One unit row a class: each prompt normalised, their mean, normalised again; (K, D) float32.

    Args:
        prompts: (Q, D) float32.
        labels: Class of each prompt, (Q,) int64, below K.
        classes: K.

    Raises:
        ValueError: If a class has no prompt.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise ValueError(f"class {int(np.argmin(counts))} of {classes} has no prompt")
    sums = torch.zeros(classes, prompts.shape[1], device=prompts.device)
    label = torch.from_numpy(labels).to(prompts.device)
    sums.index_add_(0, label, F.normalize(prompts, dim=1))
    return F.normalize(sums, dim=1)


def class_ranks(images: Tensor, classes: Tensor, labels: np.ndarray) -> np.ndarray:
    """Rank of each image's own class among all, (N,) int64 from 1; ties as in `best_ranks`.

    Args:
        images: Unit rows, (N, D) float32.
        classes: Unit rows, (K, D) float32.
        labels: (N,) int64, below K.
    """
    own = Relation(np.arange(len(labels) + 1), labels)
    return best_ranks(images, classes, own)


def depths(classes: int) -> range:
    """The k for which top-k accuracy is told: 1 to 5, and never more than there are classes."""
    return range(1, min(DEEPEST, classes) + 1)


def mean_class_recall(ranks: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their images at rank 1, 0 to 1."""
    counts = np.bincount(labels)
    right = np.bincount(labels, weights=ranks == 1)
    return float((right[counts > 0] / counts[counts > 0]).mean())


def confusion_matrix(images: Tensor, classes: Tensor, labels: np.ndarray) -> np.ndarray:
    """How many images of each class (row) are taken for each class (column), (K, K) int64.

    Args:
        images: Unit rows, (N, D) float32.
        classes: Unit rows, (K, D) float32.
        labels: (N,) int64, below K.
    """
    taken = [(part @ classes.T).argmax(1).cpu().numpy() for part in images.split(BLOCK)]
    cells = labels * len(classes) + np.concatenate(taken)
    return np.bincount(cells, minlength=len(classes) ** 2).reshape(len(classes), len(classes))
