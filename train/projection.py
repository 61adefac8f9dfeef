"""From an encoder's vectors to the shared width, token by token.

B items, L tokens an item, d_in width of the encoder, D shared width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout
from .model_config import ModelConfig


class Inputs(nn.Module):
    """An encoder's vectors in deviations from their mean, with noise and dropout while training."""

    mean: Tensor
    deviation: Tensor
    longest: Tensor

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))  # (d_in,)
        self.register_buffer("deviation", torch.ones(width))  # (d_in,)
        self.register_buffer("longest", torch.ones((), dtype=torch.int64))  # tokens
        self.noise = config.input_noise
        self.dropout = Dropout(config.input_dropout)

    def forward(self, values: Tensor) -> Tensor:
        """(B, L, d_in) -> (B, L, d_in); only noise and dropout if nothing was measured."""
        return self.disturbed(self.standardised(values))

    def standardised(self, values: Tensor) -> Tensor:
        """(B, L, d_in) in deviations from the mean; as they are if nothing was measured."""
        return (values - self.mean) / self.deviation

    def disturbed(self, x: Tensor) -> Tensor:
        """(B, L, any) with noise and dropout while training.

        A feature that is dropped is dropped in all tokens of an item: left to chance token by
        token, the mean over tokens would bring it back.
        """
        if self.training and self.noise:
            x = x + self.noise * torch.randn_like(x)
        if self.training and self.dropout.p:
            x = x * self.dropout(torch.ones_like(x[:, :1]))
        return x


class Projection(nn.Module):
    """g_m: Linear, GELU, Linear, Dropout, LayerNorm; with a linear map beside it when asked for."""

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, config.projection_width)
        self.out = nn.Linear(config.projection_width, config.width)
        self.dropout = Dropout(config.projection_dropout)
        self.norm = nn.LayerNorm(config.width) if config.projection_norm else nn.Identity()
        self.skip = nn.Linear(width, config.width) if config.projection_skip else None
        if config.projection_skip:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, d_in) -> (B, L, D)."""
        projected = self.dropout(self.out(F.gelu(self.hidden(x))))
        return self.norm(projected if self.skip is None else self.skip(x) + projected)
