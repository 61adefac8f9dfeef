"""How well cosines follow graded similarity: correlations, and shares within a tolerance.

P scored pairs, S resamples, T tolerances.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

HIGHEST = 5
"""Grades of similarity run from 0 to 5 (STS-B)."""
TOLERANCES = np.linspace(0.1, 1, 100)
"""In grades. The paper says 100 values from 0.1 to 1 and scores from 0 to 5; its author's code
compares a fifth of the grade with the cosine, with 100 tolerances from 0 to 1."""
ALL = "all"


def correlations(cosines: np.ndarray, grades: np.ndarray) -> dict[str, float]:
    """Spearman's and Pearson's correlation; 0 where all cosines are equal and tell nothing.

    Args:
        cosines: (P,) float64.
        grades: (P,) float64, not all equal.
    """
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(cosines) == 0:
        return {"Spearman": 0.0, "Pearson": 0.0}
    rank, linear = np.array(spearmanr(cosines, grades)), np.array(pearsonr(cosines, grades))
    return {"Spearman": float(rank[0]), "Pearson": float(linear[0])}


def counted_correlations(
    cosines: np.ndarray, grades: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The same figures of resamples, as a function of how often each pair counts.

    Returns:
        From (S, P) counts to (S, 2): Spearman and Pearson; NaN where all is equal.
    """
    rank_cosines, rank_grades = _counted_ranks(cosines), _counted_ranks(grades)
    centred = cosines - cosines.mean(), grades - grades.mean()

    def statistic(counts: np.ndarray) -> np.ndarray:
        ranked = _correlation(counts, rank_cosines(counts), rank_grades(counts))
        return np.stack([ranked, _correlation(counts, *centred)], axis=1)

    return statistic


def _counted_ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """From (S, P) counts to the mean rank of each value among all counted ones, (S, P)."""
    levels, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    first = np.searchsorted(level[order], np.arange(len(levels)))

    def ranks(counts: np.ndarray) -> np.ndarray:
        ties = np.add.reduceat(counts[:, order], first, axis=1)  # (S, levels)
        return (np.cumsum(ties, axis=1) - (ties - 1) / 2)[:, level]

    return ranks


def _correlation(counts: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Pearson's correlation of counted pairs, (S,); values are (P,) or (S, P)."""
    total = counts.sum(1)

    def moment(values: np.ndarray) -> np.ndarray:
        return (counts * values).sum(1) / total

    mean_one, mean_two = moment(one), moment(two)
    both = moment(one * two) - mean_one * mean_two
    spread = (moment(one**2) - mean_one**2) * (moment(two**2) - mean_two**2)
    # Rounding leaves a little of what is zero; it must not become a correlation.
    certain = spread > 1e-12 * moment(one**2) * moment(two**2)
    return np.divide(both, np.sqrt(spread.clip(0)), out=np.full(len(both), np.nan), where=certain)


def within_tolerance(cosines: np.ndarray, grades: np.ndarray) -> dict[str, np.ndarray]:
    """Share of the pairs whose grade is met within each tolerance, by class and of all (Fig. 3).

    The predicted grade is five times the cosine, 0 where that is negative; it is met where it
    differs by less than the tolerance. The classes are the grades 0 to 1, above 1 to 2, and so on.

    Args:
        cosines: (P,) float64.
        grades: (P,) float64, 0 to 5.

    Returns:
        (T,) each, by `0-1` to `4-5` and `all`; no entry for a class without pairs.
    """
    off = np.abs(HIGHEST * cosines.clip(min=0) - grades)
    kind = np.ceil(grades).clip(min=1).astype(int)  # 1 to 5, the upper end of the class
    classes = {f"{top - 1}-{top}": kind == top for top in range(1, HIGHEST + 1)}
    parts = {name: off[which] for name, which in classes.items() if which.any()} | {ALL: off}
    return {
        name: np.searchsorted(np.sort(part), TOLERANCES, side="left") / len(part)
        for name, part in parts.items()
    }
