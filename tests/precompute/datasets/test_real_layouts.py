"""Every data set of the shared folder, read as it lies there."""

import os
import time
from pathlib import Path

import pytest
from split_views import images, labels, pair_scores

from cbmf.precompute.dataset import arrange
from cbmf.precompute.datasets.registry import read_dataset

ROOT = os.environ.get("CBMF_REAL_DATA", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not ROOT, reason="CBMF_REAL_DATA names no folder with data/"),
]
DATA = Path(ROOT) / "data"


def counts(name, root=DATA):
    """By split: rows of each column, pairs, positive labels, items left out."""
    started = time.monotonic()
    found = read_dataset(name, root)
    table = {}
    for split in found.splits:
        ordered, pairs = arrange(split)
        sizes = {key: len(column.ids) for key, column in ordered.columns.items()}
        if pairs is not None:
            sizes["pairs"] = len(pairs.rows)
            if pairs.labels is not None:
                sizes["positive"] = int((pairs.labels == 1).sum())
        table[split.name] = sizes | {"left_out": len(split.left_out)}
    assert time.monotonic() - started < 10
    return found, table


def test_flickr8k_has_its_official_splits():
    found, table = counts("flickr8k")
    assert table == {
        "train": {"image": 6000, "text": 30000, "pairs": 30000, "left_out": 0},
        "val": {"image": 1000, "text": 5000, "pairs": 5000, "left_out": 0},
        "test": {"image": 1000, "text": 5000, "pairs": 5000, "left_out": 0},
    }
    assert images(found.splits[2])[0].open().mode == "RGB"


def test_cifar10_is_read_in_place():
    found, table = counts("cifar10")
    assert table == {
        "train": {"image": 2000, "left_out": 0},
        "test": {"image": 2000, "prompt": 190, "left_out": 0},
    }
    of_test = labels(found.splits[1])
    assert [of_test.count(k) for k in range(10)] == [200] * 10
    assert found.splits[1].classes[:2] == ["airplane", "automobile"]
    assert images(found.splits[1])[0].open().size == (32, 32)


def test_cifar100_is_read_in_place():
    found, table = counts("cifar100")
    assert table == {
        "train": {"image": 4000, "left_out": 0},
        "test": {"image": 1500, "prompt": 1900, "left_out": 0},
    }
    assert len(set(found.splits[0].classes)) == 100


def test_tiny_imagenet_is_read_in_place():
    found, table = counts("tiny-imagenet")
    assert table == {
        "train": {"image": 4080, "left_out": 0},
        "val": {"image": 1530, "prompt": 969, "left_out": 0},
    }
    train, val = found.splits
    assert train.classes == val.classes and len(set(train.classes)) == 51
    assert [labels(val).count(k) for k in range(51)] == [30] * 51
    assert images(val)[0].open().size == (64, 64)


def test_mrpc_has_its_official_counts():
    _, table = counts("mrpc")
    assert table == {
        "train": {"text": 7816, "pairs": 4076, "positive": 2753, "left_out": 0},
        "test": {"text": 3393, "pairs": 1725, "positive": 1147, "left_out": 0},
    }


def test_stsb_has_its_official_counts():
    found, table = counts("stsb")
    assert {name: sizes["pairs"] for name, sizes in table.items()} == {
        "train": 5749,
        "val": 1500,
        "test": 1379,
    }
    assert all(0 <= score <= 5 for split in found.splits for score in pair_scores(split))


def test_qqp_samples_are_read():
    _, table = counts("qqp")
    assert table == {
        "train": {"text": 17471, "pairs": 8999, "positive": 3252, "left_out": 0},
        "val": {"text": 1990, "pairs": 1000, "positive": 377, "left_out": 0},
    }


def test_quoras_own_file_is_split_without_leaks(tmp_path):
    name = "quora_duplicate_questions.first10000.tsv"
    (tmp_path / name).symlink_to(DATA / "qqp" / name)
    found, table = counts("qqp", tmp_path)
    train, val = found.splits
    assert table["train"]["pairs"] + table["val"]["pairs"] == 10_000
    assert 850 < table["val"]["pairs"] < 1150
    assert not set(train.columns["text"].ids) & set(val.columns["text"].ids)
