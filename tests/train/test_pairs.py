import numpy as np
import pytest
import torch

from cbmf.cache.errors import InputError
from cbmf.cache.items import Column, Items, Pairs
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


def captions(rows, groups, mined="{}"):
    """Mined pairs of captions; caption i is of image groups[i]."""
    digests = np.zeros((len(groups), 32), np.uint8)
    names = [str(i) for i in range(len(groups))]
    column = Column("text", names, names, digests, groups=np.array(groups))
    return Items("d", "train", {"text": column}, Pairs("text", "text", np.array(rows), mined=mined))


def test_mined_pairs_are_seen_both_ways_and_identity_pairs_once():
    whole = bank(range(4))
    table = join(captions([(0, 0), (0, 1), (0, 2), (3, 3)], [0, 0, 0, 1]), whole, whole)
    assert listed(table) == [(0, [0, 1, 2]), (1, [0]), (2, [0]), (3, [3])]


def test_paraphrases_hold_both_ways_and_pairs_of_ones_own_stay_as_they_are():
    rows, whole = [(0, 1), (2, 1), (1, 0)], bank(range(3))
    judged = items(rows, "text", "text", np.array([1, 1, 1]))
    assert listed(join(judged, whole, whole)) == [(0, [1]), (1, [0, 2]), (2, [1])]
    own = items(rows, "text", "text")
    assert listed(join(own, whole, whole)) == [(0, [1]), (1, [0]), (2, [1])]


def test_a_pair_that_one_bank_lacks_one_way_is_there_the_other_way():
    table = join(captions([(0, 1), (2, 3)], [0, 0, 1, 1]), bank([0, 2, 3]), bank(range(4)))
    assert listed(table) == [(0, [1]), (1, [3]), (2, [2])]
    assert table.dropped == 1


def test_captions_of_one_image_are_a_group_whether_pairs_connect_them_or_not():
    rows = [(0, 1), (2, 3), (1, 4), (4, 5)]
    table = join(captions(rows, [8, 8, 8, 8, 9, 9]), bank(range(6)), bank(range(6)))
    assert table.group.tolist() == [8, 8, 8, 8, 9, 9]
    assert listed(table)[1] == (1, [0, 4]) and table.right_group[1:3].tolist() == [8, 9]
    within = join(captions(rows[:2], [8, 8, 8, 8, 9, 9]), bank(range(6)), bank(range(6)))
    assert within.right_group is None


def test_no_pair_leads_from_what_is_trained_on_to_what_is_held_out():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 5)
    rows = np.unique(np.sort(random.integers(0, 500, (2000, 2)), axis=1), axis=0)
    whole = join(captions(rows, groups), bank(range(500)), bank(range(500)))
    rest, held = hold_out(whole, seed=0)
    for part in (rest, held):
        assert set(part.right_group) <= set(part.group)
        assert np.array_equal(part.group, groups[part.left])
        assert np.array_equal(part.right_group, groups[part.right])
        assert (part.counts > 0).all() and part.counts.sum() == len(part.right)
        assert {(x, y) for x, ys in listed(part) for y in ys} <= {
            (x, y) for a, b in rows for x, y in ((a, b), (b, a))
        }
    assert not set(rest.group) & set(held.group) and len(held.left) >= 8
    kept = {(x, y) for x, ys in listed(rest) for y in ys}
    inside = np.isin(groups, rest.group)
    for a, b in rows:
        assert ((a, b) in kept) == (inside[a] and inside[b])


def test_a_text_is_no_candidate_of_itself_unless_it_is_its_partner():
    rows, groups = [(0, 1), (2, 2), (2, 3), (4, 5)], [0, 0, 1, 1, 2, 2]
    table = join(captions(rows, groups), bank(range(6)), bank([0, 1, 2, 3, 5]))
    assert [(left, right) for left, right in listed(table)] == [
        (0, [1]), (1, [0]), (2, [2, 3]), (3, [2]), (4, [4]),
    ]  # fmt: skip
    # Caption 2 is paired with itself; caption 4 is not in the right bank.
    assert table.itself.tolist() == [0, 1, -1, 3, -1]
    assert table.take(np.array([3, 0])).itself.tolist() == [3, 0]
    assert join(items([(0, 0)]), bank([0]), bank([0])).itself is None
