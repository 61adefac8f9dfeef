"""More than two encoders in one model: every two of them are compared, each is run once a batch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from cbmf.cache.errors import CacheError, InputError
from cbmf.train.batches import epoch_batches, generator
from cbmf.train.config import preset
from cbmf.train.data import load_data
from cbmf.train.encoding import encode_items
from cbmf.train.fit import fit
from cbmf.train.run import build_model
from cbmf.train.source import choose_source
from cbmf.train.step import Step
from cbmf.train.streaming import StreamedPairs
from cbmf.train.validation import encoder_pairs, recall, validate

TINY = {
    "width": 16,
    "projection_width": 16,
    "ffn_width": 32,
    "heads": 2,
    "epochs": 4,
    "batch_size": 16,
}
CALM = {
    "input_dropout": 0.0,
    "projection_dropout": 0.0,
    "block_dropout": 0.0,
    "token_dropout": 0.0,
    "zero_start": False,
    "clip": 0.0,
}
IMAGES = "tiny-vit,tiny-conv"


@pytest.fixture
def three(small, undrawn):
    """A cache of two image encoders and a text encoder; options as of `image_text`."""

    def write(splits=("train",), conv=None, **options):
        for split in splits:
            small.image_text(split=split, **options)
        small.encoder("tiny-conv", **(conv or {}))
        return small.cache

    return write


def loaded(cache, config, memory_bytes=None):
    source = choose_source(cache, config, None)
    data = load_data(cache, source, config, torch.device("cpu"), memory_bytes)
    model = build_model(source.encoders(config.model.layout), config)
    for encoder in range(len(model.encoders)):
        model.measure(encoder, data.train.statistics(encoder))
    return data, model


def first_step(cache, config):
    data, model = loaded(cache, config)
    batch = next(epoch_batches(data.train.table, config, epoch=0))
    return Step(model.train(), config, steps=10), data.train, batch


def loss_and_gradients(cache, config):
    step, banks, batch = first_step(cache, config)
    loss = step.backward(banks, batch, generator(0, 0, purpose=2))
    return loss, {name: p.grad for name, p in step.model.named_parameters()}


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_names_with_commas_between_are_encoders_of_one_model(three):
    found = choose_source(three(), preset("best", left=IMAGES), None)
    assert [s.encoder for s in found.train] == ["tiny-vit", "tiny-bert", "tiny-conv"]
    assert found.sides == (0, 1, 0)
    specs = found.encoders("pooled")
    assert [(s.name, s.width) for s in specs] == [
        ("tiny-vit", 12),
        ("tiny-bert", 10),
        ("tiny-conv", 9),
    ]


def test_without_names_a_choice_must_be_made_as_before(three):
    with pytest.raises(CacheError, match="name one"):
        choose_source(three(), preset("best"), None)


def test_an_encoder_named_twice_is_refused(three):
    with pytest.raises(InputError, match="is there twice"):
        choose_source(three(), preset("best", left="tiny-vit,tiny-vit"), None)


def test_of_one_column_the_first_stands_on_the_left_and_all_others_on_the_right(small):
    small.captions(layout="pooled")
    found = choose_source(
        small.cache, preset("best", left="mini", right="bert-tiny,roberta-tiny"), None
    )
    assert [s.encoder for s in found.train] == ["mini", "bert-tiny", "roberta-tiny"]
    assert found.sides == (0, 1, 1)
    with pytest.raises(InputError, match="one encoder with --left"):
        choose_source(
            small.cache, preset("best", left="bert-tiny,mini", right="roberta-tiny"), None
        )


def test_every_two_encoders_are_compared_but_not_two_that_are_held():
    assert encoder_pairs((0, 1)) == [(0, 1)]
    assert encoder_pairs((0, 1, 0)) == [(0, 1), (0, 2), (2, 1)]
    assert encoder_pairs((0, 1, 0, 1), held=3) == [(0, 3), (1, 3), (2, 3)]
    assert encoder_pairs((0, 1, 1, 0), held=3) == [(0, 3), (3, 1), (3, 2)]


@pytest.mark.parametrize("captions", [1, 2])
def test_the_loss_is_the_mean_of_those_of_every_two_encoders(three, captions):
    options = {**TINY, **CALM, "mixup": 0.0, "captions_per_image": captions}
    config = preset("best", left=IMAGES, **options)
    step, banks, batch = first_step(three(), config)
    found = step.backward(banks, batch, generator(0, 0, purpose=2))
    items = banks.items(batch.left, batch.right)
    vit, bert, conv = (
        encode_items(step.model, encoder, *at).detach() for encoder, at in enumerate(items)
    )
    scale, owner = step.model.temperature.scale().detach(), torch.from_numpy(batch.owner)

    def slow(one, two, kin):
        """Mean over pairs of both cross-entropies, targets even over partners."""
        logits = scale * one @ two.T
        even = kin / kin.sum(1, keepdim=True)
        back = kin.T / kin.T.sum(1, keepdim=True)
        forth = -(even * logits.log_softmax(1)).sum(1)
        return forth, -(back * logits.T.log_softmax(1)).sum(1)

    kin = (torch.arange(len(vit))[:, None] == owner).float()  # (B, C)
    losses = []
    for image in (vit, conv):
        forth, back = slow(image, bert, kin)
        losses.append((forth[owner].mean() + back.mean()) / 2)
    forth, back = slow(vit, conv, torch.eye(len(vit)))
    losses.append((forth.mean() + back.mean()) / 2)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def test_two_texts_of_one_image_are_no_negatives_of_each_other_in_two_text_encoders(small):
    small.image_text()
    small.encoder("tiny-roberta", column="text")
    options = {**TINY, **CALM, "mixup": 0.0, "captions_per_image": 2}
    config = preset("best", right="tiny-bert,tiny-roberta", **options)
    step, banks, batch = first_step(small.cache, config)
    found = step.backward(banks, batch, generator(0, 0, purpose=2))
    rows = [
        encode_items(step.model, encoder, *at).detach()
        for encoder, at in enumerate(banks.items(batch.left, batch.right))
    ]
    scale, owner = step.model.temperature.scale().detach(), torch.from_numpy(batch.owner)
    assert len(set(batch.owner)) < len(batch.owner)

    def loss(one, two, kin, of_one):
        logits = scale * one @ two.T
        sides = ((logits, kin), (logits.T, kin.T))
        forth, back = (-(k / k.sum(1, keepdim=True) * x.log_softmax(1)).sum(1) for x, k in sides)
        return (forth[of_one].mean() + back.mean()) / 2

    across = (torch.arange(len(rows[0]))[:, None] == owner).float()
    within = (owner[:, None] == owner).float()
    each = torch.arange(len(owner))
    expected = [
        loss(rows[0], rows[1], across, owner),
        loss(rows[0], rows[2], across, owner),
        loss(rows[1], rows[2], within, each),
    ]
    torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-5, atol=1e-6)


def test_each_encoder_runs_once_a_batch(three):
    step, banks, batch = first_step(three(), preset("best", left=IMAGES, **TINY))
    runs = [0, 0, 0]
    for place, projection in enumerate(step.model.projections):
        projection.register_forward_hook(
            lambda *_, place=place: runs.__setitem__(place, runs[place] + 1)
        )
    step.take(banks, batch, generator(0, 0, purpose=2))
    assert runs == [1, 1, 1]


@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_chunks_have_the_gradients_of_the_whole_batch(three, layout):
    cache = three(layout="tokens")
    mixup = 1.0 if layout == "pooled" else 0.0
    options = {**TINY, **CALM, "layout": layout, "mixup": mixup, "captions_per_image": 2}
    options = {**options, "batch_size": 40, "left": IMAGES}
    whole, gradients = loss_and_gradients(cache, preset("best", **options))
    again, found = loss_and_gradients(cache, preset("best", chunk_size=7, **options))
    torch.testing.assert_close(again, whole, rtol=1e-6, atol=0)
    for name, gradient in gradients.items():
        if gradient is None:
            assert found[name] is None
        else:
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("memory_bytes", [None, 12_000])
def test_all_encoders_of_a_side_see_the_same_items_and_pairs_without_one_are_left_out(
    three, memory_bytes
):
    cache = three(images=200, conv={"failed": (3, 50)}, text={"failed": (0,)})
    config = preset("best", left=IMAGES, **TINY)
    data, _ = loaded(cache, config, memory_bytes)
    assert isinstance(data.train, StreamedPairs) == (memory_bytes is not None)
    seen = []
    for banks, batch in data.train.batches(config, epoch=0):
        (vit, at), _, (conv, there) = banks.items(batch.left, batch.right)
        assert np.array_equal(vit.rows[at], conv.rows[there])
        seen.extend(vit.rows[at])
    (vit, at), _, _ = data.val.items(data.val.table.left, data.val.table.right)
    seen.extend(vit.rows[at])
    assert len(seen) == len(set(seen)) and not {0, 3, 50} & set(seen) and len(seen) > 150


def test_mixing_gives_the_items_of_a_side_one_partner_in_all_its_encoders(three):
    options = {**TINY, "batch_size": 30, "captions_per_image": 2}
    step, banks, batch = first_step(
        three(conv={"width": 12}), preset("best", left=IMAGES, **options)
    )
    # The third encoder's vectors replaced by the first one's: what is mixed must be the same.
    conv = banks.more[0]
    conv.bank.values[torch.from_numpy(conv.places)] = banks.left.values
    step.model.projections[2].load_state_dict(step.model.projections[0].state_dict())
    step.model.inputs[2].load_state_dict(step.model.inputs[0].state_dict())
    with torch.no_grad():
        step.model.context.vectors[2] = step.model.context.vectors[0]
    encode = step._encode(banks, batch, generator(0, 0, purpose=2))
    step.model.eval()
    every = np.arange(len(batch.left))
    torch.testing.assert_close(encode(0, every), encode(2, every))


def test_validation_is_the_mean_over_couples_of_both_sides(three):
    cache = three(splits=("train", "val", "test"))
    config = preset("best", left=IMAGES, **TINY)
    data, model = loaded(cache, config)
    found = validate(model, data.val, config)
    table = data.val.table
    rights, place = np.unique(table.right, return_inverse=True)
    model.eval()
    with torch.inference_mode():
        vit, bert, conv = (
            encode_items(model, encoder, *at)
            for encoder, at in enumerate(data.val.items(table.left, rights))
        )
    kind = np.empty(len(rights), np.int64)
    kind[place] = table.group[table.owner]
    groups = torch.from_numpy(table.group), torch.from_numpy(kind)
    couples = [recall(image, bert, *groups) for image in (vit, conv)]
    for name in couples[0]:
        assert found[name] == pytest.approx(sum(each[name] for each in couples) / 2)
    assert found["val_recall"] == pytest.approx(sum(found[name] for name in couples[0]) / 6)


def stop_after(epoch):
    def report(progress):
        if (progress.stage, progress.epoch) == ("cbmf", epoch):
            raise KeyboardInterrupt

    return report


def test_three_encoders_are_fitted_and_go_on_bit_by_bit_after_a_break(three, tmp_path):
    cache = three()
    config = preset("best", left=IMAGES, **{**TINY, "epochs": 12, "ema": 0.9})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run = fit(cache, config, out=whole)
    with pytest.raises(KeyboardInterrupt):
        fit(cache, config, out=parts, report=stop_after(3))
    fit(cache, config, out=parts)
    one, two = weights(whole), weights(parts)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert [spec.name for spec in run.model.encoders] == ["tiny-vit", "tiny-bert", "tiny-conv"]
    assert len(run.baselines["linear"].encoders) == 3
    lines = [json.loads(line) for line in (whole / "history.jsonl").read_text().splitlines()]
    assert lines[-1]["val_recall"] > lines[0]["val_recall"]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]


def test_three_text_encoders_are_fitted_on_mined_pairs(small, undrawn, tmp_path):
    for split, images in (("train", 60), ("val", 20), ("test", 20)):
        small.captions(split=split, images=images, layout="pooled")
    options = {
        **TINY,
        "left": "mini",
        "right": "bert-tiny,roberta-tiny",
        "baseline": False,
        "epochs": 12,
    }
    run = fit(small.cache, preset("best", **options), out=tmp_path / "run", dataset="coco-text")
    lines = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert last["val_recall"] > first["val_recall"] + 0.1
    bank = small.cache.find("coco-text", "test", "text", encoder="bert-tiny").pooled()
    other = small.cache.find("coco-text", "test", "text", encoder="roberta-tiny").pooled()
    with torch.inference_mode():
        one, two = (
            run.model.encode(name, torch.from_numpy(vectors))
            for name, vectors in (("bert-tiny", bank), ("roberta-tiny", other))
        )
    # Two encoders of one side have been brought together too: a text is near those of its image.
    near = (F.normalize(one) @ F.normalize(two).T).argmax(1)
    assert (near // 3 == torch.arange(len(near)) // 3).float().mean() > 0.9


@pytest.mark.slow
def test_two_processes_fit_and_extend_what_one_does(small, tmp_path):
    """As one process, but for the order in which numbers are added."""
    small.image_text(images=60)
    small.encoder("tiny-conv")
    calm = {**TINY, **CALM, "epochs": 2, "batch_size": 30, "baseline": False}
    calm.pop("token_dropout")
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    sets = [f"--set={name}={value}" for name, value in calm.items()]
    free = [f"--set={name}=0.0" for name in ("input_dropout", "projection_dropout")]
    for name, start in (("one", [sys.executable]), ("two", several)):
        out = tmp_path / name
        line = [*start, "-m", "cbmf", "fit", "--cache", str(small.root), "--device", "cpu"]
        three = ["--left", "tiny-vit", "--left", "tiny-conv", *sets, "--out", str(out / "three")]
        pair = ["--left", "tiny-vit", *sets, "--out", str(out / "pair")]
        more = ["--extend", str(out / "pair"), "--add", "tiny-conv", *free]
        for words in (three, pair, [*more, "--out", str(out / "more")]):
            done = subprocess.run([*line, *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    for run in ("three", "more"):
        one, two = (weights(tmp_path / name / run) for name in ("one", "two"))
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
    assert all(
        torch.equal(weights(tmp_path / "two" / "more")[name], value)
        for name, value in weights(tmp_path / "two" / "pair").items()
        if name != "context.vectors"
    )
