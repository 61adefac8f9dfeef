import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cbmf.train import encoding, validation
from cbmf.train.bank import Bank
from cbmf.train.config import ModelConfig
from cbmf.train.encoding import encode_items
from cbmf.train.linear import LinearHeads
from cbmf.train.model import EncoderSpec
from cbmf.train.validation import recall


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
    monkeypatch.setattr(encoding, "TOKEN_BLOCK", 2)
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
