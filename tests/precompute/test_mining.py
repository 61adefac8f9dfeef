"""Mined pairs against a slow loop over every two texts."""

import json

import numpy as np
import pytest
import torch

from cbmf.cache.errors import InputError
from cbmf.precompute import mining
from cbmf.precompute.mining import MiningOptions

CPU = torch.device("cpu")


def texts(count=60, images=14, seed=0):
    """Vectors of any length around one cause an image, and the image of each, in any order."""
    random = np.random.default_rng(seed)
    groups = random.integers(0, images, count)
    cause = random.standard_normal((images, 8))
    vectors = (cause[groups] + 0.8 * random.standard_normal((count, 8))) * 3
    return vectors.astype(np.float32), groups.astype(np.int64)


def slow(vectors, groups, options):
    """Every two texts, one by one."""
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = set()
    for i in range(len(unit)):
        others = [(float(unit[i] @ unit[j]), j) for j in range(len(unit)) if j != i]
        if options.candidates == "image":
            others = [(cosine, j) for cosine, j in others if groups[j] == groups[i]]
        else:
            others = sorted(others, reverse=True)[: options.partners or 5]
        found |= {(min(i, j), max(i, j)) for cosine, j in others if cosine >= options.threshold}
        if options.identity:
            found.add((i, i))
    return sorted(found)


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("threshold", [0.7, 0.4, -1.0])
@pytest.mark.parametrize(
    "choice", [{}, {"candidates": "all"}, {"candidates": "all", "partners": 2}]
)
def test_pairs_are_those_of_the_slow_loop(monkeypatch, choice, threshold, identity):
    monkeypatch.setattr(mining, "QUERY_BLOCK", 7)
    monkeypatch.setattr(mining, "CANDIDATE_BLOCK", 13)
    options = MiningOptions(threshold=threshold, identity=identity, **choice)
    vectors, groups = texts()
    rows = options.mine(vectors, groups, CPU)
    assert rows.dtype == np.int64
    assert [tuple(row) for row in rows.tolist()] == slow(vectors, groups, options)


def test_blocks_change_nothing(monkeypatch):
    vectors, groups = texts(500, 90, seed=3)
    options = MiningOptions(candidates="all", threshold=0.5)
    whole = options.mine(vectors, groups, CPU)
    for query, candidate in ((1, 500), (64, 3), (499, 499)):
        monkeypatch.setattr(mining, "QUERY_BLOCK", query)
        monkeypatch.setattr(mining, "CANDIDATE_BLOCK", candidate)
        assert np.array_equal(options.mine(vectors, groups, CPU), whole)


def test_all_finds_partners_of_other_images_and_image_never_does():
    vectors, groups = texts(300, 100, seed=1)
    one = MiningOptions(threshold=0.6).mine(vectors, groups, CPU)
    assert len(one) and (groups[one[:, 0]] == groups[one[:, 1]]).all()
    rows = MiningOptions(threshold=0.6, candidates="all").mine(vectors, groups, CPU)
    assert (groups[rows[:, 0]] != groups[rows[:, 1]]).any()


def test_equal_texts_and_lone_ones():
    same = np.ones((3, 4), np.float32)
    assert MiningOptions().mine(same, np.array([0, 0, 1]), CPU).tolist() == [[0, 1]]
    assert MiningOptions().mine(same, np.arange(3), CPU).shape == (0, 2)
    assert MiningOptions(identity=True).mine(same, np.arange(3), CPU).tolist() == [
        [0, 0], [1, 1], [2, 2],
    ]  # fmt: skip
    every = MiningOptions(candidates="all", partners=9).mine(same, np.arange(3), CPU)
    assert every.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert MiningOptions(candidates="all").mine(same[:1], np.arange(1), CPU).shape == (0, 2)


def test_it_says_how_far_it_is():
    said = []
    vectors, groups = texts(2500, 500)
    MiningOptions(candidates="all").mine(vectors, groups, CPU, lambda *far: said.append(far))
    assert said == [(1024, 2500), (2048, 2500), (2500, 2500)]


def test_the_record_holds_everything_that_changes_the_pairs():
    record = json.loads(MiningOptions(candidates="all").record("mini", "f00"))
    assert record == {
        "miner": "mini", "miner_identity": "f00", "threshold": 0.7, "candidates": "all",
        "partners": 5, "identity": False,
    }  # fmt: skip
    assert json.loads(MiningOptions().record("mini", "f00"))["partners"] is None


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"threshold": 1.2}, "--threshold is a cosine from -1 to 1, got 1.2"),
        ({"threshold": float("nan")}, "--threshold is a cosine"),
        ({"candidates": "some"}, "choose one of image, all"),
        ({"partners": 3}, "goes with --candidates all"),
        ({"candidates": "all", "partners": 0}, "at least 1, got 0"),
    ],
)
def test_what_cannot_be_mined_with_is_refused(options, line):
    with pytest.raises(InputError, match=line):
        MiningOptions(**options)
