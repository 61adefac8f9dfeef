import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cbmf.train import packing, validation
from cbmf.train.bank import Bank
from cbmf.train.config import ModelConfig, preset
from cbmf.train.data import load_data
from cbmf.train.encoding import encode_items
from cbmf.train.linear import LinearHeads
from cbmf.train.model import EncoderSpec
from cbmf.train.source import choose_source
from cbmf.train.validation import Links, recall


def test_recall_by_hand():
    left = torch.eye(3)
    right = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0.6, 0.8], [0.8, 0, 0.6]])
    # Partners: left 0 - right 0, 3; left 1 - right 1; left 2 - right 2.
    found = recall(left, right, torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2, 0]))
    assert found["left_to_right_r1"] == 1.0
    assert found["right_to_left_r1"] == 1.0
    # Now left 2 belongs to right 1 alone, which it ranks after rights 2 and 3 (0.8, 0.6 against 0).
    found = recall(left, right, torch.tensor([0, 1, 2]), torch.tensor([0, 2, 1, 0]))
    assert found["left_to_right_r1"] == pytest.approx(1 / 3)
    assert found["left_to_right_r5"] == 1.0
    # Rights 0 and 3 find left 0; right 1 looks for left 2 and right 2 for left 1, both in vain.
    assert found["right_to_left_r1"] == 0.5


def test_recall_is_that_of_sorting_all_candidates(monkeypatch):
    monkeypatch.setattr(validation, "QUERY_BLOCK", 7)
    random = torch.Generator().manual_seed(0)
    left = F.normalize(torch.randn(30, 4, generator=random), dim=-1)
    right = F.normalize(torch.randn(90, 4, generator=random), dim=-1)
    group, owner = torch.arange(30), torch.arange(90) // 3
    found = recall(left, right, group, owner)
    for depth in (1, 5, 10):
        hits = [int(i in owner[(left[i] @ right.T).topk(depth).indices]) for i in range(30)]
        assert found[f"left_to_right_r{depth}"] == pytest.approx(np.mean(hits))


def test_a_model_that_makes_all_alike_finds_nothing():
    same = torch.ones(20, 2) / 2**0.5
    found = recall(same, same, torch.arange(20), torch.arange(20))
    assert set(found.values()) == {0.0}


def test_items_are_encoded_in_their_order_whatever_their_lengths(monkeypatch):
    monkeypatch.setitem(packing.PART_TOKENS, "cpu", 0)  # each length a part of its own
    specs = [EncoderSpec(name, "text", "text", name, 3) for name in ("a", "b")]
    heads = LinearHeads(specs, ModelConfig(layout="tokens", width=4)).eval()
    values = torch.randn(9, 3)
    bank = Bank(np.arange(4), values, torch.tensor([0, 4, 5, 7, 9]))
    rows = encode_items(heads, 1, bank, np.array([3, 0, 1, 0, 2]))
    for row, (start, end) in zip(rows, [(7, 9), (0, 4), (4, 5), (0, 4), (5, 7)], strict=True):
        alone = heads.encode(
            1, values[None, start:end], torch.ones(1, end - start, dtype=torch.bool)
        )
        torch.testing.assert_close(row, alone[0])


def test_recall_with_links_is_that_of_a_slow_loop(monkeypatch):
    monkeypatch.setattr(validation, "QUERY_BLOCK", 7)
    random = torch.Generator().manual_seed(1)
    left, right = (F.normalize(torch.randn(30, 4, generator=random), dim=-1) for _ in range(2))
    group = torch.arange(30) // 3
    partners = {(0, 9), (9, 0), (4, 28), (28, 4), (5, 5)}
    same = {(i, i) for i in range(30) if i != 5}
    links = Links(torch.tensor(sorted(partners)), torch.tensor(sorted(same)))
    found = recall(left, right, group, group, links)

    def share(scores, depth):
        hits = 0
        for i in range(30):
            near = sorted((j for j in range(30) if (i, j) not in same), key=lambda j: -scores[i, j])
            hits += any(group[i] == group[j] or (i, j) in partners for j in near[:depth])
        return hits / 30

    for depth in (1, 5, 10):
        scores = left @ right.T
        assert found[f"left_to_right_r{depth}"] == pytest.approx(share(scores, depth))
        assert found[f"right_to_left_r{depth}"] == pytest.approx(share(scores.T, depth))


def test_to_find_itself_is_no_success(small):
    """Two encoders that see nothing but which caption it is: partners are found by chance."""
    small.captions(images=60, layout="pooled")
    config = preset("best", layout="pooled", method="linear")
    cache = small.cache
    data = load_data(cache, choose_source(cache, config, None), config, torch.device("cpu")).train
    vectors = F.normalize(torch.randn(180, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    links = validation._links(data.table, np.arange(180), data.table.right, vectors)
    kin = torch.from_numpy(data.table.group)
    rows = vectors[torch.from_numpy(data.table.left)]
    rights = torch.from_numpy(np.arange(180) // 3)
    assert links is not None and len(links.same) == len(rows)
    assert recall(rows, vectors, kin, rights)["left_to_right_r1"] == 1.0
    assert recall(rows, vectors, kin, rights, links)["left_to_right_r1"] < 0.1
