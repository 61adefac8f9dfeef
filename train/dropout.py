"""Dropout that costs little on a CPU too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 256
"""Of a random byte."""
BYTES = 8
"""Of a random number."""


class Dropout(nn.Dropout):
    """torch's dropout, with random bytes on a CPU, where drawing took a seventh of a token fit.

    There the share is a multiple of 1/256; what is kept is scaled by that very share, so that the
    mean is right.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The tensor, some of its elements set to zero while training, of any shape."""
        if not self.training or self.p == 0 or input.device.type != "cpu":
            return F.dropout(input, self.p, self.training)
        dropped = min(max(1, round(self.p * LEVELS)), LEVELS - 1)
        numbers = torch.empty(-(-input.numel() // BYTES), dtype=torch.int64)
        lot = numbers.random_(-(2**63), None).view(torch.uint8)[: input.numel()]
        factor = torch.empty(input.shape, dtype=input.dtype)
        torch.ge(lot.view(input.shape), dropped, out=factor)  # 1 for what is kept
        return input * factor.mul_(LEVELS / (LEVELS - dropped))
