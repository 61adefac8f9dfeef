"""Fits on small real caches."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cbmf.cache.errors import InputError, RunError
from cbmf.train.config import preset
from cbmf.train.fit import fit
from cbmf.train.step import Step

pytestmark = pytest.mark.usefixtures("undrawn")
TINY: dict[str, Any] = {
    "width": 16,
    "projection_width": 16,
    "ffn_width": 32,
    "heads": 2,
    "epochs": 4,
    "batch_size": 16,
    "patience": None,
}
EVERYTHING = {
    **TINY,
    "clip": 1.0,
    "ema": 0.9,
    "mixup": 1.0,
    "input_noise": 0.1,
    "input_dropout": 0.1,
    "block_dropout": 0.1,
    "captions_per_image": 2,
    "schedule": "plateau",
    "plateau_patience": 0,
}


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def stop_after(epoch, stage="cbmf"):
    def report(progress):
        if (progress.stage, progress.epoch) == (stage, epoch):
            raise KeyboardInterrupt

    return report


def test_an_interrupted_fit_goes_on_bit_by_bit(small, tmp_path):
    small.image_text()
    config = preset("best", **EVERYTHING)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(small.cache, config, out=whole)
    for stop in (stop_after(7, "linear"), stop_after(1), stop_after(3)):
        with pytest.raises(KeyboardInterrupt):
            fit(small.cache, config, out=parts, report=stop)
    # As after a kill between the line of an epoch and its checkpoint:
    with (parts / "history.jsonl").open("a") as file:
        file.write('{"epoch": 4}\n')
    run = fit(small.cache, config, out=parts)
    assert run.finished and same(weights(parts), weights(whole))
    for name in ("", "baselines/linear"):
        timing = {"seconds", "pairs_per_s", "waiting"}
        a, b = (
            [{k: v for k, v in line.items() if k not in timing} for line in history(folder / name)]
            for folder in (whole, parts)
        )
        assert a == b
    assert same(weights(parts / "baselines/linear"), weights(whole / "baselines/linear"))


def test_a_killed_fit_goes_on_bit_by_bit(small, tmp_path):
    small.image_text()
    code = """
        import os, signal, sys
        from pathlib import Path
        import torch
        from cbmf.cache.catalog import Cache
        from cbmf.train.config import preset
        from cbmf.train.fit import fit

        def report(progress):
            if progress.stage == "cbmf" and progress.epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        torch.set_num_threads(int(sys.argv[4]))
        options = eval(sys.argv[3])
        config = preset("best", baseline=False, **options)
        fit(Cache(Path(sys.argv[1])), config, out=Path(sys.argv[2]), report=report)
    """
    killed = subprocess.run(
        [
            *(sys.executable, "-c", textwrap.dedent(code), str(small.root), str(tmp_path / "k")),
            *(repr(EVERYTHING), str(torch.get_num_threads())),
        ],
        env=os.environ,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    config = preset("best", baseline=False, **EVERYTHING)
    fit(small.cache, config, out=tmp_path / "k")
    fit(small.cache, config, out=tmp_path / "whole")
    assert same(weights(tmp_path / "k"), weights(tmp_path / "whole"))
    assert [line["epoch"] for line in history(tmp_path / "k")] == [1, 2, 3, 4]


def test_the_seed_decides_everything(small, tmp_path):
    small.image_text()
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        config = preset("best", baseline=False, seed=seed, **EVERYTHING)
        torch.manual_seed(len(folder.name) + seed)  # of no effect
        fit(small.cache, config, out=folder)
    a, b, c = map(weights, folders)
    assert same(a, b) and not same(a, c)


def test_a_fit_leaves_the_callers_random_state_alone(small, tmp_path):
    small.image_text()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fit(small.cache, preset("best", baseline=False, **EVERYTHING), out=tmp_path / "run")
    assert torch.equal(torch.rand(2), expected)


def test_another_configuration_is_refused_with_the_difference(small, tmp_path):
    small.image_text()
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(small.cache, preset("best", baseline=False, **TINY), out=out, report=stop_after(1))
    kept = (out / "checkpoint.safetensors").read_bytes()
    other = preset("best", baseline=False, **{**TINY, "lr": 0.25, "fusion": "mul"})
    with pytest.raises(RunError, match=r"interrupted fit.*fit\.lr: 0\.002 -> 0\.25.*fusion"):
        fit(small.cache, other, out=out)
    assert (out / "checkpoint.safetensors").read_bytes() == kept


def test_a_finished_fit_is_left_as_it_is(small, tmp_path):
    small.image_text()
    out, config = tmp_path / "run", preset("best", **TINY)
    fit(small.cache, config, out=out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    lines = []
    run = fit(small.cache, config, out=out, report=lines.append)
    assert run.finished and ["finished already" in line.text for line in lines] == [True]
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    with pytest.raises(RunError, match="finished fit of another configuration"):
        fit(small.cache, preset("best", **{**TINY, "seed": 9}), out=out)


def test_a_folder_with_other_things_is_not_touched(small, tmp_path):
    small.image_text()
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty, and no run"):
        fit(small.cache, preset("best", **TINY), out=tmp_path)


def test_early_stopping_keeps_the_best_epoch(small, tmp_path):
    small.image_text()
    options = {**TINY, "epochs": 60, "patience": 2, "lr": 0.02, "stop_on": "val_loss"}
    run = fit(small.cache, preset("best", baseline=False, **options), out=tmp_path / "run")
    losses = [line["val_loss"] for line in history(run.folder)]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 60
    summary = json.loads((run.folder / "summary.json").read_text())
    assert summary["stopped"] == "patience" and summary["best"]["epoch"] == best + 1


def test_a_diverging_fit_is_one_line(small, tmp_path):
    small.image_text()
    options = {**TINY, "lr": 1e30, "warmup": 0.0, "schedule": "constant"}
    with pytest.raises(RunError, match=r"loss is (nan|inf).*--lr"):
        fit(small.cache, preset("best", baseline=False, **options), out=tmp_path / "run")


def test_attention_on_pooled_vectors_is_refused_before_anything_is_made(small, tmp_path):
    small.image_text()
    with pytest.raises(InputError, match="--layout tokens"):
        fit(small.cache, preset("best", fusion="dot", **TINY), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["paper", "released"])
def test_tokens_are_fitted_with_attention_and_the_baseline_reads_pooled(small, tmp_path, name):
    small.image_text(layout="tokens", image={"grid": 2}, text={"failed": (0, 5)})
    small.image_text(split="val", images=20, layout="tokens", image={"grid": 2})
    small.image_text(split="test", images=20, layout="tokens", image={"grid": 2})
    lines = []
    config = preset(name, fusion="dot", layout="tokens", **{**TINY, "epochs": 2})
    run = fit(small.cache, config, out=tmp_path / "run", report=lines.append)
    assert run.model.layout == "tokens" and run.baselines["linear"].layout == "pooled"
    assert "2 pairs left out" in lines[0].text and "20 of the split val" in lines[0].text


def test_sentences_are_fitted_across_two_encoders(small, tmp_path):
    small.text_text()
    config = preset("best", **{**TINY, "batch_unit": "pairs", "lr": 5e-3, "epochs": 10})
    run = fit(small.cache, config, out=tmp_path / "run")
    assert [spec.name for spec in run.model.encoders] == ["bert-tiny", "roberta-tiny"]
    assert history(run.folder)[-1]["left_to_right_r1"] >= 0.5


def test_linear_heads_can_be_the_model(small, tmp_path):
    small.image_text()
    config = preset("best", method="linear", width=16, heads=1, epochs=3)
    run = fit(small.cache, config, out=tmp_path / "run")
    assert run.model.method == "linear" and not run.baselines


def test_bfloat16_trains_other_numbers_keeps_float32_weights_and_goes_on_bit_by_bit(
    small, tmp_path
):
    small.image_text()
    config = preset("best", **TINY, precision="bfloat16", baseline=False)
    whole, parts, full = tmp_path / "whole", tmp_path / "parts", tmp_path / "full"
    fit(small.cache, config, out=whole)
    with pytest.raises(KeyboardInterrupt):
        fit(small.cache, config, out=parts, report=stop_after(2))
    fit(small.cache, config, out=parts)
    fit(small.cache, preset("best", **TINY, precision="float32", baseline=False), out=full)
    assert same(weights(whole), weights(parts))
    assert not same(weights(whole), weights(full))
    kinds = {value.dtype for value in weights(whole).values() if value.is_floating_point()}
    assert kinds == {torch.float32}
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["precision"] == "bfloat16 autocast"


def test_mined_pairs_of_captions_are_learned_on_tokens(small, tmp_path):
    for split, images in (("train", 60), ("val", 20), ("test", 20)):
        small.captions(split=split, images=images)
    config = preset("best", **TINY, fusion="additive", layout="tokens", baseline=False)
    fit(small.cache, config, out=tmp_path / "run", dataset="coco-text")
    text = (tmp_path / "run" / "history.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert lines[-1]["val_recall"] > lines[0]["val_recall"]


def test_half_a_file_of_a_killed_fit_does_not_stop_the_next(small, tmp_path):
    small.image_text()
    out = tmp_path / "run"
    out.mkdir()
    killed = subprocess.Popen([sys.executable, "-c", ""])
    while not Path(f"/proc/{killed.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
        time.sleep(0.01)  # dead, and not yet waited for
    left = out / f"config.json.{killed.pid}.tmp"
    left.write_text("{")
    config = preset("best", baseline=False, **TINY)
    assert fit(small.cache, config, out=out).finished
    assert not left.exists()
    killed.wait()


def test_a_line_that_a_kill_left_before_the_first_checkpoint_is_not_doubled(small, tmp_path):
    small.image_text()
    config, out = preset("best", baseline=False, **TINY), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(small.cache, config, out=out, report=stop_after(1))
    (out / "checkpoint.safetensors").unlink()
    fit(small.cache, config, out=out)
    assert [line["epoch"] for line in history(out)] == [1, 2, 3, 4]


def test_a_full_memory_is_one_line_with_the_way_out(small, tmp_path, monkeypatch):
    small.image_text()

    def full(*args):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Step, "take", full)
    with pytest.raises(InputError, match=r"memory of cpu is full; .*--set chunk_size=4"):
        fit(small.cache, preset("best", **TINY), out=tmp_path / "run")
