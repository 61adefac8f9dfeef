"""Items of captions alone: what each belongs to, and pairs that were mined."""

import hashlib
import json
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pytest
from sealing import seal_again

from cbmf.cache.errors import ShardError
from cbmf.cache.items import ITEMS_NAME, Column, Items, Pairs, read_items, write_items


def texts(count=6, **arrays):
    ids = [f"c{k}" for k in range(count)]
    digests = np.array([list(hashlib.sha256(i.encode()).digest()) for i in ids], np.uint8)
    return Column("text", ids, ids, digests, **arrays)


def captions(groups=(0, 0, 0, 1, 1, 2), mined='{"threshold": 0.7}', rows=((0, 1), (3, 4))):
    column = texts(groups=None if groups is None else np.array(groups))
    pairs = Pairs("text", "text", np.array(rows), mined=mined)
    return Items("coco-text", "val", {"text": column}, pairs)


def test_groups_and_how_pairs_were_mined_are_read_as_written(tmp_path):
    items = read_items(write_items(tmp_path, captions()))
    assert items.columns["text"].groups.tolist() == [0, 0, 0, 1, 1, 2]
    assert items.columns["text"].groups.dtype == np.int64
    assert json.loads(items.pairs.mined) == {"threshold": 0.7}


def test_without_them_the_file_is_as_older_ones_are(tmp_path):
    path = write_items(tmp_path, captions(groups=None, mined=None))
    with h5py.File(path) as file:
        assert set(file["columns/text"]) == {"ids", "values", "digests"}
        assert set(file["pairs"].attrs) == {"left", "right"}
        # The digest of such a file is part of runs and results: it must never change.
        assert file.attrs["digest"].startswith(b"3ae17d5d1a4052727c98cd88")
    items = read_items(path)
    assert items.columns["text"].groups is None and items.pairs.mined is None


def test_the_digest_covers_groups_and_mining_and_the_column_digest_neither():
    items = captions()
    others = [captions(groups=(0, 0, 1, 1, 1, 2)), captions(mined="{}"), captions(rows=[(0, 2)])]
    assert len({other.digest() for other in [items, *others]}) == 4
    assert len({other.columns["text"].digest() for other in [items, *others]}) == 1


@pytest.mark.parametrize("groups", [(0, 0, 1), (0, 0, 0, 1, 1, -1)])
def test_groups_of_another_length_or_below_zero_are_refused(tmp_path, groups):
    path = write_items(tmp_path, captions(groups=groups))
    with pytest.raises(ShardError, match=r"unequal length|below 0"):
        read_items(path)


@pytest.mark.parametrize("mined", ["{", "[]", ""])
def test_a_record_of_the_mining_that_is_no_json_object_is_refused(tmp_path, mined):
    path = write_items(tmp_path, captions(mined=mined))
    with pytest.raises(ShardError, match="no JSON object"):
        read_items(path)


def test_a_changed_group_is_found_out(tmp_path):
    path = write_items(tmp_path, captions())
    with h5py.File(path, "r+") as file:
        file["columns/text/groups"][0] = 7
    with pytest.raises(ShardError, match="seal does not fit"):
        read_items(path)
    seal_again(path)
    with pytest.raises(ShardError, match="do not match its digest"):
        read_items(path)


def test_pairs_mined_anew_leave_no_older_file_but_other_captions_do(tmp_path):
    items = captions()
    write_items(tmp_path, items)
    write_items(tmp_path, replace(items, pairs=None))
    write_items(tmp_path, captions(rows=[(0, 2)]))
    assert [path.name for path in tmp_path.glob("items*")] == [ITEMS_NAME]
    write_items(tmp_path, Items("coco-text", "val", {"text": texts(4)}))
    assert len(list(tmp_path.glob("items-*.h5"))) == 1


def test_pairs_hold_both_ways_where_they_are_mined_or_judged_within_one_column():
    rows, ones = np.array([(0, 1)]), np.array([1])
    assert Pairs("text", "text", rows, mined="{}").symmetric
    assert Pairs("text", "text", rows, labels=ones).symmetric
    assert not Pairs("text", "text", rows).symmetric
    assert not Pairs("image", "text", rows, labels=ones).symmetric


def many(values):
    digests = np.array([list(hashlib.sha256(v.encode()).digest()) for v in values], np.uint8)
    ids = [f"c{k}" for k in range(len(values))]
    return Items("own", "train", {"text": Column("text", ids, values, digests)})


def test_strings_of_any_script_are_read_as_they_were_written(tmp_path):
    values = ["", "naïve", "猫が座る", "🐈 on a mat", "a" * 5000] * 2000
    found = read_items(write_items(tmp_path, many(values))).columns["text"].values
    assert list(found) == values and found == values
    assert (found[7], found[-1], found[3:6]) == (values[7], values[-1], values[3:6])
    with pytest.raises(IndexError):
        found[len(values)]


def test_captions_stay_in_their_file(tmp_path):
    path = write_items(tmp_path, many([f"{k} a dog runs over the grass" * 10 for k in range(9000)]))
    tracemalloc.start()
    try:
        items = read_items(path)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(items.columns["text"].values) == 9000
    assert kept < path.stat().st_size / 5


@pytest.mark.parametrize("damage", ["a byte", "where a string begins"])
def test_strings_that_are_no_utf8_are_refused_whoever_sealed_them(tmp_path, damage):
    path = write_items(tmp_path, many(["猫", "dog", "naïve"]))
    with h5py.File(path, "r+") as file:
        strings = file["columns/text/values"]
        if damage == "a byte":
            strings["utf8"][0] = 0xFF
        else:
            strings["offsets"][1] = 1
    seal_again(path)
    with pytest.raises(ShardError, match="values is not UTF-8"):
        read_items(path)
