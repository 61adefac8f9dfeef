"""From items of a bank to rows of the shared space. N items, D width."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .aligner import Aligner
from .bank import Bank

POOLED_BLOCK, TOKEN_BLOCK = 8192, 128
"""Items that are encoded at once; token sequences in blocks of about one length."""


def encode_items(model: Aligner, encoder: int, bank: Bank, positions: np.ndarray) -> Tensor:
    """Unit rows of some items, (N, D) float32, on the model's device.

    A training model sees images without the share of tokens that its configuration drops.

    Args:
        model: In the mode (training or evaluation) that is wanted.
        encoder: Which of the model's encoders the bank is of.
        bank: Where the vectors are.
        positions: Places in the bank, (N,) int64.
    """
    device = model.temperature.log_scale.device
    index = torch.from_numpy(positions).to(bank.device)
    image = model.encoders[encoder].modality == "image"
    keep = 1.0 - model.config.token_dropout if model.training and image else 1.0
    if bank.offsets is None:
        order, block = torch.arange(len(index), device=bank.device), POOLED_BLOCK
    else:
        order, block = torch.argsort(bank.lengths(index), stable=True), TOKEN_BLOCK
    rows = []
    for part in order.split(block):
        values, mask = bank.gather(index[part], keep)
        rows.append(model.encode(encoder, values.to(device), mask.to(device)))
    return torch.cat(rows)[torch.argsort(order).to(device)]
