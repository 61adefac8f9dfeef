from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from tiny_caches import EYE, TEMPLATES, TONGUE, Maker, identity_of, labelled_set, run_of

from cbmf.cache.errors import InputError, StreamError
from cbmf.cache.items import Items
from cbmf.evaluate.bootstrap import intervals
from cbmf.evaluate.suite import silent
from cbmf.evaluate.zero_shot import evaluate_zero_shot


def score(maker: Maker, run, dataset: str = "pets", split: str = "test"):
    results = evaluate_zero_shot(maker.cache, run, dataset, split, silent)
    return {result.protocol: result for result in results}


def rows_of(model, encoder: int, stream) -> np.ndarray:
    values = torch.from_numpy(stream.pooled())[:, None]
    with torch.no_grad():
        mask = torch.ones(values.shape[:2], dtype=torch.bool)
        return model.encode(encoder, values, mask).numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_every_protocol_agrees_with_scikit_learn(maker, tmp_path):
    items = labelled_set(maker, "pets", "test", 60)
    run = run_of(tmp_path / "run")
    found = score(maker, run)
    labels = items.column("image").labels
    image, prompt = (maker.cache.find("pets", "test", name) for name in ("image", "prompt"))
    kinds = {
        "model": run.model,
        "baseline": run.baselines["linear"],
        "untrained": run.untrained,
    }
    for kind, model in kinds.items():
        rows = rows_of(model, 0, image)
        prompts = unit(rows_of(model, 1, prompt)).reshape(4, 3, -1)  # class, template, width
        centres = {
            "names": prompts[:, 0],
            "photo": prompts[:, 1],
            "ensemble": unit(prompts[:, 1:].mean(1)),
        }
        for protocol, centre in centres.items():
            scores = rows @ centre.T
            got = found[protocol].row(kind).metrics
            for k in (1, 2, 3):
                expected = top_k_accuracy_score(labels, scores, k=k)
                assert got[f"top-{k}"] == pytest.approx(expected)
            assert got["top-4"] == 1
            assert "top-5" not in got
            recall = balanced_accuracy_score(labels, scores.argmax(1))
            assert got["mean_class_recall"] == pytest.approx(recall)
            right = (scores.argmax(1) == labels)[:, None]
            ends = found[protocol].row(kind).intervals
            assert ends == {"top-1": pytest.approx(intervals(right)[0])}
    assert found["ensemble"].counts == {"images": 60, "classes": 4, "templates": 2}
    assert found["ensemble"].row("chance").metrics == {
        "top-1": 0.25,
        "top-2": 0.5,
        "top-3": 0.75,
        "top-4": 1,
        "mean_class_recall": 0.25,
    }
    low, high = found["photo"].row("baseline").intervals["top-1"]
    assert low < found["photo"].row("baseline").metrics["top-1"] < high


def test_missing_images_and_prompts_are_left_out_and_counted(maker, tmp_path):
    items = maker.labelled("pets", "test", [0, 1, 0, 1, 1], ["cat", "dog"])
    random = np.random.default_rng(0)
    maker.stream(items, "image", random.normal(size=(5, 12)), encoder="eye", missing=[1])
    maker.stream(items, "prompt", random.normal(size=(6, 10)), encoder="tongue", missing=[2])
    found = score(maker, run_of(tmp_path / "run"))
    assert found["ensemble"].excluded == {"images": 1, "prompts": 1}
    assert found["ensemble"].counts["images"] == 4


def test_a_class_without_its_prompt_is_named(maker, tmp_path):
    items = maker.labelled("pets", "test", [0, 1], ["cat", "dog"])
    maker.stream(items, "image", np.ones((2, 12)), encoder="eye")
    maker.stream(items, "prompt", np.ones((6, 10)), encoder="tongue", missing=[3])
    with pytest.raises(InputError, match="no encoded prompt of class 'dog' for protocol names"):
        score(maker, run_of(tmp_path / "run"))


def test_protocols_follow_the_templates_that_are_there(maker, tmp_path):
    whole = maker.labelled("pets", "test", [0, 1], ["cat", "dog"])
    columns = whole.columns
    renamed = ["{}", "an oil painting of a {}.", "a {} in snow."]
    items = maker.put(Items("pets", "test", columns, classes=whole.classes, templates=renamed))
    random = np.random.default_rng(0)
    maker.stream(items, "image", random.normal(size=(2, 12)), encoder="eye")
    maker.stream(items, "prompt", random.normal(size=(6, 10)), encoder="tongue")
    assert list(score(maker, run_of(tmp_path / "run"))) == ["ensemble", "names"]


def test_what_cannot_be_classified_is_refused_in_a_line(maker, tmp_path):
    run = run_of(tmp_path / "run")
    items = maker.captions("toy", "test", 2)
    with pytest.raises(InputError, match="toy/test has no labelled images with prompts"):
        score(maker, run, items.dataset)
    for labels, missing in (([1, 1, 1], []), ([0, 1], [0, 1])):
        items = maker.labelled("pets", "test", labels, ["cat", "dog"])
        maker.stream(items, "image", np.ones((len(labels), 12)), encoder="eye", missing=missing)
        maker.stream(items, "prompt", np.ones((6, 10)), encoder="tongue")
        with pytest.raises(InputError, match="two classes are the least"):
            score(maker, run)


def test_prompts_of_another_encoder_are_refused_with_the_way_out(maker, tmp_path):
    items = maker.labelled("pets", "test", [0, 1], ["cat", "dog"])
    maker.stream(items, "image", np.ones((2, 12)), encoder="eye")
    maker.stream(items, "prompt", np.ones((6, 10)), encoder="beak")
    with pytest.raises(StreamError, match=r"text encoder tongue.*prompt embeddings of beak"):
        score(maker, run_of(tmp_path / "run"))


def test_one_encoder_of_both_modalities_has_a_raw_floor(maker, tmp_path):
    items = maker.labelled("pets", "test", [0, 1, 2, 0], ["cat", "dog", "cow"])
    hot = np.eye(10)
    maker.stream(items, "image", hot[[0, 1, 2, 1]], encoder="both")
    maker.stream(items, "prompt", hot[np.repeat([0, 1, 2], len(TEMPLATES))], encoder="both")
    encoders = [replace(spec, identity=identity_of("both"), width=10) for spec in (EYE, TONGUE)]
    found = score(maker, run_of(tmp_path / "run", encoders))
    assert [row.system for row in found["names"].rows if row.kind == "raw"] == ["raw both"]
    assert found["names"].row("raw").metrics["top-1"] == pytest.approx(3 / 4)
