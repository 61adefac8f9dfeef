"""Bootstrap intervals of any statistic of weighted items. U units, N items, R resamples, M figures.

To draw units anew is to count each unit as often as it was drawn. A statistic that takes counts
needs no copies of the items, and one that sorts need sort only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
DRAWS_AT_ONCE = 1_000_000
"""Units drawn at once, of some resamples together: 8 MiB."""


def intervals(
    values: np.ndarray,
    counts: np.ndarray | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """95% percentile intervals of `values.sum(0) / counts.sum(0)` when units are drawn anew.

    The unit is what was sampled independently: the image, with all of its captions. The same seed
    and U draw the same units, so that systems are compared on the same resamples.

    Args:
        values: (U, M): what each unit adds to the numerator, such as its number of hits.
        counts: (U, M): what each adds to the denominator, such as its number of queries; None
            for 1, a plain mean.
        seed: Of the draws.
        resamples: R.

    Returns:
        (M, 2) float64: lower and upper end.
    """
    weight = np.ones_like(values, dtype=np.float64) if counts is None else counts
    both = np.concatenate([values, weight], axis=1).astype(np.float64)  # (U, 2M)
    sums = [times.astype(np.float64) @ both for times in _drawn(len(values), seed, resamples)]
    top, bottom = np.split(np.concatenate(sums), 2, axis=1)
    return _ends(np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0))


def resampled(
    statistic: Callable[[np.ndarray], np.ndarray],
    units: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """95% percentile intervals of a statistic of the items when units are drawn anew.

    For what is no ratio of sums, such as a correlation. Seed and U draw the units that `intervals`
    draws, too.

    Args:
        statistic: Takes how often each item counts, (S, N) float64 for S resamples, and returns
            (S, M); NaN where it is undefined, as a share of no items is.
        units: (N,) int64: the unit of each item, all of 0 to U - 1.
        seed: Of the draws.
        resamples: R.

    Returns:
        (M, 2) float64: lower and upper end, of the resamples in which the figure is defined.
    """
    count = int(units.max()) + 1
    parts = [
        statistic(times[:, units].astype(np.float64))
        for times in _drawn(count, seed, resamples, at_once=DRAWS_AT_ONCE // len(units))
    ]
    return _ends(np.concatenate(parts))


def _drawn(
    units: int, seed: int, resamples: int, at_once: int | None = None
) -> Iterator[np.ndarray]:
    """How often each unit is drawn, (S, U) int64 for some of the resamples at a time.

    Args:
        units: U.
        seed: Of the draws.
        resamples: R, the sum of all S.
        at_once: S at most, if at least 1; as DRAWS_AT_ONCE allows if None.
    """
    random = np.random.default_rng(seed)
    step = max(1, DRAWS_AT_ONCE // units if at_once is None else at_once)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        drawn = random.integers(0, units, (some, units)) + units * np.arange(some)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * units).reshape(some, units)


def _ends(figures: np.ndarray) -> np.ndarray:
    """Lower and upper end of each column of (R, M), NaN apart; (M, 2)."""
    tail = (1 - LEVEL) / 2
    return np.nanquantile(figures, [tail, 1 - tail], axis=0).T
