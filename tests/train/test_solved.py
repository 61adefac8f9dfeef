"""Methods that are solved leave what a fit leaves: a folder, the best choice, a history."""

import json

import pytest
import torch

from cbmf.cache.errors import InputError
from cbmf.train.asif import ASIF
from cbmf.train.config import SOLVED, preset
from cbmf.train.csa import CSA
from cbmf.train.fit import fit
from cbmf.train.history import read_history, read_summary
from cbmf.train.run import MODELS, Run, default_folder

CLASSES = {"csa": CSA, "asif": ASIF}


@pytest.fixture
def cache(small):
    def write(layout="pooled", images=60):
        for split in ("train", "val", "test"):
            small.image_text(split=split, layout=layout, images=images)
        return small.cache

    return write


def weights(run):
    return run.model.state_dict()


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("method", SOLVED)
def test_a_solved_method_leaves_a_run_folder(cache, tmp_path, method):
    lines = []
    run = fit(cache(), preset("best", method=method), out=tmp_path / "run", report=lines.append)
    assert {p.name for p in run.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "history.jsonl",
        "curves.png",
        "environment.json",
        "summary.json",
    }
    history, summary = read_history(run.folder), read_summary(run.folder)
    assert [line["epoch"] for line in history] == list(range(1, len(history) + 1))
    assert summary["stopped"] == "solved" and summary["epochs"] == len(history) > 2
    assert summary["best"]["val_recall"] == max(line["val_recall"] for line in history)
    assert summary["best"]["val_recall"] > 0.4  # 0.07 by chance
    assert [line.epoch for line in lines if line.stage == method] == list(
        range(1, len(history) + 1)
    )
    loaded = Run.load(run.folder)
    assert isinstance(loaded.model, CLASSES[method]) and loaded.finished
    assert same(weights(loaded), weights(run))
    before = (run.folder / "model.safetensors").stat().st_mtime_ns
    fit(cache(), preset("best", method=method), out=tmp_path / "run", report=lines.append)
    assert "finished already" in lines[-1].text
    assert (run.folder / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("method", SOLVED)
def test_the_choice_that_is_kept_is_the_one_that_validates_best(cache, tmp_path, method):
    run = fit(cache(), preset(method), out=tmp_path / "run")
    best = read_summary(run.folder)["best"]
    if method == "csa":
        assert int((run.model.correlations > 0).sum()) == best["directions"]
    else:
        chosen = (int(run.model.nearest), float(run.model.power))
        assert chosen == (best["nearest"], best["power"])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("method", SOLVED)
def test_an_interrupted_solution_is_begun_again_and_is_the_same(cache, tmp_path, method):
    store, config = cache(), preset(method)

    def stop(progress):
        if progress.stage == method and progress.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(store, config, out=tmp_path / "broken", report=stop)
    assert not Run.load(tmp_path / "broken").finished
    again = fit(store, config, out=tmp_path / "broken")
    whole = fit(store, config, out=tmp_path / "whole")
    assert same(weights(again), weights(whole))

    def lines(run):
        timed = ("seconds", "pairs_per_s")
        text = (run.folder / "history.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in text]

    assert lines(again) == lines(whole)


@pytest.mark.usefixtures("undrawn")
def test_pairs_on_disk_give_the_same_correlations_as_pairs_in_memory(small, tmp_path):
    small.image_text(images=700, layout="tokens")
    config = preset("csa", layout="tokens", batch_size=60)
    resident = fit(small.cache, config, out=tmp_path / "resident")
    streamed = fit(small.cache, config, out=tmp_path / "streamed", memory_bytes=90_000)
    assert (streamed.folder / "memory.json").exists()
    torch.testing.assert_close(
        streamed.model.correlations, resident.model.correlations, rtol=0, atol=1e-5
    )


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("method", SOLVED)
def test_tokens_are_averaged_without_their_padding(cache, tmp_path, method):
    run = fit(cache("tokens"), preset(method, layout="tokens"), out=tmp_path / "run")
    tokens = torch.randn(2, 4, 12)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    rows = run.model.encode(0, tokens, mask)
    means = torch.stack([tokens[0, :2].mean(0), tokens[1].mean(0)])
    alone = run.model.encode(0, means[:, None], torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(rows, alone)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("method", SOLVED)
def test_two_encoders_of_the_same_texts_are_aligned_too(small, tmp_path, method):
    small.text_text()
    run = fit(small.cache, preset(method), out=tmp_path / "run")
    assert read_summary(run.folder)["best"]["val_recall"] > 0.3


def test_every_method_has_a_class_and_a_default_folder():
    assert set(CLASSES) == set(SOLVED) < set(MODELS)
    assert default_folder("coco", preset("csa", seed=3)).name == "coco-csa-pooled-3"
    with pytest.raises(InputError, match="power must be above 0"):
        preset("asif", power=0.0)
    with pytest.raises(InputError, match="nearest must be at least 1"):
        preset("asif", nearest=0)
