"""Reading a stream: large arrays stay on disk, mapped; nothing is loaded that is not asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from .errors import StreamError
from .manifest import Manifest
from .precision import to_float32
from .proof import prove
from .shard import ShardContent, map_shard

Block = ShardContent
"""One shard as it is read: `rows`, `pooled`, `values`, `offsets` (see shard.ShardContent)."""


class Stream:
    """Embeddings of one column by one encoder. n stored items.

    Failed items are missing: `rows` tells which items of the column are there.
    """

    def __init__(self, path: Path) -> None:
        """Open a stream's folder; only the manifest is read.

        Raises:
            CacheError: If the manifest is missing, damaged, or of another format version.
        """
        self.path = path
        self.manifest = Manifest.load(path)
        spec = self.manifest.spec
        self.dataset, self.split, self.column = spec.dataset, spec.split, spec.column
        self.modality, self.encoder = spec.modality, spec.encoder
        self.layout, self.grid, self.dtype = spec.layout, spec.grid, spec.dtype
        self.width, self.pooled_width = spec.width, spec.pooled_width
        self.identity, self.fingerprint = spec.identity, spec.fingerprint
        self._proved = False

    @property
    def complete(self) -> bool:
        """Whether every planned shard is finished."""
        return self.manifest.complete

    @property
    def token_count(self) -> int:
        """Number of tokens of all items; 0 in the pooled layout."""
        return sum(entry.tokens for entry in self.manifest.shards.values())

    @property
    def size_bytes(self) -> int:
        """Size of all finished shards."""
        return sum(entry.size_bytes for entry in self.manifest.shards.values())

    def __len__(self) -> int:
        return sum(entry.items for entry in self.manifest.shards.values())

    @cached_property
    def rows(self) -> np.ndarray:
        """(n,) int64, ascending: row in the column of items.h5 of each stored item."""
        if len(self) == self.manifest.spec.count:
            return np.arange(self.manifest.spec.count, dtype=np.int64)
        return np.concatenate([np.empty(0, np.int64), *(block.rows for block in self.blocks())])

    def blocks(self) -> Iterator[Block]:
        """The shards in order, mapped from their files.

        What has not been read on this machine before, or has changed since, is digested first.

        Raises:
            StreamError: If the stream is incomplete.
            ShardError: If a shard is missing or not what the manifest says.
        """
        self.require_complete()
        if not self._proved:
            prove(self.path, self.manifest.shards.values())
            self._proved = True
        for number in range(self.manifest.planned):
            entry = self.manifest.shards[number]
            widths = (self.width, self.pooled_width)
            yield map_shard(self.path / entry.name, entry, self.layout, self.dtype, widths)

    def pooled(self) -> np.ndarray:
        """(n, pooled_width) float32: the pooled vectors, in the order of `rows`."""
        whole = np.empty((len(self), self.pooled_width), np.float32)
        at = 0
        for block in self.blocks():
            whole[at : at + len(block.rows)] = to_float32(block.pooled, self.dtype)
            at += len(block.rows)
        return whole

    def require_complete(self) -> None:
        """Refuse a stream that lacks shards.

        Raises:
            StreamError: Naming what is missing and the command that completes it.
        """
        if not self.complete:
            done, planned = len(self.manifest.shards), self.manifest.planned
            raise StreamError(
                f"{self.path}: incomplete, {done} of {planned} shards are there; run the same "
                f"cbmf precompute {self.dataset} again, it goes on where it stopped"
            )
