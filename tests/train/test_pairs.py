import numpy as np
import pytest
import torch

from cbmf.cache.errors import InputError
from cbmf.cache.items import Items, Pairs
from cbmf.train.bank import Bank
from cbmf.train.pairs import PairTable, hold_out, join, runs


def bank(rows):
    return Bank(np.array(rows), torch.zeros(len(rows), 1), None)


def items(rows, left="image", right="text", labels=None):
    return Items("d", "train", {}, Pairs(left, right, np.array(rows), labels))


def listed(table):
    """[(left position, its right positions), ...]."""
    ends = zip(table.starts[:-1], table.starts[1:], strict=True)
    return [
        (left, table.right[a:b].tolist()) for left, (a, b) in zip(table.left, ends, strict=True)
    ]


def test_pairs_are_joined_by_rows_and_those_without_an_item_are_dropped_and_counted():
    rows = [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (3, 5)]
    # Left item 1 and right items 1 and 4 could not be encoded.
    table = join(items(rows), bank([0, 2, 3]), bank([0, 2, 3, 5]))
    assert listed(table) == [(0, [0]), (2, [3])]
    assert table.dropped == 4


def test_only_positive_pairs_of_labelled_ones_are_taken():
    table = join(
        items([(0, 0), (1, 1), (2, 2)], labels=np.array([1, 0, -1])), bank(range(3)), bank(range(3))
    )
    assert listed(table) == [(0, [0])]


def test_no_pair_left_is_an_error():
    with pytest.raises(InputError, match="none of its 1 pairs"):
        join(items([(0, 0)]), bank([1]), bank([0]))


def test_each_image_is_its_own_group():
    table = join(items([(0, 0), (0, 1), (1, 2)]), bank(range(2)), bank(range(3)))
    assert len(set(table.group)) == 2


def test_left_items_that_share_a_right_one_are_a_group():
    table = join(items([(0, 0), (1, 0), (2, 1), (3, 2), (3, 1)]), bank(range(4)), bank(range(3)))
    a, b, c, d = table.group
    assert a == b and c == d and a != c


def test_chains_of_sentences_are_a_group():
    rows = [(0, 1), (1, 2), (2, 3), (5, 4)]
    table = join(items(rows, "text", "text"), bank(range(6)), bank(range(6)))
    assert len(set(table.group[:3])) == 1 and table.group[3] != table.group[0]


def test_groups_are_the_connected_components_of_random_pairs():
    rows = np.random.default_rng(0).integers(0, 60, (50, 2))
    rows = np.unique(rows, axis=0)
    table = join(items(rows, "text", "text"), bank(range(60)), bank(range(60)))
    near = {i: {i} for i in range(60)}
    for a, b in rows:
        union = near[a] | near[b]
        for i in union:
            near[i] = union
    for a, of_a in zip(table.left, table.group, strict=True):
        for b, of_b in zip(table.left, table.group, strict=True):
            assert (of_a == of_b) == (b in near[a])


def table_of(groups):
    count = len(groups)
    return PairTable(
        np.arange(count), np.arange(count + 1) * 2, np.arange(2 * count), np.array(groups)
    )


def test_the_hold_out_takes_a_share_and_keeps_groups_whole():
    whole = table_of(np.repeat(np.arange(100), 3))
    rest, held = hold_out(whole, seed=0)
    assert 15 <= len(held.left) <= 18
    assert sorted([*rest.left, *held.left]) == list(range(300))
    assert not set(rest.group) & set(held.group)
    assert np.array_equal(held.right.reshape(-1, 2)[:, 0], 2 * held.left)
    again = hold_out(whole, seed=0)[1]
    assert np.array_equal(again.left, held.left)
    assert not np.array_equal(hold_out(whole, seed=1)[1].left, held.left)


def test_the_hold_out_is_at_most_5000_items():
    _, held = hold_out(table_of(np.arange(200_000)), seed=0)
    assert len(held.left) == 5000


def test_too_few_groups_to_hold_out_are_refused():
    with pytest.raises(InputError, match="too few"):
        hold_out(table_of([0, 1, 2]), seed=0)


def test_runs():
    assert runs(np.array([5, 9, 0]), np.array([2, 0, 3])).tolist() == [5, 6, 0, 1, 2]
