"""The deep fusion encoder: LayerNorm, a transformer block, and a residual around both.

B items, L tokens an item, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout
from .model_config import ModelConfig

HIDDEN = -1e4
"""Logit of what is no token: its weight is 0 in every dtype."""


class SelfAttention(nn.Module):
    """Multi-head self-attention, initialised as torch's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, Dropout(config.block_dropout)
        self.into = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        nn.init.xavier_uniform_(self.into.weight)
        nn.init.zeros_(self.into.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D), (B, L) bool -> (B, L, D).

        With one token an item the softmax is 1: queries and keys are left out, the result is the
        same. (In training the weight 1 is then not dropped either.)
        """
        width = x.shape[-1]
        if x.shape[1] == 1:
            weight, bias = self.into.weight[2 * width :], self.into.bias[2 * width :]
            return self.out(F.linear(x, weight, bias))
        into = self.into(x).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, H, D / H)
        query, key, value = into.permute(2, 0, 3, 1, 4)  # (B, H, L, D / H) each
        if self.training and x.device.type == "cpu":
            mixed = self._mixed(query, key, value, mask)
        else:
            dropout = self.dropout.p if self.training else 0.0
            mixed = F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask[:, None, None], dropout_p=dropout
            )
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """Attention in plain products: on a CPU torch's, with dropout, takes up to twice as long.

        query, key, value (B, H, L, D / H), mask (B, L) -> (B, H, L, D / H).
        """
        batch, heads, length, width = query.shape
        bias = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, HIDDEN)
        bias = bias[:, None].expand(batch, heads, length).reshape(-1, 1, length)  # (B H, 1, L)
        query, key, value = (each.reshape(-1, length, width) for each in (query, key, value))
        logits = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=width**-0.5)  # (B H, L, L)
        mixed = torch.bmm(self.dropout(logits.softmax(-1)), value)
        return mixed.view(batch, heads, length, width)


class Block(nn.Module):
    """A transformer encoder layer: self-attention and feed-forward, each with a residual."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.before = config.norm == "pre"
        self.attention = SelfAttention(config)
        self.widen = nn.Linear(config.width, config.ffn_width)
        self.narrow = nn.Linear(config.ffn_width, config.width)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.dropout = Dropout(config.block_dropout)
        self.activation = F.relu if config.activation == "relu" else F.gelu
        if config.zero_start:
            for last in (self.attention.out, self.narrow):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D), (B, L) bool -> (B, L, D)."""
        if self.before:
            x = x + self.dropout(self.attention(self.norm1(x), mask))
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(x + self.dropout(self.attention(x, mask)))
        return self.norm2(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.narrow(self.dropout(self.activation(self.widen(x)))))


class DeepFusionEncoder(nn.Module):
    """f: h + e, where e = Block(LayerNorm(h)), times a learned gate when there is one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.block = Block(config)
        self.gate = (
            None if config.gate is None else nn.Parameter(torch.full((config.width,), config.gate))
        )

    def forward(self, fused: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D), (B, L) bool -> (B, L, D)."""
        encoded = self.block(self.norm(fused), mask)
        return fused + (encoded if self.gate is None else self.gate * encoded)
