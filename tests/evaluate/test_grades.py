import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from cbmf.evaluate.grades import (
    TOLERANCES,
    correlations,
    counted_correlations,
    within_tolerance,
)


def random_case(seed: int, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Cosines with ties and grades that follow them a little."""
    random = np.random.default_rng(seed)
    grades = np.round(random.uniform(0, 5, count), 1)
    return np.round((grades / 5 + random.normal(size=count)).clip(-1, 1), 1), grades


def test_correlations_are_those_of_scipy():
    cosines, grades = random_case(0)
    assert correlations(cosines, grades) == {
        "Spearman": pytest.approx(spearmanr(cosines, grades)[0]),
        "Pearson": pytest.approx(pearsonr(cosines, grades)[0]),
    }
    assert correlations(grades**3, grades)["Spearman"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_counted_correlations_are_those_of_repeated_pairs(seed):
    cosines, grades = random_case(seed)
    counts = np.random.default_rng(seed).integers(0, 4, (6, len(cosines)))
    found = counted_correlations(cosines, grades)(counts.astype(float))
    for times, (spearman, pearson) in zip(counts, found, strict=True):
        one, two = np.repeat(cosines, times), np.repeat(grades, times)
        assert spearman == pytest.approx(spearmanr(one, two)[0])
        assert pearson == pytest.approx(pearsonr(one, two)[0])


def test_correlations_of_what_is_all_equal():
    grades = np.array([0.0, 1.0, 4.0])
    assert correlations(np.full(3, 0.3), grades) == {"Spearman": 0, "Pearson": 0}
    one_pair = np.array([[0.0, 3.0, 0.0]])
    assert np.isnan(counted_correlations(np.array([0.1, 0.3, 0.2]), grades)(one_pair)).all()
    constant = counted_correlations(np.full(3, 0.1), grades)(np.ones((1, 3)))
    assert np.isnan(constant).all()


def test_tolerance_curves_agree_with_a_slow_loop():
    cosines, grades = random_case(1, count=60)
    grades[:6] = 0, 1, 2, 3, 4, 5  # the upper end belongs to the class
    found = within_tolerance(cosines, grades)
    classes = {"0-1": (-1, 1), "1-2": (1, 2), "2-3": (2, 3), "3-4": (3, 4), "4-5": (4, 5)}
    assert list(found) == [*classes, "all"]
    assert (len(TOLERANCES), TOLERANCES[0], TOLERANCES[-1]) == (100, 0.1, 1)
    for name, (low, high) in {**classes, "all": (-1, 5)}.items():
        pairs = [(c, g) for c, g in zip(cosines, grades, strict=True) if low < g <= high]
        for tolerance, share in zip(TOLERANCES, found[name], strict=True):
            met = [abs(5 * max(c, 0) - g) < tolerance for c, g in pairs]
            assert share == pytest.approx(sum(met) / len(met))


def test_a_grade_is_met_below_the_tolerance_and_not_at_it():
    curve = within_tolerance(np.array([0.0, -0.5]), np.array([TOLERANCES[9], TOLERANCES[9]]))
    assert curve["all"].tolist() == [0.0] * 10 + [1.0] * 90
    assert list(curve) == ["0-1", "all"]  # a class without pairs has no curve
