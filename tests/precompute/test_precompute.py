"""Encoded once, whole, joined by id; interrupted or fed with bad files, nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from tiny_inputs import write_coco

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import InputError
from cbmf.cache.manifest import Manifest
from cbmf.precompute.encoders import EncoderOptions, FrozenEncoder
from cbmf.precompute.pipeline import PrecomputeOptions
from cbmf.precompute.stage import Request, precompute


class Quiet:
    """A reporter that only remembers."""

    def __init__(self):
        self.plans = []

    def digesting(self, split, done, total):
        pass

    def planned(self, source, plans, cache):
        self.plans += plans

    def progress(self, stream, progress):
        pass

    def finished(self, stream, progress):
        pass


@pytest.fixture
def run(tmp_path, coco, text_encoder, image_encoder):
    def run(encoder=EncoderOptions(layout="tokens"), root=coco, cache="cache", **options):  # noqa: B008
        request = Request(
            dataset="coco",
            root=root,
            text=(str(text_encoder),),
            image=(str(image_encoder),),
            cache_root=tmp_path / cache,
            options=PrecomputeOptions(encoder=encoder, **options),
        )
        reporter = Quiet()
        return precompute(request, reporter), reporter, Cache(tmp_path / cache)

    return run


def digests(cache: Cache, dataset="coco2017", split="val") -> dict:
    return {
        stream.path.name: [entry.sha256 for _, entry in sorted(stream.manifest.shards.items())]
        for stream in cache.streams(dataset, split)
    }


def test_the_second_run_encodes_nothing(run):
    first, _, cache = run()
    assert first.encoded == 40 + 80
    before = digests(cache)
    second, reporter, _ = run()
    assert second.encoded == 0
    assert all(s.missing_items == 0 for plan in reporter.plans for s in plan.streams)
    assert digests(cache) == before


def test_another_max_length_makes_a_new_stream_and_says_what_differs(run):
    run()
    summary, reporter, cache = run(EncoderOptions(layout="tokens", max_length=8))
    near = {s.spec.column: s.near for plan in reporter.plans for s in plan.streams}
    assert near["text"][1] == ["encoder.max_length: 32 -> 8"]
    assert near["image"] is None
    assert summary.encoded == 80
    assert len(cache.streams("coco2017", "val", "text")) == 2


def test_pairs_are_joined_by_id_whatever_the_order_of_the_file(run, coco, tmp_path):
    _, _, cache = run()
    path = coco / "annotations" / "captions_val2017.json"
    table = json.loads(path.read_text())
    for part in table.values():
        random.Random(0).shuffle(part)
    path.write_text(json.dumps(table))
    _, _, shuffled = run(cache="shuffled")
    assert digests(cache) == digests(shuffled)
    items = shuffled.items("coco2017", "val")
    captions = {str(n["id"]): n for n in table["annotations"]}
    for image, text in items.pairs.rows:
        note = captions[items.columns["text"].ids[text]]
        assert str(note["image_id"]) == items.columns["image"].ids[image]
        assert note["caption"] == items.columns["text"].values[text]


def test_each_row_is_the_embedding_of_its_own_item(run, coco, image_encoder):
    from PIL import Image

    from cbmf.precompute.encoders import FrozenEncoder

    _, _, cache = run(shard_rows=7, batch_size=3)
    encoder = FrozenEncoder(str(image_encoder), "image", EncoderOptions())
    stream = cache.find("coco2017", "val", "image")
    names = cache.items("coco2017", "val").columns["image"].values
    import torch

    for row, vector in zip(stream.rows, stream.pooled(), strict=True):
        with Image.open(coco / names[row]) as image:
            pixels = torch.from_numpy(encoder.preprocess(image.convert("RGB")))[None]
        np.testing.assert_allclose(vector, encoder.encode_images(pixels).pooled[0], atol=2e-3)


def test_batch_size_and_shards_change_nothing_beyond_rounding(run):
    _, _, cache = run(dtype="float32")
    _, _, other = run(cache="other", dtype="float32", batch_size=5, shard_rows=11)
    for column in ("image", "text"):
        one = cache.find("coco2017", "val", column)
        two = other.find("coco2017", "val", column)
        assert one.path.name == two.path.name
        cosines = (one.pooled() * two.pooled()).sum(1)
        cosines /= np.linalg.norm(one.pooled(), axis=1) * np.linalg.norm(two.pooled(), axis=1)
        assert cosines.min() > 0.99999


def test_an_unreadable_image_is_recorded_excluded_and_counted(run, coco):
    folder = coco / "val2017"
    (folder / f"{3:012d}.jpg").write_bytes(b"no image at all")
    whole = (folder / f"{5:012d}.jpg").read_bytes()
    (folder / f"{5:012d}.jpg").write_bytes(whole[: len(whole) // 2])
    summary, _, cache = run(max_failures=0.1)
    assert (summary.failures, summary.over_limit) == (2, [])
    stream = cache.find("coco2017", "val", "image")
    assert {f.item_id for f in stream.manifest.failures} == {"3", "5"}
    assert all(f.reason for f in stream.manifest.failures)
    bad = {f.row for f in stream.manifest.failures}
    assert bad.isdisjoint(stream.rows.tolist()) and len(stream) == 38
    summary, _, _ = run(max_failures=0.01)
    assert summary.over_limit == [stream.path.name]


def test_a_mended_image_is_encoded_anew(run, coco):
    path = coco / "val2017" / f"{3:012d}.jpg"
    whole = path.read_bytes()
    path.write_bytes(b"no image at all")
    run()
    path.write_bytes(whole)
    summary, _, cache = run()
    assert summary.failures == 0 and summary.encoded == 40
    assert len(cache.find("coco2017", "val", "image")) == 40


def test_a_missing_image_and_an_empty_caption_are_left_out_with_reasons(run, coco):
    (coco / "val2017" / f"{7:012d}.jpg").unlink()
    path = coco / "annotations" / "captions_val2017.json"
    table = json.loads(path.read_text())
    table["annotations"][0]["caption"] = "  "
    path.write_text(json.dumps(table))
    summary, _, cache = run()
    items = cache.items("coco2017", "val")
    assert len(items.columns["image"].ids) == 39
    assert len(items.columns["text"].ids) == 80 - 2 - 1
    reasons = {(column, item_id): reason for column, item_id, reason in items.left_out}
    assert reasons["image", "7"] == "no such file"
    assert reasons["text", str(table["annotations"][0]["id"])] == "empty caption"
    assert summary.left_out == len(items.left_out)


def test_a_trial_lies_in_a_data_set_of_its_own(run):
    run(limit=10)
    _, _, cache = run()
    assert cache.splits() == [("coco2017", "val"), ("coco2017-limit10", "val")]
    trial = cache.items("coco2017-limit10", "val")
    assert (len(trial.columns["image"].ids), len(trial.columns["text"].ids)) == (10, 20)


def test_an_encoder_without_a_column_is_refused(coco, tmp_path, image_encoder):
    (tmp_path / "mrpc").mkdir()
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    for name in ("train", "test"):
        path = tmp_path / "mrpc" / f"msr_paraphrase_{name}.txt"
        path.write_text(head + "1\t1\t2\ta cat\tthe cat\n")
    request = Request("mrpc", root=tmp_path / "mrpc", image=(str(image_encoder),))
    with pytest.raises(InputError, match="mrpc has no images; leave --image out"):
        precompute(request, Quiet())


def command(coco, cache, text_encoder, image_encoder, *more):
    return [
        sys.executable, "-c", "from cbmf.cli import main; main()", "precompute", "coco",
        "--root", str(coco), "--cache", str(cache), "--text", str(text_encoder),
        "--image", str(image_encoder), "--shard-rows", "16", "--batch-size", "4", *more,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_in_the_middle_goes_on_and_ends_as_an_undisturbed_one(
    tmp_path, text_encoder, image_encoder, signal_number
):
    coco = write_coco(tmp_path / "coco", images=400)
    cache = Cache(tmp_path / "cache")
    words = command(coco, cache.root, text_encoder, image_encoder)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list(cache.root.rglob("0000[0-9].h5"))) < 4:
        time.sleep(0.01)
    process.send_signal(signal_number)
    _, errors = process.communicate()
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[signal_number]
    assert process.returncode == expected
    if signal_number != signal.SIGKILL:
        assert "everything finished is kept" in errors and "Traceback" not in errors
    kept = {path: path.stat().st_mtime_ns for path in cache.root.rglob("0*.h5")}
    assert len(kept) >= 4
    subprocess.run(words, check=True, capture_output=True)
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
    undisturbed = Cache(tmp_path / "undisturbed")
    words = command(coco, undisturbed.root, text_encoder, image_encoder)
    subprocess.run(words, check=True, capture_output=True)
    assert digests(cache) == digests(undisturbed)
    assert not list(cache.root.rglob("*.tmp")) or signal_number == signal.SIGKILL


@pytest.mark.slow
def test_two_processes_on_one_stream_share_the_work(tmp_path, text_encoder, image_encoder):
    coco = write_coco(tmp_path / "coco", images=300)
    words = command(coco, tmp_path / "cache", text_encoder, image_encoder)
    both = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    alone = command(coco, tmp_path / "alone", text_encoder, image_encoder)
    subprocess.run(alone, check=True, capture_output=True)
    assert digests(Cache(tmp_path / "cache")) == digests(Cache(tmp_path / "alone"))


def test_a_damaged_shard_is_named_taken_out_and_only_it_is_written_again(run, tmp_path):
    _, _, cache = run(shard_rows=16)
    whole = digests(cache)
    stream = cache.find("coco2017", "val", "image")
    path = stream.path / "00001.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    words = [sys.executable, "-c", "from cbmf.cli import main; main()", "cache", "verify"]
    environment = {**os.environ, "CBMF_CACHE": str(cache.root)}
    said = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "00001.h5: damaged, its digest is not the one in the manifest" in said.stdout
    assert Manifest.load(stream.path).missing() == [1]
    summary, _, _ = run(shard_rows=16)
    assert summary.encoded == 16
    assert digests(cache) == whole


@pytest.mark.slow
def test_launched_by_accelerate_two_processes_share_the_work_and_one_speaks(
    tmp_path, text_encoder, image_encoder
):
    coco = write_coco(tmp_path / "coco", images=200)
    alone = command(coco, tmp_path / "alone", text_encoder, image_encoder)
    subprocess.run(alone, check=True, capture_output=True)
    words = command(coco, tmp_path / "cache", text_encoder, image_encoder)
    launch = "accelerate.commands.launch --num_processes 2 --cpu -m cbmf".split()
    launched = [sys.executable, "-m", *launch, *words[3:]]
    said = subprocess.run(launched, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert digests(Cache(tmp_path / "cache")) == digests(Cache(tmp_path / "alone"))
    assert said.stdout.count("to write: about") == 1
    assert not list((tmp_path / "cache").rglob("items-*.h5"))


@pytest.mark.slow
def test_a_killed_worker_is_made_up_for_by_the_others_and_by_its_successor(
    tmp_path, text_encoder, image_encoder
):
    coco = write_coco(tmp_path / "coco", images=400)
    cache = Cache(tmp_path / "cache")
    words = command(coco, cache.root, text_encoder, image_encoder)
    first, other = (subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2))
    while first.poll() is None and len(list(cache.root.rglob("0*.h5"))) < 4:
        time.sleep(0.01)
    first.kill()
    successor = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    assert [first.wait(), other.wait(), successor.wait()] == [-9, 0, 0]
    alone = command(coco, tmp_path / "alone", text_encoder, image_encoder)
    subprocess.run(alone, check=True, capture_output=True)
    assert digests(cache) == digests(Cache(tmp_path / "alone"))


@pytest.fixture
def small_memory(monkeypatch):
    """Encoders run out of memory beyond so many items at once, as on a small GPU."""

    def hold(most):
        whole, asked = FrozenEncoder._forward, []

        def forward(encoder, **inputs):
            count = len(next(iter(inputs.values())))
            asked.append(count)
            if count > most:
                raise torch.OutOfMemoryError(f"no room for {count}")
            return whole(encoder, **inputs)

        monkeypatch.setattr(FrozenEncoder, "_forward", forward)
        return asked

    return hold


def test_batches_that_do_not_fit_the_memory_are_halved_once(run, small_memory):
    _, _, reference = run(dtype="float32", cache="reference")
    asked = small_memory(5)
    summary, _, cache = run(dtype="float32", batch_size=16)
    assert summary.encoded == 40 + 80
    assert asked.count(16) == 2  # once an encoder, then never again
    for stream in cache.streams("coco2017", "val"):
        (twin,) = (s for s in reference.streams("coco2017", "val") if s.column == stream.column)
        np.testing.assert_allclose(stream.pooled(), twin.pooled(), atol=1e-5)
        for mine, yours in zip(stream.blocks(), twin.blocks(), strict=True):
            np.testing.assert_array_equal(mine.rows, yours.rows)
            np.testing.assert_allclose(mine.values, yours.values, atol=1e-5)


def test_a_memory_that_holds_no_item_is_one_line(run, small_memory, text_encoder):
    encoder = FrozenEncoder(str(text_encoder), "text", EncoderOptions())
    inputs = encoder.text_inputs(encoder.tokenize(["a dog", "a cat", "a boat"]))
    small_memory(0)
    with pytest.raises(InputError, match="does not hold it and one item"):
        encoder.launch_fitting(inputs)
    with pytest.raises(InputError, match="does not hold it and one item"):
        run()
