from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    classification_report,
    matthews_corrcoef,
    roc_auc_score,
)

from cbmf.evaluate.binary import (
    at_threshold,
    best_threshold,
    counted_without_threshold,
    without_threshold,
)


def random_case(seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and labels that they tell something of."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    labels[:2] = 0, 1
    return np.round(random.normal(size=count) + labels, 1), labels


def test_figures_of_a_case_by_hand():
    scores, labels = np.array([0.9, 0.8, 0.7, 0.1]), np.array([1, 0, 1, 0])
    assert without_threshold(scores, labels) == {
        "AP": pytest.approx((1 + 2 / 3) / 2),
        "ROC_AUC": 3 / 4,
    }
    assert at_threshold(scores, labels, 0.8) == {
        "accuracy": 0.5,
        "MCC": 0,
        "dissimilar/precision": 0.5,
        "dissimilar/recall": 0.5,
        "dissimilar/F1": 0.5,
        "similar/precision": 0.5,
        "similar/recall": 0.5,
        "similar/F1": 0.5,
    }


def test_figures_at_a_threshold_agree_with_scikit_learn():
    scores, labels = random_case(3)
    called = (scores >= 0.4).astype(int)
    found = at_threshold(scores, labels, 0.4)
    table: Any = classification_report(labels, called, output_dict=True)
    for name, number in (("dissimilar", "0"), ("similar", "1")):
        for metric, theirs in (("precision",) * 2, ("recall",) * 2, ("F1", "f1-score")):
            assert found[f"{name}/{metric}"] == pytest.approx(table[number][theirs])
    assert found["accuracy"] == accuracy_score(labels, called)
    assert found["MCC"] == pytest.approx(matthews_corrcoef(labels, called))


def test_a_class_that_is_never_called_has_no_precision():
    found = at_threshold(np.array([0.1, 0.2]), np.array([0, 1]), 0.9)
    assert (found["similar/precision"], found["similar/recall"], found["MCC"]) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_counted_figures_are_those_of_scikit_learn_with_weights(seed):
    scores, labels = random_case(seed)
    counts = np.random.default_rng(seed).integers(0, 4, (6, len(scores))).astype(float)
    found = counted_without_threshold(scores, labels)(counts)
    for weights, (ap, auc) in zip(counts, found, strict=True):
        assert ap == pytest.approx(average_precision_score(labels, scores, sample_weight=weights))
        assert auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    once = counted_without_threshold(scores, labels)(np.ones((1, len(scores))))[0]
    assert once == pytest.approx(list(without_threshold(scores, labels).values()))


def test_counted_figures_are_undefined_without_a_class():
    statistic = counted_without_threshold(np.array([0.1, 0.2, 0.3]), np.array([0, 1, 1]))
    without_similar, without_dissimilar = statistic(np.array([[2.0, 0, 0], [0, 1, 2]]))
    assert np.isnan(without_similar).all()
    assert without_dissimilar[0] == 1
    assert np.isnan(without_dissimilar[1])


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_better_than_the_best(seed):
    scores, labels = random_case(seed, count=12)
    threshold = best_threshold(scores, labels)
    tried = [-10.0, 10.0, *scores, *(scores + 1e-6)]
    highest = max(accuracy_score(labels, scores >= t) for t in tried)
    assert accuracy_score(labels, scores >= threshold) == highest
    stricter = [t for t in tried if t > threshold and not np.isin(t, scores)]
    between = [t for t in stricter if ((scores >= t) != (scores >= threshold)).any()]
    assert all(accuracy_score(labels, scores >= t) < highest for t in between)


def test_the_best_threshold_lies_midway():
    assert best_threshold(np.array([0.2, 0.4, 0.8, 0.9]), np.array([0, 0, 1, 1])) == (
        pytest.approx(0.6)
    )


def test_one_answer_for_all_can_be_best():
    scores = np.array([0.5, 1.0, 1.0])
    assert (scores < best_threshold(scores, np.array([0, 0, 0]))).all()
    assert (scores >= best_threshold(scores, np.array([1, 1, 1]))).all()
    same = np.full(3, 0.7)
    assert (same >= best_threshold(same, np.array([1, 1, 0]))).all()
    assert (same < best_threshold(same, np.array([1, 0, 0]))).all()
