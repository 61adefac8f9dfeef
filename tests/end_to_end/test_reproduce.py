"""`cbmf reproduce` by command, on small drawn data in the official layouts."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cbmf.precompute.scenes import CLASSES, write_demo

WORDS = (
    "reproduce", "all", "--root", "data", "--cache", "emb", "--out", "out", "--seeds", "2",
    "--text", "demo-bert", "--text", "demo-roberta", "--image", "demo-vit", "--miner", "demo-bert",
    "--set", "epochs=2", "--set", "batch_size=32", "--set", "width=32", "--set", "ffn_width=32",
    "--limit", "60", "--jobs", "2",
)  # fmt: skip


def command(*words, cwd):
    return [sys.executable, "-c", "from cbmf.cli import main; main()", *map(str, words)], {
        "cwd": cwd,
        "env": {**os.environ, "OMP_NUM_THREADS": "1"},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def cbmf(*words, cwd):
    line, how = command(*words, cwd=cwd)
    return subprocess.run(line, check=False, **how)


def write_tiny_imagenet(labelled, home):
    """The official folder, of drawn pictures."""
    wnids = {kind: f"n{number:08d}" for number, kind in enumerate(CLASSES)}
    home.mkdir()
    (home / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids.values()))
    (home / "words.txt").write_text("".join(f"{w}\t{kind}\n" for kind, w in wnids.items()))
    notes = []
    for kind, wnid in wnids.items():
        for split, folder in (("train", f"train/{wnid}/images"), ("test", "val/images")):
            (home / folder).mkdir(parents=True, exist_ok=True)
            for path in sorted((labelled / split / kind).glob("*.png")):
                (home / folder / f"{kind}-{path.name}").write_bytes(path.read_bytes())
                if split == "test":
                    notes.append(f"{kind}-{path.name}\t{wnid}\t0\t0\t9\t9\n")
    (home / "val" / "val_annotations.txt").write_text("".join(notes))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("reproduce")
    data = home / "data"
    write_demo(
        data, train=80, val=20, test=20, labelled_train=8, labelled_test=4, sentences=60, seed=0
    )
    write_tiny_imagenet(data / "scenes10", data / "tiny-imagenet-200")
    (data / "paraphrase").rename(data / "qqp")
    (data / "similarity").rename(data / "stsb")
    (data / "cifar10").symlink_to(data / "scenes10")
    (data / "scenes10").rename(data / "cifar100")
    (data / "cifar10").unlink()
    (data / "cifar10").symlink_to(data / "cifar100")
    return home


def tables(home):
    return json.loads((home / "out" / "results" / "tables.json").read_text())


@pytest.mark.slow
def test_what_the_data_allow_is_there_and_what_they_lack_is_named_and_a_kill_costs_little(home):
    line, how = command(*WORDS, cwd=home)
    process = subprocess.Popen(line, **how)
    while process.poll() is None and not (home / "out" / "runs").is_dir():
        time.sleep(0.2)
    time.sleep(3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = cbmf(*WORDS, cwd=home)
    assert done.returncode == 0, done.stderr
    found = tables(home)
    by_number = {table["table"]: table for table in found["tables"]}
    for number in ("Table II", "Figure 3", "Table IV", "Table V", "Table VI"):
        assert number in by_number, (number, found["skipped"])
    assert "Table III" not in by_number and "mrpc" in found["skipped"]
    rows = {row["system"]: row for row in by_number["Table V"]["rows"]}
    fitted = {f"cbmf-{f}" for f in ("add", "dot", "mul", "concat", "additive", "general")}
    assert {*fitted, "ConVIRT, frozen", "ConVIRT, end to end"} <= set(rows)
    assert {row["kind"] for row in rows.values()} >= {"paper", "model", "raw", "chance"}
    assert len(rows["cbmf-dot"]["metrics"]["epoch 100"]["seeds"]) == 2
    text = (home / "out" / "results" / "tables.md").read_text()
    assert "*CBMF-add, paper*" in text and "### Left out" in text
    assert (home / "out" / "results" / "figure-3.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_second_call_gives_the_same_tables_from_what_is_there(home):
    before = tables(home)
    done = cbmf(*WORDS, cwd=home)
    assert done.returncode == 0, done.stderr
    after = tables(home)
    assert after["tables"] == before["tables"]
    assert "items in" not in done.stdout  # nothing was encoded


def test_without_data_it_says_what_is_missing(tmp_path):
    (tmp_path / "data").mkdir()
    done = cbmf("reproduce", "text-image", "--root", "data", cwd=tmp_path)
    assert done.returncode == 1
    assert "coco" in done.stderr and "flickr8k" in done.stderr
    assert "Traceback" not in done.stderr
