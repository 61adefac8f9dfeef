"""ConVIRT end to end, with the encoders that ship with the package, on generated pictures."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import InputError, RunError
from cbmf.cache.files import read_json, value_digest, write_json
from cbmf.precompute.datasets.registry import read_dataset
from cbmf.precompute.demo import DEMO_ENCODERS
from cbmf.precompute.encoders import EncoderOptions, FrozenEncoder
from cbmf.precompute.pipeline import PrecomputeOptions
from cbmf.precompute.scenes import demo_encoder, write_demo
from cbmf.precompute.stage import Request, precompute
from cbmf.precompute.tower import Tower
from cbmf.recipes.convirt import ConvirtRequest, train_convirt
from cbmf.train.convirt import ConVIRT
from cbmf.train.history import read_history
from cbmf.train.run import Run

IMAGES = 96


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few of the demo's pictures, in COCO's layout with Karpathy's split."""
    root = tmp_path_factory.mktemp("data")
    few = {"labelled_train": 1, "labelled_test": 1, "sentences": 10}
    write_demo(root, train=IMAGES, val=60, test=10, **few)
    return root / "coco"


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """The demo's BERT with dropout, so that the order of random numbers matters."""
    folder = tmp_path_factory.mktemp("encoders") / "demo-bert-dropping"
    shutil.copytree(demo_encoder(DEMO_ENCODERS["text"]), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def request_of(data, dropping):
    def make(out, **changes):
        small = ConvirtRequest(
            "coco", out, root=data, text=str(dropping), image=DEMO_ENCODERS["image"],
            epochs=2, batch_size=32, lr=3e-4, precision="float32", device="cpu",
        )  # fmt: skip
        return replace(small, **changes)

    return make


@pytest.fixture(scope="module")
def trained(request_of, tmp_path_factory):
    """A finished training."""
    out = tmp_path_factory.mktemp("trained") / "out"
    lines = []
    result = train_convirt(request_of(out), lambda progress: lines.append(progress.text))
    return out, result, lines


def weights_of(out):
    files = ("convirt-image", "convirt-text", "run")
    return [load_file(out / name / "model.safetensors") for name in files]


def same(ones, twos):
    return all(
        one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        for one, two in zip(ones, twos, strict=True)
    )


def test_both_encoders_learn(trained):
    out, result, lines = trained
    history = read_history(result.run)
    assert history[1]["train_loss"] < history[0]["train_loss"] / 2
    assert history[1]["val_recall"] > 0.5
    for name, modality in (("convirt-image", "image"), ("convirt-text", "text")):
        stored = load_file(out / name / "model.safetensors")
        assert {value.dtype for value in stored.values()} == {torch.float32}
        assert not any("pooler" in key for key in stored)
        before, after = (
            dict(FrozenEncoder(str(where), modality, EncoderOptions()).model.named_parameters())
            for where in (DEMO_ENCODERS[modality], out / name)
        )
        still = [key for key, value in before.items() if torch.equal(value, after[key])]
        assert all("pooler" in key for key in still) and before.keys() == after.keys()
    assert f"{IMAGES} images with {5 * IMAGES} captions to train on" in lines[2]


def test_saved_folders_are_encoders_that_the_run_knows(trained):
    _, result, _ = trained
    run = Run.load(result.run)
    assert run.finished and isinstance(run.model, ConVIRT) and run.dataset == "coco2017"
    folders = {"image": result.image_encoder, "text": result.text_encoder}
    for spec in run.model.encoders:
        encoder = FrozenEncoder(str(folders[spec.modality]), spec.modality, EncoderOptions())
        assert spec.identity == value_digest(encoder.made_of)
        assert (spec.name, spec.width) == (encoder.short_name, encoder.pooled_width)


def test_the_cache_gives_the_recall_that_training_saw(trained, data, tmp_path):
    """Stage 1 with the saved encoders, stage 3 with the saved heads: the same numbers."""
    from cbmf.evaluate.suite import evaluate

    _, result, _ = trained
    request = Request(
        "coco",
        root=data,
        splits=("val",),
        text=(str(result.text_encoder),),
        image=(str(result.image_encoder),),
        cache_root=tmp_path,
        options=PrecomputeOptions(dtype="float32"),
    )

    class Silent:
        digesting = planned = progress = finished = staticmethod(lambda *_: None)

    precompute(request, Silent())
    run = Run.load(result.run)
    (found, *_) = evaluate(Cache(tmp_path), run, ["retrieval"], split="val").results
    model = next(row for row in found.rows if row.kind == "model")
    assert model.system == "ConVIRT"
    best = json.loads((result.run / "summary.json").read_text())["best"]
    for depth in (1, 5, 10):
        assert model.metrics[f"image_to_text/R@{depth}"] == best[f"left_to_right_r{depth}"]
        assert model.metrics[f"text_to_image/R@{depth}"] == best[f"right_to_left_r{depth}"]


def test_a_tower_gives_what_the_frozen_encoder_gives(data):
    split = read_dataset("coco", data, ["val"]).splits[0]
    source = split.columns["image"].values[0]
    for modality in ("image", "text"):
        name = DEMO_ENCODERS[modality]
        tower, frozen = (
            Tower(name, modality).eval(),
            FrozenEncoder(name, modality, EncoderOptions()),
        )
        if modality == "image":
            ours = tower(torch.from_numpy(tower.picture(source))[None])
            pixels = torch.from_numpy(frozen.preprocess(source.open()))[None]
            theirs = frozen.encode_images(pixels)
        else:
            ids = frozen.tokenize(["a red circle", "a small blue square left of a tree"])
            longest = max(map(len, ids))
            padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
            ours, theirs = tower(padded, mask), frozen.encode_texts(ids)
        assert ours.requires_grad
        np.testing.assert_allclose(ours.detach().numpy(), theirs.pooled, atol=2e-5)


def test_a_finished_training_is_left_as_it_is(trained, request_of, monkeypatch):
    out, result, _ = trained
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    monkeypatch.setattr("cbmf.precompute.tower.Tower.__init__", None)  # nothing may be loaded
    lines = []
    again = train_convirt(request_of(out), lambda progress: lines.append(progress.text))
    assert again == result and "finished already" in lines[0]
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert not list(out.glob("*.safetensors"))


KILLED = """
    import os, signal
    from pathlib import Path
    import torch
    from cbmf.recipes import convirt_loop
    from cbmf.recipes.convirt import ConvirtRequest, train_convirt

    torch.set_num_threads(1)
    convirt_loop.CHECKPOINT_EVERY_S = 0.0
    steps = 0
    step = convirt_loop.Training._step

    def counted(self, batch):
        global steps
        if steps == {stop}:
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1
        return step(self, batch)

    convirt_loop.Training._step = counted
    train_convirt({request})
"""


def test_killed_within_an_epoch_it_goes_on_bit_by_bit(trained, request_of, tmp_path):
    request = request_of(tmp_path / "parts")
    code = KILLED.format(stop=4, request=repr(request).replace("PosixPath", "Path"))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "parts" / "run").exists()
    lines = []
    train_convirt(request, lambda progress: lines.append(progress.text))
    assert any(re.search("goes on after step 1 of epoch 2", line) for line in lines), lines
    assert same(weights_of(tmp_path / "parts"), weights_of(trained[0]))


def test_another_request_in_the_same_folder_is_refused(trained, request_of, tmp_path):
    out, _, _ = trained
    with pytest.raises(RunError, match=r"request\.lr: 0\.0003 -> 0\.001.*another --out"):
        train_convirt(request_of(out, lr=1e-3))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty, and no training"):
        train_convirt(request_of(tmp_path))


def test_other_pictures_do_not_continue_an_interrupted_training(request_of, tmp_path, data):
    def stop(progress):
        if "epoch 1 of" in progress.text and "recall" in progress.text:
            raise KeyboardInterrupt

    request = request_of(tmp_path / "out", limit=16)
    with pytest.raises(KeyboardInterrupt):
        train_convirt(request, stop)
    card = read_json(tmp_path / "out" / "convirt.json")
    assert card["request"]["limit"] == 16
    card["items"]["train"] = "0" * 64
    write_json(tmp_path / "out" / "convirt.json", card)
    with pytest.raises(RunError, match=r"items\.train"):
        train_convirt(request)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"lr": 0.0}, "lr must lie between"),
        ({"precision": "float16"}, "precision is one of"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_nonsense_is_refused_at_birth(changes, said):
    with pytest.raises(InputError, match=said):
        ConvirtRequest("demo", Path("out"), **changes)
