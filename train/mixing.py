"""FuseMix: mix the inputs of two pairs, with one weight for both modalities.

B left items, C right items of a batch, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .batches import Batch


def mix(
    left: Tensor,
    right: Tensor,
    batch: Batch,
    alpha: float,
    random: np.random.Generator,
    more: Sequence[tuple[int, Tensor]] = (),
    each: bool = True,
) -> list[Tensor]:
    """Each left item with another one of the batch, and its right items with those of that one.

    The weight of a pair's own part is at least 1/2, so that owner and group still hold.

    Args:
        left: (B, 1, d) float32.
        right: (C, 1, d) float32.
        batch: What they are.
        alpha: Both parameters of the Beta distribution of weights, above 0.
        random: Source of weights and partners.
        more: Of each further encoder the side of its items (0 is left) and their vectors.
        each: Draw a weight for each left item; False: one for all of them.

    Returns:
        Left, right and further vectors, mixed.
    """
    count = len(batch.left)
    other = random.permutation(count)  # (B,)
    drawn = random.beta(alpha, alpha, count if each else 1).astype(np.float32)
    weight = np.broadcast_to(drawn, count)
    weight = np.maximum(weight, 1 - weight)  # (B,)
    sizes = np.bincount(batch.owner, minlength=count)
    starts = np.cumsum(sizes) - sizes
    place = np.arange(len(batch.owner)) - starts[batch.owner]  # among the owner's right items
    theirs = other[batch.owner]
    partner = starts[theirs] + place % sizes[theirs]  # (C,)
    ways = (other, weight), (partner, weight[batch.owner])
    return [_mixed(values, *ways[side]) for side, values in ((0, left), (1, right), *more)]


def _mixed(values: Tensor, other: np.ndarray, weight: np.ndarray) -> Tensor:
    share = torch.from_numpy(weight).to(values.device)[:, None, None]
    return torch.lerp(values[torch.from_numpy(other).to(values.device)], values, share)
