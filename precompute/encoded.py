"""What goes into an encoder and what comes out. B batch, L tokens, D width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Inputs = dict[str, Tensor]
"""What a model is called with."""


@dataclass(frozen=True)
class Encoded:
    """What an encoder gives for a batch, float32 on the CPU."""

    pooled: np.ndarray
    """(B, D of the pooled vector)."""
    tokens: list[np.ndarray] | None
    """B arrays (L_i, D) in the tokens layout."""


def joined(parts: Sequence[Encoded]) -> Encoded:
    """Batches that were encoded one after the other, as one."""
    pooled = np.concatenate([part.pooled for part in parts])
    if any(part.tokens is None for part in parts):
        return Encoded(pooled, None)
    return Encoded(pooled, [own for part in parts for own in part.tokens or ()])


class Launched:
    """A batch that the encoder works on, or has."""

    def __init__(self, pooled: Tensor, tokens: Tensor | None, lengths: list[int] | None) -> None:
        """Begin to copy results to the CPU.

        Args:
            pooled: (B, D of the pooled vector), where the encoder runs.
            tokens: (B, L, D) in the tokens layout, likewise.
            lengths: B numbers of tokens that count; None: all do.
        """
        self.pooled, self.lengths = _to_cpu(pooled), lengths
        self.tokens = None if tokens is None else _to_cpu(tokens)
        self.copied = _mark(pooled.device)

    def collect(self) -> Encoded:
        """Wait for the batch."""
        if self.copied is not None:
            self.copied.synchronize()
        if self.tokens is None:
            return Encoded(self.pooled.numpy(), None)
        tokens = list(self.tokens.numpy())
        if self.lengths is not None:
            tokens = [own[:length] for own, length in zip(tokens, self.lengths, strict=True)]
        return Encoded(self.pooled.numpy(), tokens)


def _to_cpu(tensor: Tensor) -> Tensor:
    """The tensor on the CPU; a GPU copies it behind its other work, without being waited for."""
    return tensor.to("cpu", non_blocking=tensor.device.type == "cuda")


def _mark(device: torch.device) -> torch.cuda.Event | None:
    """What a GPU reaches when it has done all that it was given until now.

    On the stream of this very GPU: that of another one, the process's current, knows nothing of it.
    """
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event
