"""A split's two sides in one space, before and after fusion, and how far apart they lie there.

G left items (images), M right items (captions), P pairs, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cache.errors import InputError
from ..train.config import SOLVED
from ..train.run import Run
from .ranks import Relation
from .retrieval import Task
from .systems import System, model_name

DRAWN_PAIRS = 4000
"""Pairs, true ones and random ones each, that a histogram is of."""
SHOWN_PAIRS = 250
"""Pairs whose points a plane shows."""


@dataclass(frozen=True)
class Space:
    """Unit rows of both sides."""

    name: str
    """What made them, for people."""
    left: Tensor
    """(G, D) float32."""
    right: Tensor
    """(M, D) float32."""


@dataclass(frozen=True)
class Separation:
    """Cosines of pairs that belong together, and of random ones."""

    true: np.ndarray
    """(P,) float32."""
    random: np.ndarray
    """(P or fewer,) float32."""

    @property
    def area(self) -> float:
        """Share of true and random pairs in which the true one is more alike (ROC AUC)."""
        from scipy.stats import mannwhitneyu

        wins = mannwhitneyu(self.true.astype(np.float64), self.random.astype(np.float64)).statistic
        return float(wins) / (len(self.true) * len(self.random))


@dataclass(frozen=True)
class Plane:
    """Both sides of some pairs on the two principal axes of all their points."""

    left: np.ndarray
    """(P, 2) float32."""
    right: np.ndarray
    """(P, 2) float32; row i is the partner of row i."""
    explained: float
    """Share of the points' variance that the two axes have, 0 to 1."""
    gap: float
    """Distance of the two sides' centres in the whole space, over all items; 0 to 2."""


def spaces(run: Run, task: Task) -> dict[str, Space]:
    """Both sides `Before` fusion, if there is something to compare with, and `After` it.

    Before are the encoders' own pooled vectors if they are of equal width, else what the untrained
    model makes of them: vectors of two widths have no cosine. A method that is solved for has no
    untrained model.
    """
    device = run.model.temperature.log_scale.device
    left, right = task.left, task.right
    after = System(model_name(run), "model", run.model, left, right, run)
    found = {"After": Space(after.name, *after.embed(device))}
    if left.stream.pooled_width == right.stream.pooled_width:
        before = System("the encoders' own vectors", "raw", None, left, right, run)
    elif run.config.method not in SOLVED:
        before = System("untrained model", "untrained", run.untrained, left, right, run)
    else:
        return found
    return {"Before": Space(before.name, *before.embed(device)), **found}


def drawn_pairs(positives: Relation, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Left and right places of at most `count` true pairs, each (P,) int64, drawn at random."""
    rows, columns = positives.cells(0, len(positives.counts))
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows[chosen], columns[chosen]


def separation(space: Space, positives: Relation, seed: int = 0) -> Separation:
    """Cosines of true pairs, and of as many random ones that are no pairs.

    Args:
        space: Both sides.
        positives: The right items of each left one.
        seed: Of the draws.

    Raises:
        InputError: If there are so few items that all pairs belong together.
    """
    left, right = drawn_pairs(positives, DRAWN_PAIRS, seed)
    random = np.random.default_rng([seed, 1])
    one, two = (random.integers(0, len(rows), len(left)) for rows in (space.left, space.right))
    width = len(space.right)
    known = np.repeat(np.arange(len(positives.counts)), positives.counts) * width
    apart = ~np.isin(one * width + two, known + positives.columns)
    if not apart.any():
        raise InputError("too few items: no random pair of them is none that belongs together")
    return Separation(_cosines(space, left, right), _cosines(space, one[apart], two[apart]))


def _cosines(space: Space, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    one, two = space.left[torch.from_numpy(left)], space.right[torch.from_numpy(right)]
    cosines: np.ndarray = (one * two).sum(1).cpu().numpy()
    return cosines


def plane(space: Space, positives: Relation, seed: int = 0) -> Plane:
    """Some pairs on two principal axes, and the gap between the modalities.

    Args:
        space: Both sides.
        positives: The right items of each left one; at least two pairs.
        seed: Of the draw of pairs.
    """
    from sklearn.decomposition import PCA

    left, right = drawn_pairs(positives, SHOWN_PAIRS, seed)
    points = [
        side[torch.from_numpy(places)].cpu().numpy()
        for side, places in ((space.left, left), (space.right, right))
    ]
    axes = PCA(2, svd_solver="full").fit(np.concatenate(points))
    one, two = (axes.transform(some) for some in points)
    gap = float((space.left.mean(0) - space.right.mean(0)).norm())
    return Plane(one, two, float(axes.explained_variance_ratio_.sum()), gap)
