"""From a hidden state to tokens and one pooled vector. B batch, L tokens, D width."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache.errors import InputError

POOLS = ("mean", "cls", "cls+mean", "pooler")
"""How a pooled vector is made: masked mean, first token, both in a row (2 D), the model's own."""


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are there, (B, D).

    Args:
        tokens: (B, L, D).
        mask: (B, L), true where there is a token.
    """
    weight = mask.unsqueeze(-1).to(tokens.dtype)  # (B, L, 1)
    return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)


def split_image_tokens(hidden: Tensor, patches: int | None) -> tuple[Tensor | None, Tensor]:
    """The class token, if the model has one, and the patch tokens in row-major order.

    Tokens between the two (registers, a distillation token) are dropped.

    Args:
        hidden: (B, L, D), or (B, D, H, W) of a convolutional encoder.
        patches: How many patches the model cuts an image into; None if unknown.

    Returns:
        (B, D) or None, and (B, H * W, D).
    """
    if hidden.ndim == 4:
        return None, hidden.flatten(2).transpose(1, 2)
    length = hidden.shape[1]
    if patches is not None and 0 < patches < length:
        return hidden[:, 0], hidden[:, length - patches :]
    if patches is None and math.isqrt(length - 1) ** 2 == length - 1:
        return hidden[:, 0], hidden[:, 1:]
    return None, hidden


def pool_grid(patches: Tensor, grid: int) -> Tensor:
    """Patch tokens averaged to a coarser grid, (B, grid * grid, D).

    Args:
        patches: (B, H * W, D) of a square image.
        grid: Cells along each side, at most H.

    Raises:
        InputError: If the patches do not form a square, or it is already coarser.
    """
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1] or grid > side:
        raise InputError(f"--grid {grid} does not fit the encoder's {patches.shape[1]} patches")
    square = patches.transpose(1, 2).unflatten(2, (side, side))  # (B, D, H, W)
    return F.adaptive_avg_pool2d(square.float(), grid).flatten(2).transpose(1, 2)


def pool_image(pool: str, cls: Tensor | None, patches: Tensor, pooler: Tensor | None) -> Tensor:
    """The pooled vector of each image, (B, D), or (B, 2 D) for `cls+mean`.

    Raises:
        InputError: If the encoder has no class token or no trained pooler, and one is asked for.
    """
    if pool == "mean":
        return patches.mean(1)
    if pool == "pooler":
        return _required(pooler, pool)
    first = _required(cls, pool)
    return first if pool == "cls" else torch.cat([first, patches.mean(1)], dim=1)


def pool_text(pool: str, tokens: Tensor, mask: Tensor, pooler: Tensor | None) -> Tensor:
    """The pooled vector of each text, (B, D), or (B, 2 D) for `cls+mean`.

    Raises:
        InputError: If the encoder has no trained pooler and it is asked for.
    """
    if pool == "mean":
        return masked_mean(tokens, mask)
    if pool == "pooler":
        return _required(pooler, pool)
    first = tokens[:, 0]
    return first if pool == "cls" else torch.cat([first, masked_mean(tokens, mask)], dim=1)


def _required(vector: Tensor | None, pool: str) -> Tensor:
    if vector is None:
        lack = "trained pooler" if pool == "pooler" else "class token"
        raise InputError(f"--pool {pool}: the encoder has no {lack}; choose --pool mean")
    return vector
