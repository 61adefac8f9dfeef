"""A cache moved in one file arrives whole, or not at all."""

import io
import json
import os
import tarfile

import numpy as np
import pytest

from cbmf.cache.catalog import Cache
from cbmf.cache.errors import CacheError, InputError, ShardError
from cbmf.cache.files import PART, value_digest
from cbmf.cache.stream import Stream
from cbmf.cache.transfer import LIST_NAME, export_cache, import_cache
from cbmf.cache.upkeep import verify


@pytest.fixture
def moved(toy, tmp_path):
    """The file of an exported cache with two streams."""
    toy.fill(toy.spec())
    toy.fill(toy.spec("text", layout="pooled"))
    export_cache(Cache(toy.root), tmp_path / "moved.tar")
    return tmp_path / "moved.tar"


def files_below(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.[hj]*") if p.is_file()}


def test_a_moved_cache_is_the_same_to_the_byte(toy, moved, tmp_path):
    there = tmp_path / "there"
    done = import_cache(moved, Cache(there))
    assert [name.split("@")[0] for name in done.streams] == ["toy/train/image", "toy/train/text"]
    assert files_below(there) == files_below(toy.root)
    assert not [f for _, found in verify(Cache(there)) for f in found]
    assert not [path for path in there.iterdir() if PART in path.name]


def test_what_is_there_is_left_and_what_is_incomplete_is_replaced(toy, moved, tmp_path):
    there = type(toy)(tmp_path / "there")
    there.write_items()
    writer = there.writer(there.spec())
    there.write_shard(writer, 0)
    assert len(import_cache(moved, Cache(there.root)).streams) == 2
    assert Stream(writer.folder).complete
    again = import_cache(moved, Cache(there.root))
    assert (len(again.streams), len(again.left)) == (0, 2)


def test_only_the_data_sets_asked_for_and_only_complete_streams_go(toy, tmp_path):
    with pytest.raises(CacheError, match="no complete stream"):
        export_cache(Cache(toy.root), tmp_path / "x.tar")
    toy.fill(toy.spec())
    toy.write_shard(toy.writer(toy.spec("text", layout="pooled")), 0)
    with pytest.raises(CacheError, match="no data set other; has toy"):
        export_cache(Cache(toy.root), tmp_path / "x.tar", ["other"])
    assert not (tmp_path / "x.tar").exists()
    done = export_cache(Cache(toy.root), tmp_path / "x.tar", ["toy"])
    assert len(done.streams) == 1
    assert "incomplete" in done.left[0]


def test_a_damaged_shard_is_not_exported(toy, tmp_path):
    path = toy.fill(toy.spec()) / "00001.h5"
    content = bytearray(path.read_bytes())
    content[-200] ^= 4
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"00001\.h5"):
        export_cache(Cache(toy.root), tmp_path / "x.tar")
    assert os.listdir(tmp_path) == ["embeddings"]


def test_every_cut_and_every_flipped_byte_is_found_and_nothing_is_put_in_place(moved, tmp_path):
    whole, rng = moved.read_bytes(), np.random.default_rng(0)
    size = tar_end(moved)
    there = Cache(tmp_path / "there")
    for place in (0, 100, 511, 600, *map(int, rng.integers(0, size, 40))):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        for content in (whole[:place], bytes(flipped)):
            moved.write_bytes(content)
            try:
                import_cache(moved, there)
            except InputError:
                assert list(there.root.iterdir()) == []
                continue
            # what pads a header or a file to 512 bytes, and owner and time of a member, say nothing
            assert files_below(there.root) == files_below(tmp_path / "embeddings")
            assert content is not whole[:place]
            there = Cache(tmp_path / f"there-{place}")


def tar_end(path):
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
        return last.offset_data + last.size


def hostile(path, members, listed=None):
    """An archive whose list is in order and whose members are not."""
    table = {"format": "cbmf-export", "version": 1, "files": listed or []}
    content = json.dumps({**table, "sha256": value_digest(table)}, indent=1) + "\n"
    head = tarfile.TarInfo(LIST_NAME)
    head.size = len(content)
    with tarfile.open(path, "w") as tar:
        tar.addfile(head, io.BytesIO(content.encode()))
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))


def member(name, **changes):
    found = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "../../evil/items.h5",
        "/etc/items.h5/x",
        "toy/../items.h5",
        "toy/train/image@x/../../../../evil.h5",
        "toy/train/.hidden/00000.h5",
        "toy/train/image@x/run.sh",
        "toy/.train/items.h5",
    ],
)
def test_no_name_leaves_the_cache(name, tmp_path):
    listed = [{"path": name, "size_bytes": 4, "sha256": "0" * 64}]
    hostile(tmp_path / "x.tar", [member(name, size=4)], listed)
    with pytest.raises(InputError, match="no cache has"):
        import_cache(tmp_path / "x.tar", Cache(tmp_path / "there"))
    assert sorted(os.listdir(tmp_path)) == ["there", "x.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_pipes_are_refused(kind, tmp_path):
    name = "toy/train/items.h5"
    listed = [{"path": name, "size_bytes": 0, "sha256": "0" * 64}]
    link = member(name, type=kind, linkname="/etc/passwd")
    hostile(tmp_path / "x.tar", [link], listed)
    with pytest.raises(InputError, match="not as the list says"):
        import_cache(tmp_path / "x.tar", Cache(tmp_path / "there"))


def test_a_declared_size_beyond_the_disk_is_refused_before_anything_is_written(tmp_path):
    listed = [{"path": "toy/train/items.h5", "size_bytes": 2**60, "sha256": "0" * 64}]
    hostile(tmp_path / "x.tar", [], listed)
    with pytest.raises(OSError, match="are free"):
        import_cache(tmp_path / "x.tar", Cache(tmp_path / "there"))


def test_other_items_in_the_same_place_are_refused(toy, moved, tmp_path):
    other = type(toy)(tmp_path / "there")
    other.items.columns["text"].values[0] = "changed"
    other.write_items()
    before = files_below(other.root)
    with pytest.raises(InputError, match="other items of toy/train"):
        import_cache(moved, Cache(other.root))
    assert files_below(other.root) == before
