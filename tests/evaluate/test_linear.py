import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from sklearn.preprocessing import StandardScaler
from tiny_caches import Maker, class_set, run_of, spec_of

from cbmf.cache.errors import InputError, StreamError
from cbmf.evaluate import labelled, linear, probe
from cbmf.evaluate.bootstrap import intervals
from cbmf.evaluate.linear import EPOCHS, evaluate_linear, suits
from cbmf.evaluate.suite import silent


def score(maker: Maker, run, split: str = "test"):
    results = evaluate_linear(maker.cache, run, "pets", split, silent)
    return {result.protocol: result for result in results}


def test_classes_that_stand_apart_are_told_apart_by_every_system(maker, tmp_path):
    class_set(maker, "pets", "train", per_class=12, noise=0.05)
    class_set(maker, "pets", "test", per_class=4, noise=0.05, seed=1)
    found = score(maker, run_of(tmp_path / "run"))
    ours = ["cbmf-add", "cbmf-add, whitened", "cbmf-add ⊕ raw"]
    systems = [*ours, "linear heads", "cbmf-add, untrained", "raw eye"]
    for result in found.values():
        assert [row.system for row in result.rows] == [*systems, "chance"]
        assert [row.kind for row in result.rows[-3:]] == ["untrained", "raw", "chance"]
    for row in found["standard"].rows[:-1]:
        assert row.metrics == {"top-1": 1, "top-5": 1, "mean_class_recall": 1}
    last = f"epoch {EPOCHS[-1]}"
    assert found["paper"].row("raw").metrics[last] == 1
    assert list(found["paper"].row("model").metrics) == [f"epoch {e}" for e in EPOCHS]
    assert found["paper"].row("chance").metrics[last] == pytest.approx(1 / 6)
    assert found["standard"].counts == {"images": 24, "training images": 72, "classes": 6}


def test_classes_that_nothing_tells_apart_stay_near_chance(maker, tmp_path):
    class_set(maker, "pets", "train", per_class=20, noise=1.0, shuffled=True)
    class_set(maker, "pets", "test", per_class=40, noise=1.0, seed=1, shuffled=True)
    found = score(maker, run_of(tmp_path / "run"))
    last = f"epoch {EPOCHS[-1]}"
    for row in [*found["standard"].rows, *found["paper"].rows]:
        assert abs(row.metrics.get("top-1", row.metrics.get(last)) - 1 / 6) < 0.09


def test_labels_of_the_scored_split_change_no_prediction(maker, tmp_path):
    run = run_of(tmp_path / "run")
    class_set(maker, "pets", "train", per_class=10, noise=0.8)
    items = class_set(maker, "pets", "test", per_class=5, noise=0.8, seed=1)
    before = score(maker, run)
    image = items.columns["image"]
    turned = replace(image, labels=(image.labels + 1) % 6)  # every prediction of old is wrong now
    maker.put(replace(items, columns={"image": turned}))
    after = score(maker, run)
    assert before["standard"].note == after["standard"].note  # the chosen C
    model = before["standard"].row("raw").metrics["top-1"]
    assert after["standard"].row("raw").metrics["top-1"] <= 1 - model


def test_logistic_probe_is_scikit_learn_at_the_c_that_does_best_held_out(maker, tmp_path):
    train = class_set(maker, "pets", "train", per_class=15, noise=1.0)
    test = class_set(maker, "pets", "test", per_class=10, noise=1.0, seed=1)
    run = run_of(tmp_path / "run")
    row = score(maker, run)["standard"].row("raw")
    x, seen = (maker.cache.find("pets", s, "image").pooled() for s in ("train", "test"))
    y, truth = (items.column("image").labels for items in (train, test))
    held = probe.hold_out(y, run.config.seed)
    accuracy = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in (*probe.GRID, *(c * 10**0.5 for c in probe.GRID)):
            scaler = StandardScaler().fit(x[~held])
            model = LogisticRegression(C=strength, max_iter=1000)
            model.fit(scaler.transform(x[~held]), y[~held])
            accuracy[strength] = model.score(scaler.transform(x[held]), y[held])
    scores, chosen = probe.logistic_scores(x, y, seen, 6, run.config.seed)
    assert accuracy[min(accuracy, key=lambda c: abs(c / chosen - 1))] == max(accuracy.values())
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=chosen, max_iter=1000).fit(scaler.transform(x), y)
    expected = model.predict_log_proba(scaler.transform(seen))
    np.testing.assert_allclose(scores, expected, atol=0.02)
    assert row.metrics["top-1"] == pytest.approx(top_k_accuracy_score(truth, expected, k=1))
    assert row.metrics["top-5"] == pytest.approx(top_k_accuracy_score(truth, expected, k=5))
    recall = balanced_accuracy_score(truth, expected.argmax(1))
    assert row.metrics["mean_class_recall"] == pytest.approx(recall)
    right = (expected.argmax(1) == truth)[:, None]
    assert row.intervals["top-1"] == pytest.approx(tuple(intervals(right)[0]))


def test_paper_head_is_plain_sgd_step_by_step():
    random = np.random.default_rng(0)
    train, test = (random.normal(size=(n, 5)).astype(np.float32) for n in (70, 9))
    labels = random.integers(0, 3, 70)
    got = probe.sgd_scores(train * 7 + 3, labels, test * 7 + 3, 3, seed=4, epochs=(1, 2))
    import torch

    x = (train - train.mean(0)) / train.std(0)
    torch.manual_seed(4)
    head = torch.nn.Linear(5, 3)
    weight, bias = head.weight.detach().numpy().copy(), head.bias.detach().numpy().copy()
    fast_w, fast_b = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(2):
        for batch in torch.randperm(70).split(64):
            logits = x[batch] @ weight.T + bias
            share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            slope = (share - np.eye(3)[labels[batch]]) / len(batch)
            fast_w = 0.9 * fast_w + slope.T @ x[batch]
            fast_b = 0.9 * fast_b + slope.sum(0)
            weight, bias = weight - 1e-3 * fast_w, bias - 1e-3 * fast_b
    seen = (test - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(got[2], seen @ weight.T + bias, rtol=1e-3, atol=1e-4)


def test_a_fifth_of_every_class_is_held_out_and_never_all_of_it():
    labels = np.array([0] * 10 + [1] * 3 + [2] * 2 + [3])
    held = probe.hold_out(labels, seed=0)
    assert np.bincount(labels[held], minlength=4).tolist() == [2, 1, 1, 0]
    assert (held == probe.hold_out(labels, seed=0)).all()


def test_a_class_without_training_images_is_never_predicted():
    random = np.random.default_rng(0)
    train = random.normal(size=(20, 3)).astype(np.float32)
    scores, _ = probe.logistic_scores(train, np.repeat([0, 2], 10), train, 4, seed=0)
    assert np.isneginf(scores[:, [1, 3]]).all()
    assert set(scores.argmax(1)) <= {0, 2}


def test_ties_never_flatter():
    assert labelled.ranks_of(np.zeros((2, 3)), np.array([0, 2])).tolist() == [3, 3]
    assert labelled.ranks_of(np.array([[0.1, 0.9], [0.1, 0.9]]), np.array([1, 0])).tolist() == [
        1,
        2,
    ]


def test_what_nothing_can_be_learned_from_is_refused_in_a_line(maker, tmp_path):
    run = run_of(tmp_path / "run")
    test = class_set(maker, "pets", "test", per_class=2)
    assert suits(test)
    assert not suits(maker.captions("toy", "test", 2))
    with pytest.raises(InputError, match=r"no split train.*cbmf precompute pets --split train"):
        score(maker, run)
    with pytest.raises(InputError, match=r"toy/test has no labelled images"):
        evaluate_linear(maker.cache, run, "toy", "test", silent)
    class_set(maker, "pets", "train", per_class=1)
    with pytest.raises(InputError, match="the only one of its class"):
        score(maker, run)
    with pytest.raises(InputError, match="is what a classifier is learned on"):
        score(maker, run, "train")
    one = maker.labelled("pets", "train", [2, 2, 2], test.classes)
    maker.stream(one, "image", np.ones((3, 12)), encoder="eye")
    with pytest.raises(InputError, match="its 3 encoded images are of 1 class"):
        score(maker, run)
    maker.labelled("pets", "train", [0, 1], ["cat", "dog"])
    with pytest.raises(InputError, match="train has 2 classes and test 6"):
        score(maker, run)


def test_images_of_another_encoder_and_a_run_without_images_are_refused(maker, tmp_path):
    class_set(maker, "pets", "train", per_class=2, encoder="ear")
    class_set(maker, "pets", "test", per_class=2)
    with pytest.raises(StreamError, match="image encoder eye"):
        score(maker, run_of(tmp_path / "run"))
    texts = [spec_of("tongue", "text", "text"), spec_of("lip", "text", "text")]
    with pytest.raises(InputError, match="has no image encoder"):
        score(maker, run_of(tmp_path / "run", texts))


def test_images_that_are_not_encoded_are_left_out_and_counted(maker, tmp_path):
    class_set(maker, "pets", "train", per_class=5, missing=[0, 7])
    class_set(maker, "pets", "test", per_class=5, missing=[3])
    found = score(maker, run_of(tmp_path / "run"))["standard"]
    assert found.counts == {"images": 29, "training images": 28, "classes": 6}
    assert found.excluded == {"images": 1, "training images": 2}


def test_whitened_features_have_unit_variance_in_every_axis_and_come_from_train_alone():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6)) * [100, 10, 1, 0.1, 0.01, 0]  # one axis is flat
    train, test = (random.normal(size=(n, 6)) @ mixing.T for n in (400, 50))
    one, two = linear.whitened(train.astype(np.float32), test.astype(np.float32))
    assert np.allclose(np.cov(one.T), np.eye(one.shape[1]), atol=1e-2) and one.shape[1] < 6
    again, _ = linear.whitened(train.astype(np.float32), test[:1].astype(np.float32))
    assert np.array_equal(one, again) and two.shape == (50, one.shape[1])
