"""How well scores part two classes: with no threshold, at one, and the best one.

P scored pairs, of class 1 (similar) or 0 (dissimilar); S resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

CLASSES = ("dissimilar", "similar")
"""Names of the classes 0 and 1."""


def without_threshold(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Average precision and area under the ROC curve, as scikit-learn defines them.

    Args:
        scores: (P,) float64; the higher, the more similar.
        labels: (P,) int64, both 0 and 1 among them.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "AP": float(average_precision_score(labels, scores)),
        "ROC_AUC": float(roc_auc_score(labels, scores)),
    }


def counted_without_threshold(
    scores: np.ndarray, labels: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """The same figures of resamples, as a function of how often each pair counts.

    The pairs are sorted once; a resample then takes two running sums.

    Returns:
        From (S, P) counts to (S, 2): AP and ROC AUC; NaN where a class is absent.
    """
    order = np.argsort(-scores, kind="stable")
    similar = labels[order] == 1
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each run of ties

    def statistic(counts: np.ndarray) -> np.ndarray:
        counts = counts[:, order]
        hits = np.cumsum(counts * similar, axis=1)[:, last]  # (S, distinct scores)
        taken = np.cumsum(counts, axis=1)[:, last]
        new_hits = np.diff(hits, axis=1, prepend=0)
        new_false = np.diff(taken - hits, axis=1, prepend=0)
        with np.errstate(invalid="ignore"):  # 0 / 0: nothing taken yet, or a class absent
            precision = np.where(taken > 0, hits / taken, 0)
            positives, negatives = hits[:, -1], taken[:, -1] - hits[:, -1]
            ap = (new_hits * precision).sum(1) / positives
            # A false one lies above half of the hits that tie with it.
            above = (new_false * (hits - new_hits / 2)).sum(1)
            return np.stack([ap, above / (positives * negatives)], axis=1)

    return statistic


def at_threshold(scores: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """Accuracy, Matthews correlation, and precision, recall and F1 of each class.

    Args:
        scores: (P,) float64; a pair is called similar from `threshold` on.
        labels: (P,) int64, 0 or 1.
        threshold: A score.
    """
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    called = (scores >= threshold).astype(np.int64)
    each_class: dict[str, Any] = {"labels": [0, 1], "average": None, "zero_division": 0}
    each = np.array(precision_recall_fscore_support(labels, called, **each_class)[:3])  # (3, 2)
    by_class = {
        f"{name}/{metric}": float(each[m, c])
        for c, name in enumerate(CLASSES)
        for m, metric in enumerate(("precision", "recall", "F1"))
    }
    return {
        "accuracy": float(accuracy_score(labels, called)),
        "MCC": float(matthews_corrcoef(labels, called)),
        **by_class,
    }


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold of the highest accuracy, midway between the two scores that it parts.

    Every way to part the scores is tried; of equally good ones the strictest is taken. Where it is
    best to call everything dissimilar, the threshold lies just above the highest score.

    Args:
        scores: (P,) float64, at least one.
        labels: (P,) int64, 0 or 1.
    """
    levels, level = np.unique(scores, return_inverse=True)  # ascending
    gain = np.bincount(level, weights=2.0 * labels - 1)  # of calling a level similar
    # gains[k]: the k highest levels are called similar, against calling nothing so
    gains = np.concatenate([[0], np.cumsum(gain[::-1])])
    taken = int(np.argmax(gains))
    if taken == 0:
        return float(np.nextafter(levels[-1], np.inf))
    lowest = levels[-taken]
    return float(lowest if taken == len(levels) else (lowest + levels[-taken - 1]) / 2)
