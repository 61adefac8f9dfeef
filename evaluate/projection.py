"""From a stream on disk to unit rows of the shared space, with bounded memory.

n items of a stream, B items of a batch, L tokens of the longest in it, d and D widths in and out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..cache.errors import InputError
from ..cache.stream import Block, Stream, to_float32
from ..train.aligner import Aligner

BATCH_TOKENS = 8192
"""Tokens of a batch, padding included; larger ones took twice the memory and were no faster."""


@torch.inference_mode()
def project(
    model: Aligner, encoder: int, stream: Stream, batch_tokens: int = BATCH_TOKENS
) -> Tensor:
    """Unit rows of all items of a stream, in the order of `Stream.rows`; (n, D) float32.

    Evaluation mode, float32, on the model's device. A shard is mapped at a time, a batch read.

    Args:
        model: It says whether tokens or pooled vectors are read.
        encoder: Which of `model.encoders` the stream is of.
        stream: Complete, of the model's layout and width.
        batch_tokens: Tokens at once, padding included, at least 1; an item that is longer goes
            alone.

    Raises:
        InputError: If the model gives values that are not finite.
    """
    device = model.temperature.log_scale.device
    was_training = model.training
    model.eval()
    rows = torch.empty(len(stream), model.width, device=device)
    at = 0
    for block in stream.blocks():
        for which, values, mask in _batches(block, stream.dtype, model.layout, batch_tokens):
            place = torch.from_numpy(at + which).to(device)
            x, seen = (torch.from_numpy(array).to(device) for array in (values, mask))
            rows[place] = model.encode(encoder, x, seen)
        at += len(block.rows)
    model.train(was_training)
    if not rows.isfinite().all():
        raise InputError(
            f"the {model.method} model gives values that are not finite on {stream.path}; "
            "its weights have diverged, fit again with a smaller --lr"
        )
    return rows


def _batches(
    block: Block, dtype: str, layout: str, batch_tokens: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Places in the block (B,), values (B, L, d) float32, and mask (B, L)."""
    if layout == "pooled":
        for start in range(0, len(block.rows), batch_tokens):
            values = to_float32(block.pooled[start : start + batch_tokens], dtype)[:, None]
            yield np.arange(start, start + len(values)), values, np.ones(values.shape[:2], bool)
        return
    assert block.values is not None and block.offsets is not None  # a stream of tokens
    for which in _by_length(np.diff(block.offsets), batch_tokens):
        start = block.offsets[which]
        length = block.offsets[which + 1] - start  # (B,)
        step = np.arange(max(int(length.max()), 1))
        mask = step < length[:, None]  # (B, L)
        values = np.zeros((*mask.shape, block.values.shape[1]), np.float32)
        values[mask] = to_float32(block.values[(start[:, None] + step)[mask]], dtype)
        yield which, values, mask


def _by_length(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Places of the items, shortest first, parted so that no padded batch is too large."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        # Lengths ascend, so the last item of a batch is its longest.
        sizes = np.maximum(lengths[order[start:]], 1) * np.arange(1, len(order) - start + 1)
        stop = start + max(1, int(np.searchsorted(sizes, batch_tokens, side="right")))
        yield order[start:stop]
        start = stop
