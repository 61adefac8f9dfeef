"""A stream held in memory: on the CPU or on a GPU, in the dtype it was stored in.

n items, T tokens in all, B items of a batch, L tokens of the longest item in it, d width.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cache.errors import InputError, StreamError
from ..cache.stream import Stream

CHUNK_NUMBERS = 2**17
"""That are widened at once to measure statistics: few, or malloc keeps what they took."""
MEMORY_SHARE = 0.8
"""Of the free memory that a bank may take."""
DTYPES: dict[str, tuple[torch.dtype, type[np.generic]]] = {
    "float16": (torch.float16, np.float16),
    "bfloat16": (torch.bfloat16, np.uint16),
    "float32": (torch.float32, np.float32),
}
"""Of a stored dtype: as a tensor has it, and as it is read."""


@dataclass(frozen=True)
class Statistics:
    """What a model needs to know of its inputs."""

    mean: Tensor
    """(d,) float32."""
    deviation: Tensor
    """(d,) float32; 1 for a feature that never changes."""
    longest: int
    """Tokens of the longest item."""

    @classmethod
    def of(cls, chunks: Iterable[Tensor], width: int, longest: int) -> Statistics:
        """Of the vectors of all chunks, each (some, d) float64; they are gone through once."""
        count, mean = 0, torch.zeros(width, dtype=torch.float64)
        square = torch.zeros(width, dtype=torch.float64)  # sum of squared deviations
        for chunk in chunks:
            # Two sets' sums of squares put together (Chan, Golub and LeVeque 1983).
            new, far = len(chunk), chunk.mean(0) - mean
            square += (chunk - chunk.mean(0)).square().sum(0)
            square += far.square() * (count * new / (count + new))
            mean += far * (new / (count + new))
            count += new
        deviation = (square / max(count, 1)).sqrt().float()
        return cls(mean.float(), deviation.where(deviation > 1e-6, 1.0), longest)


@dataclass(frozen=True)
class Bank:
    """The vectors of one stream, resident."""

    rows: np.ndarray
    """(n,) int64, ascending: row in the column of items.h5 of each item."""
    values: Tensor
    """(T, d) in the stored dtype; (n, d) in the pooled layout."""
    offsets: Tensor | None
    """(n + 1,) int64: item i has tokens offsets[i] to offsets[i + 1]; None in the pooled layout."""

    @classmethod
    def from_stream(cls, stream: Stream, layout: str, device: torch.device | str = "cpu") -> Bank:
        """Load a stream whole.

        Args:
            stream: A complete stream.
            layout: `pooled` or `tokens`; a tokens stream can be read as either.
            device: Where the bank shall lie. A GPU that is too small leaves it on the CPU.

        Raises:
            InputError: If it does not fit the memory that is free; names the ways out.
            StreamError: If tokens are asked of a pooled stream, or it is incomplete.
        """
        require_tokens(stream, layout)
        tokens = layout == "tokens"
        shape = (stream.token_count, stream.width) if tokens else (len(stream), stream.pooled_width)
        wanted, stored = DTYPES[stream.dtype]
        size_bytes = bank_bytes(stream, layout)
        _require_memory(stream, size_bytes, free_memory_bytes())
        whole = np.empty(shape, stored)
        counts, at = [np.zeros(1, np.int64)], 0
        for block in stream.blocks():
            part = block.values if tokens else block.pooled
            assert part is not None  # the layout was looked at above
            whole[at : at + len(part)] = part
            at += len(part)
            if block.offsets is not None:
                counts.append(np.diff(block.offsets))
        place = _place(torch.device(device), size_bytes)
        offsets = torch.from_numpy(np.cumsum(np.concatenate(counts))) if tokens else None
        return cls(
            rows=stream.rows,
            values=as_tensor(whole, wanted).to(place),
            offsets=None if offsets is None else offsets.to(place),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """d, features of a vector."""
        return self.values.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return self.values.device

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Position in this bank of each item row, int64; -1 where the item is missing."""
        return positions_of(self.rows, rows)

    def lengths(self, index: Tensor) -> Tensor:
        """Tokens of some items, (B,) int64."""
        if self.offsets is None:
            return torch.ones_like(index)
        return self.offsets[index + 1] - self.offsets[index]

    def gather(self, index: Tensor, keep: float = 1.0) -> tuple[Tensor, Tensor]:
        """The vectors of some items, padded with zeros to the longest of them.

        Args:
            index: Positions in the bank, (B,) int64, on the bank's device.
            keep: Share of each item's tokens to take at random; its first one is always taken.

        Returns:
            Values (B, L, d) float32 and mask (B, L) bool, true for tokens; L = 1 when pooled.
        """
        if self.offsets is None:
            values = self.values.index_select(0, index).float()[:, None]  # (B, 1, d)
            return values, torch.ones(values.shape[:2], dtype=torch.bool, device=self.device)
        length = self.lengths(index)  # (B,)
        longest = max(int(length.max()), 1) if len(index) else 1
        step = torch.arange(longest, device=self.device)
        mask = step < length[:, None]  # (B, L)
        places = step.expand(mask.shape)
        if keep < 1:
            lot = torch.rand(mask.shape, device=self.device).masked_fill_(~mask, 2.0)
            lot[:, 0] = -1.0
            length = 1 + ((length - 1) * keep).ceil().long()
            places = lot.argsort(1)[:, : int(length.max())]
            mask = step[: places.shape[1]] < length[:, None]
        at = (self.offsets[index][:, None] + places).where(mask, 0)
        values = self.values.index_select(0, at.flatten()).float().unflatten(0, at.shape)
        return values.masked_fill_(~mask[..., None], 0), mask

    def statistics(self) -> Statistics:
        """Mean and deviation of every feature over all vectors, and the longest item."""
        longest = 1 if self.offsets is None else int(self.offsets.diff().max())
        return Statistics.of(self._chunks(), self.width, longest)

    def _chunks(self) -> Iterator[Tensor]:
        rows = max(1, CHUNK_NUMBERS // self.width)
        for start in range(0, len(self.values), rows):
            yield self.values[start : start + rows].cpu().double()


def require_tokens(stream: Stream, layout: str) -> None:
    """Refuse to read tokens where there are none.

    Raises:
        StreamError: As said; names the ways out.
    """
    if layout == "tokens" and stream.layout != "tokens":
        raise StreamError(
            f"{stream.path} holds pooled vectors only; run cbmf precompute {stream.dataset} "
            "with --layout tokens, or fit with --layout pooled"
        )


def bank_bytes(stream: Stream, layout: str) -> int:
    """What a stream takes in memory."""
    size = np.dtype(DTYPES[stream.dtype][1]).itemsize
    if layout == "tokens":
        return stream.token_count * stream.width * size
    return len(stream) * stream.pooled_width * size


def as_tensor(stored: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Numbers as they are stored, as a tensor of their dtype that shares their memory."""
    whole = stored.view(np.int16) if stored.dtype == np.uint16 else stored
    return torch.from_numpy(whole).view(dtype)


def positions_of(known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Place among ascending `known` rows of each of `rows`, int64; -1 where it is missing."""
    if not len(known):
        return np.full(len(rows), -1, np.int64)
    at = np.searchsorted(known, rows).clip(max=len(known) - 1)
    return np.where(known[at] == rows, at, -1)


def free_memory_bytes() -> int | None:
    """Memory that may be taken without swapping, the container's limit included; None: unknown."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            stat = Path("/sys/fs/cgroup/memory.stat").read_text().split()
            cached = int(stat[stat.index("inactive_file") + 1])
            found.append(int(limit) - used + cached)
    except (OSError, ValueError):
        pass
    if not found and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min(found) if found else None


def _require_memory(stream: Stream, size_bytes: int, free_bytes: int | None) -> None:
    if free_bytes is not None and size_bytes > MEMORY_SHARE * free_bytes:
        raise InputError(
            f"{stream.path} takes {size_bytes / 2**30:.2f} GiB in memory, "
            f"{free_bytes / 2**30:.2f} GiB are free; fit on the pooled layout (--layout pooled), "
            "cache fewer tokens (cbmf precompute --grid 7) or fewer items (--limit), "
            "or use a machine with more memory"
        )


def _place(device: torch.device, size_bytes: int) -> torch.device:
    if device.type == "cuda" and size_bytes > MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device
