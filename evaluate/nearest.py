"""The nearest candidates of queries, by exact search. Q queries, C candidates, D width."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .ranks import BLOCK


def nearest(
    queries: Tensor, candidates: Tensor, k: int, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Inner products and places of each query's k nearest candidates, best first.

    Scores are held for `block` x `block` at a time; no Q x C matrix is made.

    Args:
        queries: Unit rows, (Q, D) float32.
        candidates: Unit rows, (C, D) float32, on the same device.
        k: At least 1; all candidates if there are fewer.
        block: Queries and candidates at once.

    Returns:
        (Q, k) float32 and (Q, k) int64.

    Raises:
        ValueError: If the widths differ.
    """
    if queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"queries {tuple(queries.shape)} and candidates {tuple(candidates.shape)} must be "
            "of the same width"
        )
    parts = [_of_some(some, candidates, k, block) for some in queries.split(block)]
    scores, places = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
    return scores, places


def _of_some(queries: Tensor, candidates: Tensor, k: int, block: int) -> tuple[Tensor, Tensor]:
    """The k best of a block of queries, the candidates taken block by block."""
    best = queries.new_empty(len(queries), 0)
    places = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(candidates), block):
        scores = queries @ candidates[start : start + block].T
        top, at = scores.topk(min(k, scores.shape[1]), dim=1)
        best, places = torch.cat([best, top], 1), torch.cat([places, at + start], 1)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :k]
        best, places = best.gather(1, order), places.gather(1, order)
    return best, places
