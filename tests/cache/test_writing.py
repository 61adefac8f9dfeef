"""Nothing finished is lost, nothing half-written is seen."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cbmf.cache.errors import DiskFullError, ShardError, StreamError
from cbmf.cache.files import require_room
from cbmf.cache.journal import append_shard
from cbmf.cache.manifest import Manifest
from cbmf.cache.precision import to_float32, to_stored
from cbmf.cache.stream import Stream
from cbmf.cache.upkeep import garbage, remove
from cbmf.cache.writer import settle, strike_shards


def test_an_incomplete_stream_is_refused_with_the_command_that_completes_it(toy):
    writer = toy.writer(toy.spec())
    toy.write_shard(writer, 1)
    with pytest.raises(StreamError, match=r"1 of 3 shards.*cbmf precompute toy"):
        Stream(writer.folder).pooled()


def test_a_second_writer_goes_on_where_the_first_stopped(toy):
    toy.write_shard(toy.writer(toy.spec()), 0)
    again = toy.writer(toy.spec())
    assert again.missing() == [1, 2]


def test_a_shard_finished_just_before_a_kill_is_found_and_listed(toy):
    folder = toy.fill(toy.spec())
    before = Manifest.load(folder)
    before.without_shards({1}).save(folder)  # killed between the rename and the manifest
    assert toy.writer(toy.spec()).missing() == []
    assert Manifest.load(folder) == before


def test_finishing_a_shard_does_not_rewrite_the_manifest_until_the_stream_is_complete(toy):
    writer = toy.writer(toy.spec())
    manifest, journal = writer.folder / "manifest.json", writer.folder / "finished.jsonl"
    before = manifest.read_bytes()
    for number in (0, 1):
        toy.write_shard(writer, number)
        assert manifest.read_bytes() == before
        assert Manifest.load(writer.folder).missing() == list(range(number + 1, 3))
    assert json.loads(journal.read_text().splitlines()[1])["name"] == "00001.h5"
    toy.write_shard(writer, 2)
    assert not journal.exists()
    table = json.loads(manifest.read_text())
    assert table["complete"] and sorted(table["shards"]) == ["0", "1", "2"]


def test_writers_hear_of_each_others_shards(toy):
    one, other = toy.writer(toy.spec()), toy.writer(toy.spec())
    toy.write_shard(one, 0)
    assert other.missing() == [1, 2]
    toy.write_shard(other, 1)
    third = toy.writer(toy.spec())  # brings the journal into the manifest
    assert one.missing() == other.missing() == third.missing() == [2]
    strike_shards(one.folder, {1})
    assert one.missing() == [1, 2]
    toy.write_shard(other, 1)
    toy.write_shard(third, 2)
    assert one.missing() == []
    undisturbed = type(toy)(toy.root.parent / "undisturbed")
    undisturbed.write_items()
    assert Manifest.load(one.folder) == Manifest.load(undisturbed.fill(toy.spec()))


def test_a_line_of_the_journal_that_a_kill_cut_costs_nothing(toy):
    writer = toy.writer(toy.spec())
    for number in (0, 1):
        toy.write_shard(writer, number)
    journal = writer.folder / "finished.jsonl"
    os.truncate(journal, journal.stat().st_size - 40)
    assert Manifest.load(writer.folder).missing() == [1, 2]
    toy.write_shard(writer, 2)  # its line must not be lost behind the cut one
    assert Manifest.load(writer.folder).missing() == [1]
    assert toy.writer(toy.spec()).missing() == []
    assert not journal.exists()


def test_a_journal_that_a_kill_left_behind_a_complete_stream_is_brought_in(toy):
    folder = toy.fill(toy.spec())
    whole = Manifest.load(folder)
    whole.without_shards({1}).save(folder)
    append_shard(folder, 1, whole.shards[1])  # killed before the manifest was written
    assert Stream(folder).complete
    settle(folder)
    assert json.loads((folder / "manifest.json").read_text())["complete"]
    assert [path.name for path in folder.glob("*.jsonl")] == []
    assert Manifest.load(folder) == whole


def test_a_cut_shard_is_written_again_and_only_that_one(toy):
    folder = toy.fill(toy.spec())
    whole = Manifest.load(folder)
    os.truncate(folder / "00002.h5", 100)
    writer = toy.writer(toy.spec())
    assert writer.missing() == [2]
    toy.write_shard(writer, 2)
    assert Manifest.load(folder) == whole


def test_a_shard_is_claimed_by_one_writer_at_a_time(toy):
    one, other = toy.writer(toy.spec()), toy.writer(toy.spec())
    claim = one.claim(0)
    assert claim is not None
    assert other.claim(0) is None
    toy.write_shard(one, 0)
    claim.release()
    assert other.claim(0) is None  # done meanwhile
    second = other.claim(1)
    assert second is not None
    second.release()


KILLED_WRITER = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from conftest import Toy
    import cbmf.cache.files as files
    toy = Toy(Path(sys.argv[1]))
    writer = toy.writer(toy.spec())
    toy.write_shard(writer, 0)
    claim = writer.claim(1)
    files.os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
    toy.write_shard(writer, 1)
"""


def test_a_writer_killed_in_the_middle_of_a_shard_leaves_no_half_shard(toy):
    code = textwrap.dedent(KILLED_WRITER)
    here = str(Path(__file__).parent)
    ended = subprocess.run([sys.executable, "-c", code, str(toy.root), here], check=False)
    assert ended.returncode == -signal.SIGKILL
    writer = toy.writer(toy.spec())
    assert writer.missing() == [1, 2]
    left = [piece.path for piece in garbage_of(toy)]
    assert sorted(path.suffix for path in left) == [".claim", ".tmp"]
    for number in writer.missing():
        toy.write_shard(writer, number)
    undisturbed = type(toy)(toy.root.parent / "undisturbed")
    undisturbed.write_items()
    assert Manifest.load(writer.folder) == Manifest.load(undisturbed.fill(toy.spec()))


def garbage_of(toy):
    from cbmf.cache.catalog import Cache

    return garbage(Cache(toy.root))


def test_gc_leaves_everything_that_is_in_use(toy):
    toy.fill(toy.spec())
    writer = toy.writer(toy.spec("text"))
    claim = writer.claim(0)
    assert claim is not None
    assert garbage_of(toy) == []
    claim.release()


def test_gc_removes_a_stream_whose_items_are_gone(toy):
    from dataclasses import replace

    folder = toy.fill(toy.spec())
    kept = toy.fill(toy.spec("text"))
    image = replace(toy.items.columns["image"], ids=[f"new {i}" for i in range(toy.count)])
    toy.items = replace(toy.items, columns={**toy.items.columns, "image": image})
    toy.write_items()
    assert garbage_of(toy) == []  # the older items are still there, so it can be read
    for older in toy.parent.glob("items-*.h5"):
        older.unlink()
    remove(garbage_of(toy))
    assert not folder.exists()
    assert kept.exists()


def test_gc_removes_damaged_older_items(toy):
    toy.fill(toy.spec())
    (toy.parent / "items-0123456789ab.h5").write_bytes(b"no HDF5 at all")
    assert [piece.path.name for piece in garbage_of(toy)] == ["items-0123456789ab.h5"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(toy, value):
    toy.pooled[3, 3] = value
    with pytest.raises(ShardError, match="not finite"):
        toy.fill(toy.spec())


def test_overflow_of_float16_is_refused_with_a_way_out(toy):
    toy.pooled[3, 3] = 70000
    with pytest.raises(ShardError, match=r"70000 does not fit float16.*--dtype bfloat16"):
        toy.fill(toy.spec())
    toy.fill(toy.spec(dtype="bfloat16"))


def test_rows_and_failures_must_make_up_the_shard(toy):
    writer = toy.writer(toy.spec(layout="pooled"))
    with pytest.raises(ShardError, match=r"rows 0\.\.255"):
        writer.write(0, np.arange(255), toy.pooled[:255])


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DiskFullError, match="GiB are to be written"):
        require_room(tmp_path / "not" / "there" / "yet", 2**60)


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_loses_nothing(toy, small_disk):
    tight = type(toy)(small_disk / "embeddings")
    tight.write_items()
    spec = tight.spec(pooled_width=16, dtype="float32")
    ballast = small_disk / "ballast"
    writer = tight.writer(spec)
    tight.write_shard(writer, 0)
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    ballast.write_bytes(bytes(max(0, free - 8192)))
    with pytest.raises(DiskFullError, match="disk is full"):
        tight.write_shard(writer, 1)
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    again = tight.writer(spec)
    assert again.missing() == [1, 2]
    for number in again.missing():
        tight.write_shard(again, number)
    assert len(Stream(again.folder)) == toy.count


def test_a_struck_shard_is_gone_until_it_is_written_again(toy):
    folder = toy.fill(toy.spec())
    strike_shards(folder, {0, 2})
    assert toy.writer(toy.spec()).missing() == [0, 2]
    table = json.loads((folder / "manifest.json").read_text())
    assert not table["complete"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_is_to_nearest_and_ties_go_to_even(dtype):
    stored = np.arange(2**16, dtype=np.uint16)
    values = to_float32(stored.view(np.float16) if dtype == "float16" else stored, dtype)
    values = np.unique(values[np.isfinite(values)])
    middle = ((values[1:].astype(float) + values[:-1]) / 2).astype(np.float32)
    below, above = (np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf))
    widened = [to_float32(to_stored(x, dtype), dtype) for x in (below, middle, above)]
    np.testing.assert_array_equal(widened[0], values[:-1])
    np.testing.assert_array_equal(widened[2], values[1:])
    even = to_stored(middle, dtype).view(np.uint16) % 2 == 0
    assert even.all()
