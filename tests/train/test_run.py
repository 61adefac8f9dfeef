"""Run folders: what is loaded is what was fitted, and damage is one line."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cbmf.cache.errors import RunError
from cbmf.cache.files import read_json, write_json
from cbmf.train.config import preset
from cbmf.train.fit import fit
from cbmf.train.run import Run, default_folder, newest_run

TINY: dict[str, Any] = {
    "width": 16,
    "projection_width": 16,
    "ffn_width": 32,
    "heads": 2,
    "epochs": 2,
    "batch_size": 16,
}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def stop_after(epoch):
    def report(progress):
        if (progress.stage, progress.epoch) == ("cbmf", epoch):
            raise KeyboardInterrupt

    return report


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_fit_learns_to_find_partners_and_leaves_a_run_folder(small, tmp_path):
    small.image_text(images=200)
    lines = []
    config = preset("best", **{**TINY, "epochs": 12, "batch_size": 64, "lr": 1e-2})
    run = fit(small.cache, config, out=tmp_path / "run", report=lines.append)
    assert {p.name for p in run.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "history.jsonl",
        "curves.png",
        "environment.json",
        "summary.json",
        "baselines",
    }
    best = json.loads((run.folder / "summary.json").read_text())["best"]
    assert best["left_to_right_r1"] >= 0.5  # 0.1 by chance, of 10 images held out
    assert best["val_recall"] == max(line["val_recall"] for line in history(run.folder))
    assert run.finished and run.dataset == "small" and list(run.baselines) == ["linear"]
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert [p.epoch for p in lines if p.stage == "cbmf"] == list(range(1, 13))
    assert [p.epoch for p in lines if p.stage == "linear"] == list(range(1, 41))
    line = history(run.folder)[-1]
    assert line["epoch"] == 12 and 0 < line["temperature"] < 1 and line["pairs_per_s"] > 0


@pytest.mark.usefixtures("undrawn")
def test_an_untrained_model_is_the_one_before_the_first_step(small, tmp_path):
    small.image_text()
    options = {**TINY, "lr": 1e-30, "warmup": 0.0, "weight_decay": 0.0, "epochs": 1}
    run = fit(small.cache, preset("best", baseline=False, **options), out=tmp_path / "a")
    torch.testing.assert_close(
        run.untrained.state_dict(), run.model.state_dict(), rtol=0, atol=1e-25
    )
    options = {**TINY, "lr": 1e-2}
    run = fit(small.cache, preset("best", baseline=False, **options), out=tmp_path / "b")
    assert not same(run.untrained.state_dict(), run.model.state_dict())
    mean = run.model.get_buffer("inputs.0.mean")
    stream = small.cache.find("small", "train", "image")
    np.testing.assert_allclose(mean.numpy(), stream.pooled().mean(0), atol=1e-5)
    assert torch.equal(run.untrained.get_buffer("inputs.0.mean"), mean)


@pytest.mark.usefixtures("undrawn")
def test_a_loaded_run_is_the_run(small, tmp_path):
    small.image_text()
    config = preset("best", **TINY)
    run = fit(small.cache, config, out=tmp_path / "run")
    again = Run.load(tmp_path / "run")
    assert again.config == config and again.dataset == "small"
    assert same(again.model.state_dict(), run.model.state_dict())
    linear, loaded = run.baselines["linear"], again.baselines["linear"]
    assert same(loaded.state_dict(), linear.state_dict())
    assert type(run.model).from_pretrained(tmp_path / "run").encoders == run.model.encoders


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_can_be_loaded_and_says_so(small, tmp_path):
    small.image_text()
    config = preset("best", **TINY)
    with pytest.raises(KeyboardInterrupt):
        fit(small.cache, config, out=tmp_path / "run", report=stop_after(1))
    assert not Run.load(tmp_path / "run").finished


@pytest.mark.usefixtures("undrawn")
def test_runs_that_are_missing_or_damaged_are_one_line(small, tmp_path):
    with pytest.raises(RunError, match="not a run"):
        Run.load(tmp_path / "none")
    small.image_text()
    out = tmp_path / "run"
    run = fit(small.cache, preset("best", baseline=False, **TINY), out=out)
    run.model.save_pretrained(tmp_path / "model")
    with pytest.raises(RunError, match="a model, not a run"):
        Run.load(tmp_path / "model")
    path = out / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        Run.load(out)
    path = out / "config.json"
    write_json(path, read_json(path) | {"version": 2})
    with pytest.raises(RunError, match="version 2"):
        Run.load(out)


def test_runs_have_a_default_place_and_the_newest_is_found(tmp_path):
    names = ("a-best-add-pooled-0", "b-linear-pooled-3")
    for dataset, method, seed, name in (("a", "cbmf", 0, names[0]), ("b", "linear", 3, names[1])):
        config = preset("best", method=method, seed=seed)
        assert default_folder(dataset, config) == Path("runs") / name
    with pytest.raises(RunError, match="cbmf fit"):
        newest_run(tmp_path)
    for when, name in enumerate(names, start=10):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "model.safetensors"
        path.touch()
        os.utime(path, (when, when))
    assert newest_run(tmp_path).name == names[1]


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_checkpoint_is_one_line(small, tmp_path):
    small.image_text()
    config, out = preset("best", baseline=False, **TINY), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(small.cache, config, out=out, report=stop_after(1))
    path = out / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: damaged.*remove this file"):
        fit(small.cache, config, out=out)
