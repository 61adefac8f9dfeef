"""Linear classifiers on fixed features: logistic regression, and the paper's plain SGD.

N images, M features, K classes. Neither sees an image that it is scored on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..cache.errors import InputError

GRID = tuple(10.0**power for power in range(-6, 3))
"""C that are tried first: the inverse weight of the L2 penalty, as scikit-learn has it."""
FINER = 10**0.5
"""Afterwards C below and above the best one by this factor are tried."""
WORSE = 2
"""The grid is left when so many larger C in a row were worse: they take longest and overfit."""
HELD_OUT = 0.2
"""Share of each class's training images on which C is chosen."""
MAX_ITERATIONS = 1000
"""Of L-BFGS, as in CLIP's linear probe."""
RATE, MOMENTUM, BATCH = 1e-3, 0.9, 64
"""Of the paper's linear head, from its author's code."""


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of each feature over the training images."""

    mean: np.ndarray
    """(M,) float32."""
    deviation: np.ndarray
    """(M,) float32; 1 for a feature that never changes."""

    @classmethod
    def of(cls, features: np.ndarray) -> Scaling:
        """Measured on (N, M) features."""
        mean, deviation = features.mean(0, np.float64), features.std(0, dtype=np.float64)
        deviation = np.where(deviation > 1e-6 * (1 + abs(mean)), deviation, 1.0)
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N, M) features in deviations from the mean, float32."""
        return (features - self.mean) / self.deviation


def hold_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which images are held out, (N,) bool: of each class HELD_OUT, at least one, never all.

    Args:
        labels: (N,) int64.
        seed: Of the choice.

    Raises:
        InputError: If every class has a single image.
    """
    random = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = random.permutation(np.flatnonzero(labels == label))
        held[own[: min(max(1, round(HELD_OUT * len(own))), len(own) - 1)]] = True
    if not held.any():
        raise InputError(
            f"each of the {len(labels):,} training images is the only one of its class; two of a "
            "class are the least, one to learn from and one to choose the penalty on"
        )
    return held


def logistic_scores(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, float]:
    """Class scores of test images by logistic regression, (N, K) float32, and the C chosen for it.

    L-BFGS on standardised features. C is chosen on a held-out part of the training images, then
    all of them are fitted. A class without training images scores minus infinity.

    Args:
        train: Features of the training images, (N, M) float32.
        labels: Their classes, (N,) int64.
        test: Features to score, (N, M) float32.
        classes: K.
        seed: Of the held-out part.

    Raises:
        InputError: As `hold_out`.
    """
    held = hold_out(labels, seed)
    part = Scaling.of(train[~held])
    strength = _choose(part(train[~held]), labels[~held], part(train[held]), labels[held])
    whole = Scaling.of(train)
    model = _fitted(whole(train), labels, strength)
    scores = np.full((len(test), classes), -np.inf, np.float32)
    scores[:, model.classes_] = model.predict_log_proba(whole(test))
    return scores, strength


def _choose(train: np.ndarray, labels: np.ndarray, held: np.ndarray, truth: np.ndarray) -> float:
    """The C with the most held-out images right; of equal ones the smallest."""
    right: dict[float, int] = {}
    model, worse = None, 0
    for strength in GRID:
        model = _fitted(train, labels, strength, model)
        count = int((model.predict(held) == truth).sum())
        worse = worse + 1 if right and count < max(right.values()) else 0
        right[strength] = count
        if worse == WORSE:
            break
    best = _best(right)
    for strength in (best / FINER, best * FINER):
        right[strength] = int((_fitted(train, labels, strength).predict(held) == truth).sum())
    return _best(right)


def _best(right: dict[float, int]) -> float:
    return min(right, key=lambda strength: (-right[strength], strength))


def _fitted(train: np.ndarray, labels: np.ndarray, strength: float, start: Any = None) -> Any:
    """Logistic regression of a C, from the weights of another one when there is one."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, warm_start=True)
    if start is not None:
        model.coef_, model.intercept_ = start.coef_.copy(), start.intercept_.copy()
        model.classes_ = start.classes_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # CLIP's own limit; good enough
        return model.fit(train, labels)


def sgd_scores(
    train: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    classes: int,
    seed: int,
    epochs: Sequence[int],
    device: torch.device | str = "cpu",
) -> dict[int, np.ndarray]:
    """Class scores of test images after some epochs of the paper's linear head, (N, K) float32.

    Cross-entropy, SGD with a rate of 1e-3 and momentum 0.9, batches of 64, no schedule, no decay.
    Such SGD hardly moves on unit rows, whose features are 1 / sqrt(M) in size, so that features are
    standardised on the training images; the paper does not say what its features are. The author's
    code stacks two linear layers with nothing between, the same functions as the one layer here.

    Args:
        train: Features of the training images, (N, M) float32.
        labels: Their classes, (N,) int64.
        test: Features to score, (N, M) float32.
        classes: K.
        seed: Of the head's start and the order of the images.
        epochs: After which epochs to score, ascending.
        device: Where to learn.
    """
    scaling = Scaling.of(train)
    x, seen = (torch.from_numpy(scaling(part)).to(device) for part in (train, test))
    y = torch.from_numpy(labels).to(device)
    scores = {}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = nn.Linear(x.shape[1], classes).to(device)
        optimizer = torch.optim.SGD(head.parameters(), lr=RATE, momentum=MOMENTUM)
        for epoch in range(1, max(epochs) + 1):
            for batch in torch.randperm(len(x)).to(device).split(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(head(x[batch]), y[batch]).backward()
                optimizer.step()
            if epoch in epochs:
                with torch.no_grad():
                    scores[epoch] = head(seen).cpu().numpy()
    return scores
