import numpy as np
from tiny_caches import labelled_set, run_of

from cbmf.evaluate.confusion import Confusion, zero_shot_confusion
from cbmf.evaluate.zero_shot import evaluate_zero_shot


def test_its_diagonal_is_what_zero_shot_tells(maker, tmp_path):
    labelled_set(maker, "pets", "test", 80)
    run = run_of(tmp_path / "run")
    found = zero_shot_confusion(maker.cache, run, "pets", "test")
    results = evaluate_zero_shot(maker.cache, run, "pets", "test", lambda text: None)
    assert found.counts.sum() == 80 and found.classes == ["cat", "dog", "cow", "owl"]
    assert abs(found.right - results[0].row("model").metrics["top-1"]) < 1e-9


def test_the_commonest_mistakes_come_first():
    found = Confusion(["a", "b", "c"], np.array([[5, 2, 0], [0, 1, 3], [0, 0, 9]]))
    assert found.worst(5) == [("b", "c", 3, 4), ("a", "b", 2, 7)]
    assert found.worst(1) == [("b", "c", 3, 4)]
