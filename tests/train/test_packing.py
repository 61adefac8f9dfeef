import numpy as np
import pytest

from cbmf.train.packing import MOST_TOKENS, PART_TOKENS, parts_by_length


def captions(n, seed=0):
    """Lengths as captions have them: 4 to 42 tokens, most near 14."""
    return np.random.default_rng(seed).gamma(12, 1.2, n).round().clip(4, 42).astype(np.int64)


def padding(lengths, parts):
    padded = sum(lengths[part].max() * len(part) for part in parts)
    return 1 - lengths.sum() / padded


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("count", [1, 2, 37, 512])
def test_every_item_is_in_one_part(device, count):
    parts = parts_by_length(captions(count), device)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert all(len(part) for part in parts)


@pytest.mark.parametrize("count", [256, 512, 2048])
def test_less_than_a_twentieth_of_a_batch_of_captions_is_padding(count):
    lengths = captions(count)
    assert padding(lengths, parts_by_length(lengths, "cpu")) < 0.05


def test_a_large_batch_on_a_gpu_is_padded_little_and_a_small_one_stays_whole():
    lengths = captions(32_768)
    assert padding(lengths, parts_by_length(lengths, "cuda")) < 0.2
    assert len(parts_by_length(captions(256), "cuda")) == 1


def test_no_other_parting_costs_less():
    lengths = np.array([3, 3, 4, 9, 9, 10, 30])
    cost = PART_TOKENS["cpu"]
    tried = []
    for bits in range(2 ** (len(lengths) - 1)):
        cuts = [i + 1 for i in range(len(lengths) - 1) if bits >> i & 1]
        parts = np.split(np.arange(len(lengths)), cuts)
        tried.append(sum(lengths[part].max() * len(part) + cost for part in parts))
    found = parts_by_length(lengths, "cpu")
    assert sum(lengths[part].max() * len(part) + cost for part in found) == min(tried)


def test_parts_stay_within_the_processors_cache():
    lengths = np.full(1000, 50)
    parts = parts_by_length(lengths, "cpu")
    assert max(len(part) for part in parts) * 50 <= MOST_TOKENS["cpu"]
    assert parts_by_length(np.full(3, 10**6), "cpu")[0].size == 1


def test_nothing_gives_no_parts():
    assert parts_by_length(np.empty(0, np.int64), "cpu") == []
