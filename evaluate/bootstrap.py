"""Bootstrap intervals of means and ratios. U units, R resamples, M statistics."""

from __future__ import annotations

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
    units = len(values)
    weight = np.ones_like(values, dtype=np.float64) if counts is None else counts
    both = np.concatenate([values, weight], axis=1).astype(np.float64)  # (U, 2M)
    random = np.random.default_rng(seed)
    step = max(1, DRAWS_AT_ONCE // units)
    sums = np.empty((resamples, both.shape[1]))  # (R, 2M)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        drawn = random.integers(0, units, (some, units)) + units * np.arange(some)[:, None]
        times = np.bincount(drawn.ravel(), minlength=some * units).reshape(some, units)
        sums[start : start + some] = times.astype(np.float64) @ both
    top, bottom = np.split(sums, 2, axis=1)
    ratio = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
    tail = (1 - LEVEL) / 2
    return np.nanquantile(ratio, [tail, 1 - tail], axis=0).T
