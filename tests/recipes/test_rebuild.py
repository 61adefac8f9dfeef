"""The commands that a report prints make the same run again."""

import shlex
import shutil
import subprocess
import sys

import pytest

from cbmf.recipes.rebuild import rebuild_commands
from cbmf.train.config import preset


def said(line):
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_commands_make_the_same_weights_again(maker, drawn, tmp_path):
    cache, run = maker("tokens")
    encode, again, score = rebuild_commands(run, cache, drawn)
    assert "nothing to encode" in said(encode)
    copy = tmp_path / run.folder.name
    said(again.replace(str(run.folder), str(copy)))
    for name in ("model.safetensors", "baselines/linear/model.safetensors"):
        assert (copy / name).read_bytes() == (run.folder / name).read_bytes()
    assert score == f"cbmf evaluate all --run {run.folder} --cache {cache.root}"


@pytest.mark.parametrize(
    ("name", "changes", "flags"),
    [
        ("paper", {"seed": 3, "patience": None}, "--preset paper --layout pooled --seed 3"),
        ("convirt", {}, "--method convirt --layout pooled"),
        ("best", {"fusion": "mul", "baseline": False}, "--preset best --fusion mul"),
    ],
)
def test_what_differs_from_the_preset_is_a_flag(maker, tmp_path, name, changes, flags):
    cache, run = maker("pooled")
    run.config, kept = preset(name, layout="pooled", **changes), run.config
    try:
        line = rebuild_commands(run, cache, None)[-2]
    finally:
        run.config = kept
    assert flags in line
    assert ("--set patience=none" in line) == ("patience" in changes)
    assert ("--set baseline=false" in line) == ("baseline" in changes)


def test_a_run_of_ones_own_pairs_and_of_a_trial_say_so(maker, tmp_path):
    cache, run = maker("pooled")
    dataset = run.dataset
    try:
        run.dataset = "flickr8k-limit200"
        assert "precompute flickr8k --text" in rebuild_commands(run, cache, None)[0]
        assert "--limit 200" in rebuild_commands(run, cache, None)[0]
        run.dataset = "mine"
        assert "precompute pairs --root YOUR-TABLE" in rebuild_commands(run, cache, None)[0]
    finally:
        run.dataset = dataset


def test_names_with_spaces_are_quoted(maker, tmp_path):
    cache, run = maker("pooled")
    folder = shutil.copytree(run.folder, tmp_path / "a run; rm -rf x")
    run.folder, kept = folder, run.folder
    try:
        last = rebuild_commands(run, cache, None)[-1]
    finally:
        run.folder = kept
    assert str(folder) in shlex.split(last)


def test_an_extended_run_names_what_it_extends(maker, tmp_path):
    from cbmf.cache.files import read_json, write_json

    cache, run = maker("pooled")
    folder = shutil.copytree(run.folder, tmp_path / "new")
    card = read_json(folder / "config.json")
    write_json(folder / "config.json", {**card, "extends": {"run": "old", "encoders": 1}})
    run.folder, kept = folder, run.folder
    try:
        line = rebuild_commands(run, cache, None)[-2]
    finally:
        run.folder = kept
    assert f"--extend {tmp_path / 'old'} --add demo-bert" in line
