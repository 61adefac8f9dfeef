"""From items of a bank to rows of the shared space. N items, D width."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .aligner import Aligner
from .bank import Bank
from .packing import parts_by_length

POOLED_BLOCK = 8192
"""Pooled items that are encoded at once."""


def encode_items(model: Aligner, encoder: int, bank: Bank, positions: np.ndarray) -> Tensor:
    """Unit rows of some items, (N, D) float32, on the model's device.

    An encoder that learns sees images without the share of tokens that its configuration drops.

    Args:
        model: In the mode (training or evaluation) that is wanted.
        encoder: Which of the model's encoders the bank is of.
        bank: Where the vectors are.
        positions: Places in the bank, (N,) int64.
    """
    device = model.temperature.log_scale.device
    index = torch.from_numpy(positions).to(bank.device)
    image = model.encoders[encoder].modality == "image"
    keep = 1.0 - model.config.token_dropout if model.learns(encoder) and image else 1.0
    if bank.offsets is None:
        parts = np.array_split(np.arange(len(index)), max(1, -(-len(index) // POOLED_BLOCK)))
    else:
        parts = parts_by_length(bank.lengths(index).cpu().numpy() * keep, device.type)
    rows = []
    for part in parts:
        values, mask = bank.gather(index[torch.from_numpy(part).to(bank.device)], keep)
        rows.append(model.encode(encoder, values.to(device), mask.to(device)))
    back = torch.from_numpy(np.argsort(np.concatenate(parts))).to(device)
    return torch.cat(rows)[back]
