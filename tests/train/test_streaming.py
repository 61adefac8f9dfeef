"""Fits whose embeddings stay on disk."""

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cbmf.cache.errors import InputError
from cbmf.train.bank import Bank
from cbmf.train.config import preset
from cbmf.train.data import load_data
from cbmf.train.disk_bank import DiskBank
from cbmf.train.fit import fit
from cbmf.train.source import choose_source
from cbmf.train.streaming import BLOCK_ITEMS, StreamedPairs

IMAGES = 700
TINY: dict[str, Any] = {
    "width": 16,
    "projection_width": 16,
    "ffn_width": 32,
    "heads": 2,
    "epochs": 3,
    "batch_size": 60,
    "baseline": False,
}


@pytest.fixture
def cache(small, undrawn):
    def write(layout="tokens", images=IMAGES, **options):
        small.image_text(images=images, layout=layout, **options)
        return small.cache

    return write


def config(layout="tokens", **options):
    return preset("best", layout=layout, **{**TINY, **options})


def streamed(cache, some, memory_bytes=70_000):
    source = choose_source(cache, some, None)
    train = load_data(cache, source, some, torch.device("cpu"), memory_bytes).train
    assert isinstance(train, StreamedPairs)
    return train


def stream_of(cache, column):
    (stream,) = cache.streams("small", "train", column)
    return stream


@pytest.mark.parametrize("layout", ["tokens", "pooled"])
def test_items_read_from_disk_are_those_of_the_resident_bank(cache, layout):
    stream = stream_of(cache("tokens", text={"failed": (3, 200)}), "text")
    whole, disk = Bank.from_stream(stream, layout), DiskBank(stream, layout)
    random = np.random.default_rng(0)
    for size in (1, 7, 300, len(whole)):
        some = np.sort(random.choice(len(whole), size, replace=False))
        taken = disk.take(some)
        values, mask = taken.gather(torch.arange(size))
        wanted, wanted_mask = whole.gather(torch.from_numpy(some))
        assert torch.equal(values, wanted) and torch.equal(mask, wanted_mask)
        assert np.array_equal(taken.rows, whole.rows[some])
    assert np.array_equal(disk.positions(np.arange(210)), whole.positions(np.arange(210)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_statistics_read_from_disk_are_those_of_the_resident_bank(cache, dtype):
    stream = stream_of(cache("tokens", dtype=dtype), "text")
    one, two = Bank.from_stream(stream, "tokens").statistics(), DiskBank(stream, "tokens")
    found = two.statistics()
    torch.testing.assert_close(found.mean, one.mean)
    torch.testing.assert_close(found.deviation, one.deviation)
    assert found.longest == one.longest


@pytest.mark.parametrize("unit", ["images", "pairs"])
def test_an_epoch_has_every_item_once_with_its_own_partners(cache, unit):
    some, there = config(batch_unit=unit, captions_per_image=0), cache()
    train = streamed(there, some)
    assert train.window_count > 2
    vectors = Bank.from_stream(stream_of(there, "text"), "tokens")
    partners = {
        int(left): set(train.table.right[a:b].tolist())
        for left, a, b in zip(
            train.table.left, train.table.starts[:-1], train.table.starts[1:], strict=True
        )
    }
    seen: Counter[tuple[int, int]] = Counter()
    for banks, batch in train.batches(some, epoch=0):
        left = banks.left.rows[batch.left][batch.owner]
        right = banks.right.rows[batch.right]
        seen.update(zip(left.tolist(), right.tolist(), strict=True))
        found, _ = banks.right.gather(torch.from_numpy(batch.right))
        wanted, _ = vectors.gather(torch.from_numpy(right))
        assert torch.equal(found, wanted)
    assert set(seen.values()) == {1}
    assert set(seen) == {(left, right) for left, all_of in partners.items() for right in all_of}


def test_the_order_is_another_each_epoch_and_the_same_each_time(cache):
    some = config()
    train = streamed(cache(), some)

    def order(epoch):
        return np.concatenate([banks.left.rows[b.left] for banks, b in train.batches(some, epoch)])

    assert np.array_equal(order(0), order(0))
    assert not np.array_equal(order(0), order(1))
    assert np.array_equal(np.sort(order(1)), train.left.rows[train.table.left])


def test_blocks_meet_other_blocks_each_epoch(cache):
    some = config(batch_size=256)
    train = streamed(cache(), some, memory_bytes=140_000)

    def company(epoch):
        banks, _ = next(train.batches(some, epoch))
        return frozenset((banks.left.rows // BLOCK_ITEMS).tolist())

    assert len({company(epoch) for epoch in range(6)}) > 1


@pytest.mark.parametrize("unit", ["images", "pairs"])
@pytest.mark.parametrize("batch_size", [7, 60, 300])
def test_no_batch_is_small_because_its_window_ends(cache, unit, batch_size):
    some = config(batch_unit=unit, batch_size=batch_size)
    train = streamed(cache(), some, memory_bytes=160_000)
    sizes = [
        len(batch.left if unit == "images" else batch.right)
        for _, batch in train.batches(some, epoch=0)
    ]
    assert max(sizes) <= min(sizes) + 1 <= batch_size + 1


def test_two_windows_take_no_more_than_the_memory(cache):
    some = config()
    train = streamed(cache(), some)
    banks = {id(banks): banks for banks, _ in train.batches(some, epoch=0)}.values()
    assert max(each.size_bytes for each in banks) <= train.memory_bytes / 2


def test_a_fit_has_as_many_steps_as_its_schedule_says(cache):
    some = config(batch_unit="pairs")
    train = streamed(cache(), some)
    taken = sum(1 for epoch in range(some.epochs) for _ in train.batches(some, epoch))
    assert train.steps(some) == taken


def test_a_streamed_fit_learns_as_well_as_a_resident_one(cache, tmp_path):
    there, some = cache("pooled"), config("pooled", epochs=12)
    for split in ("val", "test"):
        cache("pooled", images=80, split=split)
    recalls = []
    for name, memory in (("resident", None), ("streamed", 40_000)):
        told: list[str] = []

        def note(progress, told=told):
            told.append(progress.text)

        fit(there, some, out=tmp_path / name, memory_bytes=memory, report=note)
        assert any("windows an epoch" in line for line in told) == (name == "streamed")
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        recalls.append(summary["best"]["val_recall"])
    assert recalls[0] > 0.5
    assert recalls[1] > recalls[0] - 0.05


def test_an_interrupted_streamed_fit_goes_on_bit_by_bit(cache, tmp_path):
    there, some = cache("pooled"), config("pooled")

    def stop(progress):
        if progress.epoch == 1:
            raise KeyboardInterrupt

    fit(there, some, out=tmp_path / "whole", memory_bytes=70_000)
    with pytest.raises(KeyboardInterrupt):
        fit(there, some, out=tmp_path / "parts", memory_bytes=70_000, report=stop)
    fit(there, some, out=tmp_path / "parts")  # what is free would hold all in memory
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_memory_too_small_for_two_batches_is_refused(cache):
    with pytest.raises(InputError, match=r"two windows of one batch take .*--memory"):
        streamed(cache(), config(), memory_bytes=10_000)


PEAK = """
import re
import sys
from pathlib import Path

from cbmf.cache.catalog import Cache
from cbmf.train.config import preset
from cbmf.train.fit import fit

tiny = dict(width=16, projection_width=16, ffn_width=16, heads=2, batch_size=64, baseline=False)
some = preset("best", layout="pooled", **tiny, epochs=1)
allowed = 16 * 2**20
fit(Cache(Path(sys.argv[1])), some, out=Path(sys.argv[2]), memory_bytes=allowed)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_a_cache_four_times_as_large_takes_no_more_memory(tmp_path, small):
    peaks_bytes, wide, items = [], 4096, 1500
    for times in (1, 4):
        large = type(small)(tmp_path / f"x{times}")
        for split, count in (("train", items * times), ("val", 100), ("test", 10)):
            large.wide(count, wide, split=split)
        line = [sys.executable, "-c", PEAK, large.root, tmp_path / f"run{times}"]
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks_bytes.append(1024 * int(done.stdout.split()[-1]))
    more = 3 * items * wide * 2 * 2  # bytes of both streams that the larger cache has more
    assert peaks_bytes[1] - peaks_bytes[0] < more / 4, peaks_bytes
