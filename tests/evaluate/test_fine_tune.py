import copy
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_caches import class_set, run_of

from cbmf.cache.errors import InputError
from cbmf.evaluate.fine_tune import evaluate_fine_tune, suits
from cbmf.evaluate.suite import silent
from cbmf.evaluate.tuning import Classifier, Training, train_classifier
from cbmf.train.bank import Bank

TOKENS = {"layout": "tokens", "mixup": 0.0, "token_dropout": 0.5, "class_token": "beside"}


def figures(results):
    return [(row.system, row.metrics, row.intervals) for row in results[0].rows]


def banks(maker, run, tokens=None):
    class_set(maker, "pets", "train", per_class=20, noise=0.1, tokens=tokens)
    class_set(maker, "pets", "test", per_class=5, noise=0.1, seed=1, tokens=tokens)
    streams = [maker.cache.find("pets", split, "image") for split in ("train", "test")]
    return [Bank.from_stream(stream, run.model.layout) for stream in streams]


def labels_of(per_class: int) -> np.ndarray:
    return np.repeat(np.arange(6), per_class)


def test_classes_that_stand_apart_are_learned_and_every_system_is_told(maker, tmp_path):
    banks(maker, run_of(tmp_path / "run"))
    told = []
    (result,) = evaluate_fine_tune(
        maker.cache, run_of(tmp_path / "run"), "pets", "test", told.append, epochs=40
    )
    assert [(row.system, row.kind) for row in result.rows] == [
        ("cbmf-add", "model"),
        ("cbmf-add, head only", "model"),
        ("linear heads", "baseline"),
        ("cbmf-add, untrained", "untrained"),
        ("raw eye", "raw"),
        ("chance", "chance"),
    ]
    assert list(result.rows[0].metrics) == [f"epoch {e}" for e in (8, 16, 24, 32, 40)]
    for row in result.rows[:-1]:
        assert row.metrics["epoch 40"] == 1, row.system
        assert row.intervals == {"epoch 40": (1, 1)}
    assert result.row("chance").metrics["epoch 40"] == pytest.approx(1 / 6)
    assert result.protocol == "paper"
    assert "fine-tune pets/test: cbmf-add, epoch 8 of 40" in told


def test_permuted_labels_stay_near_chance(maker, tmp_path):
    class_set(maker, "pets", "train", per_class=20, noise=1.0, shuffled=True)
    class_set(maker, "pets", "test", per_class=60, noise=1.0, seed=1, shuffled=True)
    (result,) = evaluate_fine_tune(
        maker.cache, run_of(tmp_path / "run"), "pets", "test", silent, epochs=5
    )
    for row in result.rows:
        assert abs(row.metrics["epoch 5"] - 1 / 6) < 0.09, row.system


@pytest.mark.parametrize("fusion", ["add", "mul", "concat", "dot", "additive", "general"])
def test_projection_context_fusion_and_dfe_of_the_image_side_are_trained(maker, tmp_path, fusion):
    run = run_of(tmp_path / "run", fusion=fusion, **TOKENS)
    train, test = banks(maker, run, tokens=4)
    before = copy.deepcopy(run.model.state_dict())
    classifier = Classifier(run.model, 0, run.model.width, 6)
    train_classifier(classifier, train, labels_of(20), test, Training(epochs=5), lambda epoch: None)
    after = classifier.body.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"projections.0.hidden.weight", "projections.0.skip.weight"} <= moved
    assert {"dfe.block.attention.into.weight", "dfe.block.narrow.weight"} <= moved
    assert {"dfe.norm.weight", "context.mlp.0.weight"} <= moved
    assert fusion in ("add", "mul") or any(name.startswith("fusion.") for name in moved)
    assert not torch.equal(before["context.vectors"][0], after["context.vectors"][0])
    assert torch.equal(before["context.vectors"][1], after["context.vectors"][1])  # the text's
    assert not any(name.startswith(("projections.1", "temperature", "inputs")) for name in moved)
    assert all(torch.equal(before[k], v) for k, v in run.model.state_dict().items())


def test_a_classifier_on_fixed_features_begins_as_one_on_the_model(maker, tmp_path):
    run = run_of(tmp_path / "run", **TOKENS)
    train, test = banks(maker, run, tokens=4)
    tuned = Classifier(run.model, 0, run.model.width, 6)
    frozen = Classifier(None, 0, run.model.width, 6)
    torch.nn.init.normal_(tuned.head.weight)
    frozen.head.load_state_dict(tuned.head.state_dict())
    tuned.measure(train)
    frozen.measure(tuned.fixed(train))
    np.testing.assert_allclose(tuned.scores(test), frozen.scores(tuned.fixed(test)), atol=1e-5)
    rows = tuned.fixed(train).values
    standard = (rows - tuned.mean) / tuned.deviation
    torch.testing.assert_close(standard.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(8), atol=1e-3, rtol=0)


def test_the_run_and_the_global_random_state_stay_as_they_are(maker, tmp_path):
    run = run_of(tmp_path / "run", **TOKENS)
    run.model.save_pretrained(run.folder)
    banks(maker, run, tokens=4)

    def digests() -> dict[Path, str]:
        files = [p for p in tmp_path.rglob("*") if p.is_file()]
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before, weights = digests(), copy.deepcopy(run.model.state_dict())
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    evaluate_fine_tune(maker.cache, run, "pets", "test", silent, epochs=2)
    assert torch.equal(torch.rand(3), expected)
    assert digests() == before
    assert all(torch.equal(weights[k], v) for k, v in run.model.state_dict().items())
    assert not run.model.training


def test_the_same_seed_gives_the_same_figures_and_labels_scored_change_none(maker, tmp_path):
    class_set(maker, "pets", "train", per_class=20, noise=1.5, tokens=4)
    class_set(maker, "pets", "test", per_class=30, noise=1.5, seed=1, tokens=4)

    def measure(seed: int):
        run = run_of(tmp_path / "run", seed=seed, **TOKENS)
        return figures(evaluate_fine_tune(maker.cache, run, "pets", "test", silent, epochs=3))

    first = measure(0)
    assert first == measure(0)
    assert first != measure(1)


def test_epochs_are_scored_by_fifths():
    assert Training(100).scored == [20, 40, 60, 80, 100]
    assert Training(3).scored == [1, 2, 3]
    assert Training(1).scored == [1]


def test_what_cannot_be_tuned_is_refused_in_a_line(maker, tmp_path):
    run = run_of(tmp_path / "run")
    items = class_set(maker, "pets", "test", per_class=2)
    assert suits(items)
    assert not suits(maker.captions("toy", "test", 2))
    with pytest.raises(InputError, match="at least 1 epoch; got 0"):
        evaluate_fine_tune(maker.cache, run, "pets", "test", silent, epochs=0)
    with pytest.raises(InputError, match="cbmf precompute pets --split train"):
        evaluate_fine_tune(maker.cache, run, "pets", "test", silent)
    one = maker.labelled("pets", "train", [4], items.classes)
    maker.stream(one, "image", np.ones((1, 12)), encoder="eye")
    with pytest.raises(InputError, match="its 1 encoded images are of 1 class"):
        evaluate_fine_tune(maker.cache, run, "pets", "test", silent)
