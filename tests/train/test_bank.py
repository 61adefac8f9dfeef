import numpy as np
import pytest
import torch

from cbmf.cache.errors import InputError, StreamError
from cbmf.train import bank as bank_module
from cbmf.train.bank import Bank


def stream_of(small, column="text", **options):
    small.image_text(**options)
    return small.cache.find("small", "train", column)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_a_bank_gives_the_streams_own_numbers_in_their_own_dtype(small, dtype, layout):
    stream = stream_of(small, dtype=dtype, layout=layout)
    bank = Bank.from_stream(stream, "pooled")
    assert bank.values.dtype == getattr(torch, dtype)
    values, mask = bank.gather(torch.arange(len(bank)))
    assert values.dtype == torch.float32 and values.shape[1] == 1 and mask.all()
    assert np.array_equal(values[:, 0].numpy(), stream.pooled())


def test_tokens_are_padded_with_zeros_to_the_longest_of_the_batch(small):
    stream = stream_of(small, layout="tokens")
    bank = Bank.from_stream(stream, "tokens")
    whole = [
        block.values[start:end].astype(np.float32)
        for block in stream.blocks()
        for start, end in zip(block.offsets[:-1], block.offsets[1:], strict=True)
    ]
    index = torch.tensor([7, 0, 7, 31])
    values, mask = bank.gather(index)
    assert mask.shape == values.shape[:2]
    assert mask.shape[1] == max(len(whole[i]) for i in index)
    for row, there, i in zip(values, mask, index, strict=True):
        assert np.array_equal(row[there].numpy(), whole[i])
        assert there.sum() == len(whole[i]) and not row[~there].any()


def test_a_share_of_tokens_is_taken_at_random_the_first_one_always(small):
    torch.manual_seed(0)
    stream = stream_of(small, column="image", layout="tokens")  # 5 tokens an image
    bank = Bank.from_stream(stream, "tokens")
    index = torch.arange(60)
    whole, _ = bank.gather(index)
    some, mask = bank.gather(index, keep=0.5)
    assert some.shape == (60, 3, 12) and mask.all()  # the first, and half of the other four
    assert torch.equal(some[:, 0], whole[:, 0])
    same = (some[:, 1:, None] == whole[:, None, 1:]).all(-1)  # (60, 2, 4)
    assert (same.sum(2) == 1).all() and (same.sum(1) <= 1).all()
    assert (same.sum((0, 1)) > 15).all()  # each of the four about 30 times


def test_a_share_of_ragged_tokens_stays_within_each_item(small):
    bank = Bank.from_stream(stream_of(small, layout="tokens"), "tokens")
    index = torch.arange(len(bank))
    _, mask = bank.gather(index, keep=0.5)
    assert torch.equal(mask.sum(1), 1 + ((bank.lengths(index) - 1) / 2).ceil().long())


def test_failed_items_are_missing_and_rows_find_their_places(small):
    bank = Bank.from_stream(stream_of(small, column="image", image={"failed": (2, 40)}), "pooled")
    assert len(bank) == 58
    assert bank.positions(np.array([0, 2, 3, 40, 59])).tolist() == [0, -1, 2, -1, 57]


def test_statistics_are_those_of_all_vectors(small, monkeypatch):
    monkeypatch.setattr(bank_module, "CHUNK_NUMBERS", 200)
    stream = stream_of(small, layout="tokens", dtype="float32")
    bank = Bank.from_stream(stream, "tokens")
    whole = np.concatenate([block.values for block in stream.blocks()]).astype(np.float64)
    found = bank.statistics()
    np.testing.assert_allclose(found.mean.numpy(), whole.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.deviation.numpy(), whole.std(0), rtol=1e-6)
    assert found.longest == 5


def test_a_feature_that_never_changes_is_not_divided_by_zero():
    bank = Bank(np.arange(4), torch.ones(4, 3, dtype=torch.float16), None)
    assert bank.statistics().deviation.tolist() == [1, 1, 1]


def test_tokens_are_not_asked_of_a_pooled_stream(small):
    with pytest.raises(StreamError, match="--layout tokens"):
        Bank.from_stream(stream_of(small), "tokens")


def test_a_bank_that_does_not_fit_is_refused_with_the_ways_out(small, monkeypatch):
    monkeypatch.setattr(bank_module, "free_memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"GiB are free.*--layout pooled.*--grid"):
        Bank.from_stream(stream_of(small), "pooled")


def test_free_memory_is_below_what_the_machine_has():
    free = bank_module.free_memory_bytes()
    assert free is not None and 0 < free < 2**50
