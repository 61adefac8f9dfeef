import numpy as np
import pytest

from cbmf.evaluate.bootstrap import intervals, resampled


def test_interval_of_a_share_is_the_normal_one():
    hits = np.zeros((1000, 1))
    hits[:300] = 1
    low, high = intervals(hits)[0]
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == (
        pytest.approx(0.3 - half, abs=0.005),
        pytest.approx(0.3 + half, abs=0.005),
    )


def test_agrees_with_a_slow_loop_over_resamples():
    random = np.random.default_rng(4)
    hits, counts = random.integers(0, 6, (50, 2)), random.integers(1, 6, (50, 1)).repeat(2, 1)
    ratios = []
    for _ in range(4000):
        drawn = random.integers(0, 50, 50)
        ratios.append(hits[drawn].sum(0) / counts[drawn].sum(0))
    expected = np.quantile(ratios, [0.025, 0.975], axis=0).T
    assert intervals(hits, counts) == pytest.approx(expected, abs=0.06)


def test_captions_of_an_image_are_drawn_together():
    hits = np.random.default_rng(0).integers(0, 2, (200, 1))
    one = intervals(hits, np.ones((200, 1)))
    five = intervals(5 * hits, np.full((200, 1), 5))  # five captions that agree tell no more
    assert five == pytest.approx(one)


def test_same_seed_same_interval_and_certain_is_certain():
    hits = np.random.default_rng(0).integers(0, 2, (64, 3))
    assert (intervals(hits, seed=1) == intervals(hits, seed=1)).all()
    assert intervals(np.ones((10, 1))).tolist() == [[1, 1]]
    assert intervals(np.ones((1, 1))).tolist() == [[1, 1]]


def test_a_unit_without_queries_does_no_harm():
    low, high = intervals(np.array([[1.0], [0.0]]), np.array([[2.0], [0.0]]))[0]
    assert (low, high) == (0.5, 0.5)


def test_many_units_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("cbmf.evaluate.bootstrap.DRAWS_AT_ONCE", 500)
    hits = np.random.default_rng(0).integers(0, 2, (100, 1))
    low, high = intervals(hits)[0]
    half = 1.96 * hits.std() / 10
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_a_mean_has_the_same_interval_by_either_way():
    hits = np.random.default_rng(0).integers(0, 2, (40, 1)).astype(float)

    def mean(counts: np.ndarray) -> np.ndarray:
        return counts @ hits / counts.sum(1, keepdims=True)

    assert resampled(mean, np.arange(40)) == pytest.approx(intervals(hits))


def test_items_of_a_unit_are_drawn_together(monkeypatch):
    monkeypatch.setattr("cbmf.evaluate.bootstrap.DRAWS_AT_ONCE", 50)
    seen = []

    def spy(counts: np.ndarray) -> np.ndarray:
        seen.append(counts)
        return counts[:, :1]

    resampled(spy, np.array([0, 1, 0, 2, 1]), resamples=200)
    counts = np.concatenate(seen)
    assert len(seen) == 20
    assert counts.shape == (200, 5)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, [0, 1, 3]].sum(1) == 3).all()


def test_resamples_in_which_a_figure_is_undefined_do_not_count():
    def first_or_nothing(counts: np.ndarray) -> np.ndarray:
        return np.where(counts[:, :1] > 0, 0.5, np.nan)

    assert resampled(first_or_nothing, np.arange(3)).tolist() == [[0.5, 0.5]]
