"""A stream that stays on disk: any of its items are read into a small bank.

n items of a stream, T tokens in all, d width.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..cache.errors import ShardError
from ..cache.stream import Stream
from .bank import CHUNK_NUMBERS, DTYPES, Bank, Statistics, as_tensor, positions_of, require_tokens
from .pairs import runs

GAP_BYTES = 1 << 16
"""Items that lie no further apart than this are read in one piece."""
PIECE_BYTES = 1 << 22
"""Read in one piece, about: what lies between the items takes memory beside them."""


@dataclass(frozen=True)
class _Part:
    """Where the vectors of a shard lie in its file."""

    path: Path
    start: int
    """Of the file, in bytes."""
    first: int
    """Vectors of the shards before it."""


class DiskBank:
    """The vectors of one stream on disk, and where each item's are."""

    def __init__(self, stream: Stream, layout: str) -> None:
        """Note where everything is; no vector is read.

        Args:
            stream: A complete stream.
            layout: `pooled` or `tokens`; a tokens stream can be read as either.

        Raises:
            StreamError: If tokens are asked of a pooled stream, or it is incomplete.
            ShardError: If a shard is missing or not what the manifest says.
        """
        require_tokens(stream, layout)
        tokens = layout == "tokens"
        self.name = str(stream.path)
        self.width = stream.width if tokens else stream.pooled_width
        self.dtype, self.stored = DTYPES[stream.dtype]
        self.rows = stream.rows
        counts, parts, at = [np.zeros(1, np.int64)], [], 0
        for block in stream.blocks():
            vectors = block.values if tokens else block.pooled
            assert vectors is not None  # the layout was looked at above
            if len(vectors):
                assert isinstance(vectors, np.memmap)  # as blocks are mapped
                parts.append(_Part(Path(str(vectors.filename)), vectors.offset, at))
            at += len(vectors)
            if block.offsets is not None and tokens:
                counts.append(np.diff(block.offsets))
        self._parts, self._count = parts, at
        self._firsts = np.array([part.first for part in parts], np.int64)
        self.offsets = np.cumsum(np.concatenate(counts)) if tokens else None  # (n + 1,)

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Position of each item row, int64; -1 where the item is missing."""
        return positions_of(self.rows, rows)

    def sizes(self, positions: np.ndarray) -> np.ndarray:
        """Bytes of the vectors of some items, int64."""
        first, last = self._span(positions)
        return (last - first) * self.vector_bytes

    @property
    def vector_bytes(self) -> int:
        """Of one vector as it is stored."""
        return self.width * np.dtype(self.stored).itemsize

    @property
    def size_bytes(self) -> int:
        """Of all vectors."""
        return self._count * self.vector_bytes

    def take(self, positions: np.ndarray) -> Bank:
        """The items of some positions, ascending and each once, as a bank on the CPU.

        Raises:
            ShardError: If a shard is shorter than it was.
        """
        first, last = self._span(positions)
        lengths = last - first
        whole = self._room(int(lengths.sum()))
        gap = max(1, GAP_BYTES // self.vector_bytes)
        piece = first // max(1, PIECE_BYTES // self.vector_bytes)
        breaks = np.flatnonzero((first[1:] - last[:-1] > gap) | (np.diff(piece) != 0)) + 1
        ends = np.cumsum(lengths)
        for run in np.split(np.arange(len(positions)), breaks):
            if not len(run):
                continue
            low, high = int(first[run[0]]), int(last[run[-1]])
            place = whole[ends[run[0]] - lengths[run[0]] : ends[run[-1]]]
            if len(place) == high - low:
                self._read(low, place)
                continue
            read = self._room(high - low)
            self._read(low, read)
            place[:] = read[runs(first[run] - low, lengths[run])]
        offsets = None if self.offsets is None else np.concatenate([[0], ends])
        return Bank(
            rows=self.rows[positions],
            values=as_tensor(whole, self.dtype),
            offsets=None if offsets is None else torch.from_numpy(offsets),
        )

    def statistics(self) -> Statistics:
        """Mean and deviation of every feature over all vectors, and the longest item."""
        longest = 1 if self.offsets is None else int(np.diff(self.offsets).max(initial=1))
        return Statistics.of(self._chunks(), self.width, longest)

    def _room(self, count: int) -> np.ndarray:
        """For some vectors: given back to the system when it is let go, which malloc puts off."""
        if not count:
            return np.empty((0, self.width), self.stored)
        pages = mmap.mmap(-1, count * self.vector_bytes)
        return np.frombuffer(pages, self.stored).reshape(count, self.width)

    def _span(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First vector of some items, and one past their last."""
        if self.offsets is None:
            return positions, positions + 1
        return self.offsets[positions], self.offsets[positions + 1]

    def _chunks(self) -> Iterator[torch.Tensor]:
        """All vectors in order, (some, d) float64."""
        step = max(1, CHUNK_NUMBERS // self.width)
        for start in range(0, self._count, step):
            part = np.empty((min(step, self._count - start), self.width), self.stored)
            self._read(start, part)
            yield as_tensor(part, self.dtype).double()

    def _read(self, first: int, into: np.ndarray) -> None:
        """The vectors from `first` on, as many as the array takes: read, not mapped.

        What is mapped counts as the process's memory for as long as the system likes.
        """
        done = 0
        while done < len(into):
            number = int(np.searchsorted(self._firsts, first + done, side="right")) - 1
            part = self._parts[number]
            end = self._firsts[number + 1] if number + 1 < len(self._firsts) else self._count
            count = min(len(into) - done, int(end) - first - done)
            target = into[done : done + count].reshape(-1).view(np.uint8)
            start = part.start + (first + done - part.first) * self.vector_bytes
            with part.path.open("rb", buffering=0) as file:
                if _fill(file.fileno(), target, start) < len(target):
                    raise ShardError(f"{part.path}: became shorter while it was read")
            done += count


def _fill(handle: int, target: np.ndarray, start: int) -> int:
    """Bytes read from `start` on; fewer than the target takes at the end of the file."""
    view, done = memoryview(target.data), 0
    while done < len(view):
        count = os.preadv(handle, [view[done:]], start + done)
        if count == 0:
            break
        done += count
    return done
