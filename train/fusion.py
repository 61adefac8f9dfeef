"""Fusion of projected tokens with a context (Eq. 1 and 2).

B items, L tokens an item, D width. A fusion maps tokens x (B, L, D), their mask (B, L) and the
context c (D,) to fused tokens and their mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..cache.errors import InputError
from .model_config import ATTENTION_FUSIONS, ModelConfig

CONTEXT_FEATURES = 3
"""Numbers of a context before its MLP, as released."""
CONTEXT_DEVIATION = 0.35
"""Of a context at the start: the middle of the released code's range of 0.1 to 0.6."""
CONCAT_FEATURES = 10
"""Numbers of a context that `concat` sets beside each token, as released."""


class Context(nn.Module):
    """g(c): a learned vector per encoder through an MLP that all of them share."""

    def __init__(self, encoders: int, config: ModelConfig) -> None:
        super().__init__()
        self.held = 0
        self.vectors = nn.Parameter(torch.randn(encoders, CONTEXT_FEATURES) * CONTEXT_DEVIATION)
        if config.fusion == "concat":
            layers = [nn.Linear(CONTEXT_FEATURES, CONCAT_FEATURES), nn.LayerNorm(CONCAT_FEATURES)]
        else:
            layers = [
                nn.Linear(CONTEXT_FEATURES, 64),
                nn.ReLU(),
                nn.Linear(64, 128),
                nn.ReLU(),
                nn.Linear(128, config.width),
                nn.LayerNorm(config.width),
            ]
        self.mlp = nn.Sequential(*layers)

    def hold(self, count: int) -> None:
        """Let the first `count` vectors be as they are: only those behind them get gradients."""
        self.held = count
        self.vectors.requires_grad_(True)

    def forward(self, encoder: int) -> Tensor:
        """The context of an encoder, (D,); for `concat` (10,)."""
        vector = self.vectors[encoder]
        return self.mlp(vector.detach() if encoder < self.held else vector)


class Fusion(nn.Module):
    """Base of the fusions: `forward(x, mask, context) -> (fused, mask)`."""

    def forward(self, x: Tensor, mask: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse tokens (B, L, D) with a context (D,)."""
        raise NotImplementedError


class Add(Fusion):
    """x + c."""

    def forward(self, x: Tensor, mask: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse tokens (B, L, D) with a context (D,)."""
        return x + context, mask


class Multiply(Fusion):
    """x * c, feature by feature."""

    def forward(self, x: Tensor, mask: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse tokens (B, L, D) with a context (D,)."""
        return x * context, mask


class Concatenate(Fusion):
    """x + MLP([x ; c]), side by side along the features, as released."""

    def __init__(self, width: int) -> None:
        super().__init__()
        both = width + CONCAT_FEATURES
        self.mlp = nn.Sequential(nn.Linear(both, both), nn.ReLU(), nn.Linear(both, width))

    def forward(self, x: Tensor, mask: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse tokens (B, L, D) with a context (10,)."""
        beside = context.expand(*x.shape[:-1], -1)  # (B, L, 10)
        return x + self.mlp(torch.cat([x, beside.to(x.dtype)], dim=-1)), mask


class Attend(Fusion):
    """The context asks, the tokens answer (Eq. 2): softmax over tokens of a score, times values.

    With `residual` the answer is added to each token, as released. Without it, as in Eq. 2, the
    answer stands alone: one token. `null_key` adds a learned key and value to the tokens', without
    which the softmax over a single token is 1 and the context is dead.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.residual = config.attention_residual
        self.null_key = nn.Parameter(torch.zeros(config.width)) if config.null_key else None
        self.null_value = nn.Parameter(torch.zeros(config.width)) if config.null_key else None

    def score(self, context: Tensor, keys: Tensor) -> Tensor:
        """f_s(Q, K): (D,), (B, L, D) -> (B, L)."""
        raise NotImplementedError

    def keys(self, x: Tensor) -> Tensor:
        """Keys of the tokens, (B, L, D)."""
        raise NotImplementedError

    def values(self, x: Tensor) -> Tensor:
        """Values of the tokens, (B, L, D); the tokens themselves unless overridden."""
        return x

    def forward(self, x: Tensor, mask: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse tokens (B, L, D) with a context (D,)."""
        keys, values, seen = self.keys(x), self.values(x), mask
        if self.null_key is not None and self.null_value is not None:
            keys, values = _append(keys, self.null_key), _append(values, self.null_value)
            seen = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)  # (B, L + 1)
        scores = self.score(context, keys).float().masked_fill(~seen, -math.inf)
        weights = scores.softmax(1).to(values.dtype)  # (B, L)
        answer = weights[:, None] @ values  # (B, 1, D)
        if self.residual:
            return x + answer, mask
        return answer, mask.new_ones(len(mask), 1)


class ScaledDot(Attend):
    """Scaled dot-product attention with one head: q = W_q c, k = W_k x, v = W_v x."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)

    def keys(self, x: Tensor) -> Tensor:
        """W_k x."""
        return self.key(x)

    def values(self, x: Tensor) -> Tensor:
        """W_v x."""
        return self.value(x)

    def score(self, context: Tensor, keys: Tensor) -> Tensor:
        """Q . K / sqrt(D)."""
        return keys @ self.query(context).to(keys.dtype) / math.sqrt(keys.shape[-1])


class Additive(Attend):
    """Bahdanau attention: W_1 tanh(W_2 c + W_3 x).

    The released text-image code leaves out tanh; softmax then cancels the context at any L.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.weigh = nn.Linear(config.width, 1)

    def keys(self, x: Tensor) -> Tensor:
        """W_3 x."""
        return self.key(x)

    def score(self, context: Tensor, keys: Tensor) -> Tensor:
        """W_1 tanh(W_2 Q + K)."""
        return self.weigh(torch.tanh(self.query(context) + keys))[..., 0]


class General(Attend):
    """Luong attention: c . W x."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.key = nn.Linear(config.width, config.width)

    def keys(self, x: Tensor) -> Tensor:
        """W x."""
        return self.key(x)

    def score(self, context: Tensor, keys: Tensor) -> Tensor:
        """Q . K."""
        return keys @ context.to(keys.dtype)


_FUSIONS: dict[str, Callable[[ModelConfig], Fusion]] = {
    "add": lambda config: Add(),
    "mul": lambda config: Multiply(),
    "concat": lambda config: Concatenate(config.width),
    "dot": ScaledDot,
    "additive": Additive,
    "general": General,
}


def build_fusion(config: ModelConfig) -> Fusion | None:
    """The fusion that the configuration names; None for `none`.

    Raises:
        InputError: If an attention fusion would meet one token an item.
    """
    check_fusion(config)
    return None if config.fusion == "none" else _FUSIONS[config.fusion](config)


def check_fusion(config: ModelConfig) -> None:
    """Refuse attention over a single key: softmax is 1 there, and the context learns nothing.

    Raises:
        InputError: Naming the ways out.
    """
    if config.fusion in ATTENTION_FUSIONS and config.layout == "pooled" and not config.null_key:
        raise InputError(
            f"fusion {config.fusion!r} attends over tokens, and the pooled layout has one token an "
            "item: softmax over it is always 1 and the context gets no gradient. Cache tokens "
            "(cbmf precompute --layout tokens) and fit on them (--layout tokens), or choose "
            "--fusion add, mul or concat, or ask for a learned null key (--set null_key=true)"
        )


def _append(tokens: Tensor, extra: Tensor) -> Tensor:
    """(B, L, D), (D,) -> (B, L + 1, D)."""
    return torch.cat([tokens, extra.to(tokens.dtype).expand(len(tokens), 1, -1)], dim=1)
