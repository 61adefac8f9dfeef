"""What a fit trains and validates on: the streams of a source as pairs, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.stream import Stream
from .bank import MEMORY_SHARE, Bank, bank_bytes, free_memory_bytes
from .config import FitConfig
from .disk_bank import DiskBank
from .paired import Companion, PairedBanks
from .pairs import VALIDATION_ITEMS, PairTable, hold_out, join
from .source import TRAIN, VAL, Source
from .streaming import StreamedPairs

__all__ = ["FitData", "PairedBanks", "load_data"]


@dataclass(frozen=True)
class FitData:
    """Everything that a fit reads."""

    train: PairedBanks | StreamedPairs
    val: PairedBanks
    held_out: bool
    """Whether `val` is a part of the training split."""
    memory_bytes: int | None = None
    """What the embeddings may take; None where all of them are in memory."""


def load_data(
    cache: Cache,
    source: Source,
    config: FitConfig,
    device: torch.device,
    memory_bytes: int | None = None,
) -> FitData:
    """Load the streams of a source, or leave on disk what is too large, and join the pairs.

    Args:
        cache: Where the items lie.
        source: The streams.
        config: Says the layout, the seed of a hold-out, and the size of batches.
        device: Where banks shall lie.
        memory_bytes: What the embeddings may take; None: most of the memory that is free. What is
            larger stays on disk and is read while it is trained on.

    Raises:
        InputError: If the memory holds not even two windows of a batch, or the pairs are too few.
    """
    size_bytes = sum(
        bank_bytes(s, config.model.layout) for s in (*source.train, *(source.val or ()))
    )
    if memory_bytes is None:
        free = free_memory_bytes()
        memory_bytes = size_bytes if free is None else int(MEMORY_SHARE * free)
    if size_bytes > memory_bytes:
        return _streamed(cache, source, config, memory_bytes)
    train = _load(cache, source, TRAIN, source.train, config, device)
    if source.val is None:
        rest, held = hold_out(train.table, config.seed)
        return FitData(replace(train, table=rest), replace(train, table=held), held_out=True)
    val = _load(cache, source, VAL, source.val, config, device)
    _require_groups(source.dataset, train.table, val.table)
    return FitData(train, replace(val, table=_validated(val.table)), held_out=False)


def _streamed(cache: Cache, source: Source, config: FitConfig, memory_bytes: int) -> FitData:
    """The training pairs on disk; of those to validate on only what is needed, in memory."""
    train = _open(cache, source, TRAIN, source.train, config, memory_bytes)
    if source.val is None:
        rest, held = hold_out(train.table, config.seed)
        train, whole = (replace(train, table=table) for table in (rest, held))
    else:
        whole = _open(cache, source, VAL, source.val, config, memory_bytes)
        _require_groups(source.dataset, train.table, whole.table)
        whole = replace(whole, table=_validated(whole.table))
    val = whole.take(whole.table)
    train = replace(train, memory_bytes=memory_bytes - val.size_bytes)
    train.require_room(config)
    return FitData(train, val, source.val is None, memory_bytes)


def _load(
    cache: Cache,
    source: Source,
    split: str,
    streams: Sequence[Stream],
    config: FitConfig,
    device: torch.device,
) -> PairedBanks:
    banks = [Bank.from_stream(stream, config.model.layout, device) for stream in streams]
    left, right, *rest = banks
    more = list(zip(source.sides[2:], rest, strict=True))
    table = join(cache.items(source.dataset, split), left, right, more)
    beside = tuple(Companion.of(bank, side, banks[side]) for side, bank in more)
    return PairedBanks(left, right, table, beside)


def _open(
    cache: Cache,
    source: Source,
    split: str,
    streams: Sequence[Stream],
    config: FitConfig,
    memory_bytes: int,
) -> StreamedPairs:
    banks = [DiskBank(stream, config.model.layout) for stream in streams]
    left, right, *rest = banks
    more = list(zip(source.sides[2:], rest, strict=True))
    table = join(cache.items(source.dataset, split), left, right, more)
    beside = tuple(Companion.of(bank, side, banks[side]) for side, bank in more)
    return StreamedPairs(left, right, table, memory_bytes, beside)


def _validated(table: PairTable) -> PairTable:
    """The first left items of a split and their pairs."""
    return table.take(np.arange(min(VALIDATION_ITEMS, len(table.left)))).closed()


def _require_groups(dataset: str, train: PairTable, val: PairTable) -> None:
    for split, table in ((TRAIN, train), (VAL, val)):
        if len(np.unique(table.group)) < 2:
            raise InputError(
                f"{dataset}/{split}: all pairs are connected, nothing can be told apart; "
                "two unconnected pairs are the least"
            )
