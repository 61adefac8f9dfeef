"""What people type: a table of their own, options from a file, a look at the machine."""

import csv
import subprocess
import sys

import pytest

from cbmf.cache.catalog import Cache

pytestmark = pytest.mark.slow


def cbmf(*words, folder=None):
    command = [sys.executable, "-m", "cbmf", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture
def table(drawn, tmp_path):
    """A table of drawn pictures under names of its owner's."""
    from cbmf.precompute.datasets.registry import read_dataset

    rows = []
    (tmp_path / "pics").mkdir()
    (split,) = [s for s in read_dataset("coco", drawn / "coco").splits if s.name == "train"]
    images = split.columns["image"]
    names = dict(zip(images.ids, images.values, strict=True))
    texts = dict(zip(split.columns["text"].ids, split.columns["text"].values, strict=True))
    for image, text in split.pairs.ids:
        source = names[image]
        target = tmp_path / "pics" / f"{image}.jpg"
        if not target.exists():
            target.write_bytes((source.root / source.name).read_bytes())
        rows.append([f"pics/{image}.jpg", texts[text], "some words besides"])
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["where", "what", "text"], *rows])
    return tmp_path / "mine.csv"


def test_a_table_goes_from_nothing_to_a_judged_model_and_nothing_is_done_twice(table, tmp_path):
    def run(out, seed):
        given = ("--image-column", "where", "--text-column", "what", "--split-seed", seed)
        encoders = ("--text", "demo-bert", "--image", "demo-vit")
        return cbmf("run", table, *given, *encoders, "--epochs", 2, "--out", tmp_path / out)

    done = run("out", 3)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert "retrieval" in done.stdout.lower() and (out / "report.html").exists()
    cache = Cache(out / "embeddings")
    items = {split: cache.items("mine", split) for split in ("train", "val", "test")}
    assert "some words besides" not in items["train"].columns["text"].values
    with (out / "split.csv").open() as file:
        written = {(row["column"], row["id"]): row["split"] for row in csv.DictReader(file)}
    for split, of in items.items():
        assert all(written["image", image] == split for image in of.columns["image"].ids)
    again = run("out", 3)
    assert again.returncode == 0 and "nothing to encode" in again.stdout, (
        again.stdout + again.stderr
    )
    other = run("other", 4)
    assert other.returncode == 0, other.stderr
    ids = [
        Cache(f / "embeddings").items("mine", "test").columns["image"].ids
        for f in (out, tmp_path / "other")
    ]
    assert ids[0] != ids[1]


def test_a_missing_column_or_table_is_one_line(table, tmp_path):
    for words, said in (
        (("run", tmp_path / "none.csv"), "none.csv: no such file"),
        (("run", table, "--image-column", "photo"), "no column 'photo'; it has 'where'"),
    ):
        done = cbmf(*words, "--out", tmp_path / "x", "--text", "demo-bert", "--image", "demo-vit")
        assert done.returncode == 1 and said in done.stderr, done.stderr


def test_options_stand_in_a_file_and_those_of_the_command_line_go_before(maker, tmp_path):
    cache, _ = maker("pooled")
    from cbmf.train.run import Run

    file = tmp_path / "mine.toml"
    file.write_text(
        'cache = "elsewhere"\n[fit]\nepochs = 1\nbatch-size = 16\nseed = 7\nfusion = "mul"\n'
        "[fit.set]\nwidth = 16\nffn_width = 32\nbaseline = false\n[evaluate]\nagain = true\n"
    )
    words = ("fit", "--config", file, "--cache", cache.root, "--out", tmp_path / "run", "--seed", 8)
    done = cbmf(*words)
    assert done.returncode == 0, done.stderr
    config = Run.load(tmp_path / "run").config
    assert (config.epochs, config.batch_size, config.seed) == (1, 16, 8)
    assert (config.model.fusion, config.model.width, config.baseline) == ("mul", 16, False)
    file.write_text("[fit]\nepoch = 1\n")
    done = cbmf(*words)
    assert done.returncode == 2 and "fit has no option 'epoch'" in done.stderr.replace("\n", " ")
    file.write_text("[fit\n")
    assert cbmf(*words).returncode == 2


def test_a_doctor_names_what_is_wrong_and_what_to_do(maker, tmp_path):
    import shutil

    cache, _ = maker("pooled")
    assert cbmf("doctor", "--cache", cache.root).returncode == 0
    shutil.copytree(cache.root, tmp_path / "cache")
    shard = next((tmp_path / "cache").rglob("00000.h5"))
    shard.write_bytes(shard.read_bytes()[:-5])
    done = cbmf("doctor", "--cache", tmp_path / "cache")
    assert done.returncode == 1
    assert "00000.h5 is missing or cut; cbmf cache verify" in done.stdout


def test_completion_is_offered():
    done = subprocess.run(
        [sys.executable, "-m", "cbmf", "--show-completion", "bash"],
        capture_output=True, text=True, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        check=False,
    )  # fmt: skip
    assert "complete" in done.stdout, done.stderr


def test_tensorboard_has_every_epoch(maker, tmp_path):
    pytest.importorskip("tensorboard")
    cache, _ = maker("pooled")
    words = ("fit", "--cache", cache.root, "--out", tmp_path / "run", "--epochs", 3)
    done = cbmf(*words, "--set", "width=16", "--set", "ffn_width=32", "--tracker", "tensorboard")
    assert done.returncode == 0, done.stderr
    script = f"""
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from pathlib import Path
found = {{}}
for path in Path({str(tmp_path / "run" / "trackers")!r}).rglob("*tfevents*"):
    events = EventAccumulator(str(path.parent))
    events.Reload()
    for tag in events.Tags()["scalars"]:
        found[tag] = [event.step for event in events.Scalars(tag)]
print(found)
"""
    read = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    found = eval(read.stdout)
    assert found["cbmf/val_recall"] == [1, 2, 3], read.stderr
    assert "linear/train_loss" in found
    unknown = cbmf(*words, "--tracker", "scribble")
    assert unknown.returncode == 1 and "--tracker 'scribble' is unknown" in unknown.stderr


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_stop_that_comes_within_a_finaliser_is_not_lost(name, code):
    script = f"""
import os, signal, time, weakref
import typer
from cbmf.command import Command

signal.signal(signal.SIGINT, signal.default_int_handler)
app = typer.Typer()

class Thing: pass

@app.command(cls=Command)
def work():
    thing = Thing()
    held = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))
    del thing
    while True:
        time.sleep(0.1)

app()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "everything finished is kept" in done.stderr
