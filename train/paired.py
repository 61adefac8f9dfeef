"""Two banks in memory and the pairs between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .bank import Bank, Statistics
from .batches import Batch, batch_count, epoch_batches
from .config import FitConfig
from .pairs import PairTable


@dataclass(frozen=True)
class PairedBanks:
    """Two banks and a table of pairs between them."""

    left: Bank
    right: Bank
    table: PairTable

    @property
    def size_bytes(self) -> int:
        """Of all vectors of both banks."""
        return self.left.values.nbytes + self.right.values.nbytes

    def batches(self, config: FitConfig, epoch: int) -> Iterator[tuple[PairedBanks, Batch]]:
        """The batches of an epoch, with the banks that they point into."""
        for batch in epoch_batches(self.table, config, epoch):
            yield self, batch

    def steps(self, config: FitConfig) -> int:
        """Batches of the whole fit."""
        return batch_count(self.table, config) * config.epochs

    def statistics(self) -> tuple[Statistics, Statistics]:
        """Of all vectors of both banks."""
        return self.left.statistics(), self.right.statistics()
