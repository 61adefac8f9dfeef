"""Banks in memory and the pairs between two of them, more encoders' banks beside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from .bank import Bank, Statistics
from .batches import Batch, batch_count, epoch_batches
from .config import FitConfig
from .disk_bank import DiskBank
from .pairs import PairTable

SomeBank = TypeVar("SomeBank", Bank, DiskBank)


@dataclass(frozen=True)
class Companion(Generic[SomeBank]):
    """One more encoder's vectors of the items of a side."""

    bank: SomeBank
    side: int
    """0: it sees the left items; 1: the right ones."""
    places: np.ndarray
    """(n,) int64: position in `bank` of each item of the side's first bank; -1 where it is missing,
    as it is of no item in the table."""

    @classmethod
    def of(cls, bank: SomeBank, side: int, first: SomeBank) -> Companion[SomeBank]:
        """A bank beside the first one of a side."""
        return cls(bank, side, bank.positions(first.rows))


@dataclass(frozen=True)
class PairedBanks:
    """Two banks and a table of pairs between them, and the banks of more encoders."""

    left: Bank
    right: Bank
    table: PairTable
    more: tuple[Companion[Bank], ...] = ()

    @property
    def banks(self) -> tuple[Bank, ...]:
        """By encoder: left, right, and those of more encoders."""
        return (self.left, self.right, *(companion.bank for companion in self.more))

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of each bank's items: 0 is left, 1 is right."""
        return (0, 1, *(companion.side for companion in self.more))

    @property
    def size_bytes(self) -> int:
        """Of all vectors of all banks."""
        return sum(bank.values.nbytes for bank in self.banks)

    def items(self, left: np.ndarray, right: np.ndarray) -> list[tuple[Bank, np.ndarray]]:
        """Of each encoder its bank, and the positions in it of the left or the right items.

        Args:
            left: Positions in the left bank, int64, of items in the table.
            right: Positions in the right bank, likewise.
        """
        sides = left, right
        beside = ((c.bank, c.places[sides[c.side]]) for c in self.more)
        return [(self.left, left), (self.right, right), *beside]

    def batches(self, config: FitConfig, epoch: int) -> Iterator[tuple[PairedBanks, Batch]]:
        """The batches of an epoch, with the banks that they point into."""
        for batch in epoch_batches(self.table, config, epoch):
            yield self, batch

    def steps(self, config: FitConfig) -> int:
        """Batches of the whole fit."""
        return batch_count(self.table, config) * config.epochs

    def statistics(self, encoder: int) -> Statistics:
        """Of all vectors of an encoder's bank."""
        return self.banks[encoder].statistics()
