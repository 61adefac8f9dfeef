"""Pairs that are read from disk while they are trained on, block by block, in bounded memory.

G left items of a table, P pairs. Blocks of neighbouring items come in random order; an epoch goes
through windows of them, as large as the memory holds twice, shuffled within. While one is trained
on, a thread reads the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from ..cache.errors import InputError
from .bank import Bank, Statistics
from .batches import Batch, batch_count, epoch_batches, generator
from .config import FitConfig
from .disk_bank import DiskBank
from .paired import Companion, PairedBanks
from .pairs import PairTable, runs

BLOCK_ITEMS = 128
"""Left items that stay together: few, so that a window is a mixture, yet read in one piece."""
ORDER = 3
"""Purpose of the random numbers that put blocks into windows."""


@dataclass(frozen=True)
class StreamedPairs:
    """Pairs of two streams that stay on disk, more encoders' streams beside."""

    left: DiskBank
    right: DiskBank
    table: PairTable
    """Positions in the whole streams."""
    memory_bytes: int
    """What two windows may take together."""
    more: tuple[Companion[DiskBank], ...] = ()

    def batches(self, config: FitConfig, epoch: int) -> Iterator[tuple[PairedBanks, Batch]]:
        """The batches of an epoch, with the banks that they point into.

        A function of the seed, the epoch and the memory. Every item comes once, in as many batches
        of as nearly equal size as in `epoch_batches`; those of a batch are from one window.
        """
        windows = self._windows(config, epoch)
        with ThreadPoolExecutor(1, "reader") as reader:
            coming = reader.submit(self.take, windows[0][0])
            for number, (_, count) in enumerate(windows):
                banks = coming.result()
                order = epoch_batches(banks.table, config, epoch, number, count)
                for place, batch in enumerate(order):
                    yield banks, batch
                    if place == 0 and number + 1 < len(windows):
                        # Only now has the one before been let go: there are never three.
                        coming = reader.submit(self.take, windows[number + 1][0])

    def steps(self, config: FitConfig) -> int:
        """Batches of the whole fit."""
        return batch_count(self.table, config) * config.epochs

    def statistics(self, encoder: int) -> Statistics:
        """Of all vectors of an encoder's stream; they are read once."""
        return self.banks[encoder].statistics()

    @property
    def banks(self) -> tuple[DiskBank, ...]:
        """By encoder: left, right, and those of more encoders."""
        return (self.left, self.right, *(companion.bank for companion in self.more))

    def take(self, table: PairTable) -> PairedBanks:
        """The items of a table of positions in the whole streams, in memory."""
        left, right = np.unique(table.left), np.unique(table.right)
        itself = table.itself
        if itself is not None:
            at = np.searchsorted(right, itself).clip(max=len(right) - 1)
            itself = np.where(right[at] == itself, at, -1)
        near = replace(
            table,
            left=np.searchsorted(left, table.left),
            right=np.searchsorted(right, table.right),
            itself=itself,
        )
        more = tuple(self._beside(companion, left, right) for companion in self.more)
        return PairedBanks(self.left.take(left), self.right.take(right), near, more)

    def _beside(
        self, companion: Companion[DiskBank], left: np.ndarray, right: np.ndarray
    ) -> Companion[Bank]:
        """The same items as one more encoder sees them, in memory."""
        places = companion.places[(left, right)[companion.side]]
        return Companion(companion.bank.take(places), companion.side, np.arange(len(places)))

    @property
    def window_count(self) -> int:
        """Windows of an epoch, about: whole batches go into them."""
        items, pairs = self._sizes(self.table)
        return -(-int(items[-1] + pairs[-1]) // max(1, self.memory_bytes // 2))

    def told(self) -> str:
        """How it is read, in words."""
        size = sum(bank.size_bytes for bank in self.banks) / 2**30
        return (
            f"{size:.2f} GiB stay on disk and are read in about {self.window_count} windows an "
            f"epoch, two in at most {self.memory_bytes / 2**20:,.0f} MiB of memory"
        )

    def require_room(self, config: FitConfig) -> None:
        """Refuse a memory that does not hold two windows of one batch.

        Raises:
            InputError: As said; names the least that is needed.
        """
        edges = _edges(self.table, config)
        least = 2 * int(self._batch_bytes(self.table, edges).max())
        if self.memory_bytes < least:
            raise InputError(
                f"{self.left.name}: two windows of one batch take {least / 2**20:,.1f} MiB, the "
                f"memory allowed leaves {max(self.memory_bytes, 0) / 2**20:,.1f} MiB for them "
                "beside what is validated on; allow more (--memory) or take smaller batches "
                "(--batch-size)"
            )

    def _windows(self, config: FitConfig, epoch: int) -> list[tuple[PairTable, int]]:
        """What each window holds, and in how many batches it is trained on.

        The epoch's batches are cut out of the blocks in their random order first, and windows put
        together from whole batches: so no batch is small because its window ends.
        """
        blocks = -(-len(self.table.left) // BLOCK_ITEMS)
        start = generator(config.seed, epoch, ORDER).permutation(blocks) * BLOCK_ITEMS
        count = np.minimum(BLOCK_ITEMS, len(self.table.left) - start)
        ordered = self.table.take(runs(start, count))
        edges = _edges(ordered, config)
        sizes = self._batch_bytes(ordered, edges)
        room, batches = max(1, self.memory_bytes // 2), len(sizes)
        number = min(batches, -(-int(sizes.sum()) // room))
        while True:
            first = np.linspace(0, batches, number, endpoint=False).astype(np.int64)
            if number == batches or np.add.reduceat(sizes, first).max() <= room:
                break
            number += 1
        last = np.append(first[1:], batches)
        return [
            (_cut(ordered, edges[a], edges[b]), int(b - a))
            for a, b in zip(first, last, strict=True)
        ]

    def _sizes(self, table: PairTable) -> tuple[np.ndarray, np.ndarray]:
        """Bytes before each left item (G + 1,) and before each pair's right item (P + 1,)."""
        left, right = self.left.sizes(table.left), self.right.sizes(table.right)
        for companion in self.more:
            if companion.side == 0:
                left = left + companion.bank.sizes(companion.places[table.left])
            else:
                right = right + companion.bank.sizes(companion.places[table.right])
        return np.append(0, np.cumsum(left)), np.append(0, np.cumsum(right))

    def _batch_bytes(self, table: PairTable, edges: np.ndarray) -> np.ndarray:
        """Of each batch; all right items of its left ones, what several share in each."""
        items, pairs = self._sizes(table)
        low, high = _owners(table, edges[:-1], edges[1:])
        return items[high] - items[low] + pairs[edges[1:]] - pairs[edges[:-1]]


def _edges(table: PairTable, config: FitConfig) -> np.ndarray:
    """Pairs at which the batches of a table begin, and its end: batches of nearly equal size."""
    units = len(table.left) if config.batch_unit == "images" else len(table.right)
    edges = np.linspace(0, units, batch_count(table, config) + 1).astype(np.int64)
    return table.starts[edges] if config.batch_unit == "images" else edges


def _owners(table: PairTable, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the first left item of some runs of pairs, and one past the last."""
    low = np.searchsorted(table.starts, first, "right") - 1
    return low, np.searchsorted(table.starts, last, "left")


def _cut(table: PairTable, first: int, last: int) -> PairTable:
    """The pairs from `first` to `last`; a left item at the edge may have the others elsewhere."""
    low, high = _owners(table, np.asarray(first), np.asarray(last))
    return replace(
        table,
        left=table.left[low:high],
        starts=table.starts[low : high + 1].clip(first, last) - first,
        right=table.right[first:last],
        group=table.group[low:high],
        right_group=None if table.right_group is None else table.right_group[first:last],
        itself=None,  # of no use to a batch
    )
