import numpy as np
import pytest
import torch

from cbmf.train.batches import batch_count, epoch_batches, generator
from cbmf.train.config import preset
from cbmf.train.mixing import mix
from cbmf.train.pairs import PairTable

COUNTS = np.array([1, 2, 3, 1, 2, 3, 5])
STARTS = np.concatenate([[0], np.cumsum(COUNTS)])
# Left positions are 100, 101, ...; the right positions of left item g are 10 g, 10 g + 1, ...
TABLE = PairTable(
    left=100 + np.arange(7),
    starts=STARTS,
    right=np.concatenate([10 * g + np.arange(n) for g, n in enumerate(COUNTS)]),
    group=np.arange(7),
)


def config(**options):
    return preset("best", **options)


def test_every_image_comes_once_an_epoch_with_its_own_captions():
    batches = list(epoch_batches(TABLE, config(batch_size=3, captions_per_image=2), epoch=0))
    assert sorted(np.concatenate([b.left for b in batches])) == list(TABLE.left)
    assert [len(b.left) for b in batches] == [3, 2, 2]
    for batch in batches:
        assert np.array_equal(batch.right // 10 + 100, batch.left[batch.owner])
        assert np.array_equal(np.bincount(batch.owner), np.minimum(COUNTS[batch.left - 100], 2))
        assert len(set(batch.right)) == len(batch.right)
        assert np.all(np.diff(batch.owner) >= 0)


def test_all_captions_can_be_taken():
    batches = list(epoch_batches(TABLE, config(batch_size=4, captions_per_image=0), epoch=0))
    assert sorted(np.concatenate([b.right for b in batches])) == sorted(TABLE.right)


def test_captions_are_drawn_anew_and_evenly():
    seen = [
        int(b.right[b.owner == place][0])
        for epoch in range(400)
        for b in epoch_batches(TABLE, config(batch_size=7, captions_per_image=1), epoch)
        for place in np.flatnonzero(b.left == 106)
    ]
    share = np.bincount(np.array(seen) - 60, minlength=5) / len(seen)
    assert np.all(np.abs(share - 0.2) < 0.08)


def test_in_pairs_every_pair_comes_once_and_an_image_once_a_batch():
    batches = list(epoch_batches(TABLE, config(batch_unit="pairs", batch_size=6), epoch=3))
    assert len(batches) == batch_count(TABLE, config(batch_unit="pairs", batch_size=6)) == 3
    assert sorted(np.concatenate([b.right for b in batches])) == sorted(TABLE.right)
    for batch in batches:
        assert len(set(batch.left)) == len(batch.left)
        assert np.array_equal(batch.right // 10 + 100, batch.left[batch.owner])
        assert np.array_equal(batch.group, batch.left - 100)


@pytest.mark.parametrize("unit", ["images", "pairs"])
def test_the_order_is_a_function_of_seed_and_epoch_alone(unit):
    def order(seed, epoch):
        some = config(batch_unit=unit, batch_size=3, seed=seed)
        return np.concatenate([b.right for b in epoch_batches(TABLE, some, epoch)]).tolist()

    assert order(1, 5) == order(1, 5)
    assert order(1, 5) != order(1, 6)
    assert order(1, 5) != order(2, 5)


def test_both_modalities_of_a_pair_are_mixed_with_one_weight_and_the_same_other_pair():
    (batch,) = epoch_batches(TABLE, config(batch_size=7, captions_per_image=2), epoch=0)
    # Vectors that tell where they come from: one-hot of the left item.
    left = torch.eye(7)[batch.left - 100][:, None]
    right = torch.eye(7)[batch.right // 10][:, None]
    mixed_left, mixed_right = mix(left, right, batch, 1.0, generator(0, 0, purpose=9))
    assert not torch.equal(mixed_left, left)
    torch.testing.assert_close(mixed_right, mixed_left[batch.owner])
    own = (mixed_left * left).sum(-1)
    assert bool((own >= 0.5).all()) and bool((own < 1).any())


@pytest.mark.parametrize("unit", ["images", "pairs"])
def test_each_right_item_keeps_the_group_it_is_of(unit):
    table = PairTable(TABLE.left, TABLE.starts, TABLE.right, TABLE.group, 0, 7 * TABLE.right)
    for batch in epoch_batches(table, config(batch_size=4, batch_unit=unit), epoch=1):
        assert np.array_equal(batch.right_group, 7 * batch.right)
    assert next(epoch_batches(TABLE, config(batch_size=4), epoch=1)).right_group is None
