"""What a fit trains and validates on: two banks and the pairs between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.stream import Stream
from .bank import Bank
from .pairs import VALIDATION_ITEMS, PairTable, hold_out, join
from .source import TRAIN, VAL, Source


@dataclass(frozen=True)
class PairedBanks:
    """Two banks and a table of pairs between them."""

    left: Bank
    right: Bank
    table: PairTable


@dataclass(frozen=True)
class FitData:
    """Everything that a fit reads."""

    train: PairedBanks
    val: PairedBanks
    held_out: bool
    """Whether `val` is a part of the training split."""


def load_data(
    cache: Cache, source: Source, layout: str, seed: int, device: torch.device
) -> FitData:
    """Load the streams of a source and join their pairs.

    Args:
        cache: Where the items lie.
        source: The streams.
        layout: `pooled` or `tokens`.
        seed: Of the hold-out, where one is needed.
        device: Where the banks shall lie.

    Raises:
        InputError: If the banks do not fit the memory, or the pairs are too few.
    """
    train = _load(cache, source.dataset, TRAIN, source.train, layout, device)
    if source.val is None:
        rest, held = hold_out(train.table, seed)
        val = PairedBanks(train.left, train.right, held)
        return FitData(PairedBanks(train.left, train.right, rest), val, held_out=True)
    val = _load(cache, source.dataset, VAL, source.val, layout, device)
    first = np.arange(min(VALIDATION_ITEMS, len(val.table.left)))
    for split, table in ((TRAIN, train.table), (VAL, val.table)):
        if len(np.unique(table.group)) < 2:
            raise InputError(
                f"{source.dataset}/{split}: all pairs are connected, nothing can be told apart; "
                "two unconnected pairs are the least"
            )
    seen = val.table.take(first).closed()
    return FitData(train, PairedBanks(val.left, val.right, seen), held_out=False)


def _load(
    cache: Cache,
    dataset: str,
    split: str,
    streams: tuple[Stream, Stream],
    layout: str,
    device: torch.device,
) -> PairedBanks:
    left, right = (Bank.from_stream(stream, layout, device) for stream in streams)
    return PairedBanks(left, right, join(cache.items(dataset, split), left, right))
