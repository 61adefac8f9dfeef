"""Data sets whose pairs are mined: from a sentence encoder's cached vectors to pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..cache.catalog import Cache, is_over
from ..cache.errors import InputError
from ..cache.items import Items, Pairs, write_items
from .datasets.caption_texts import KIND
from .datasets.registry import DATASETS
from .encoders import EncoderOptions, FrozenEncoder
from .mining import Mined, MiningOptions, Report

COLUMN = "text"


def is_mined(dataset: str) -> bool:
    """Whether the pairs of a data set of that name are mined."""
    return dataset in DATASETS and DATASETS[dataset].kind == KIND


def require_minable(dataset: str, mining: MiningOptions | None) -> None:
    """Refuse to mine a data set that has pairs, or none by its nature.

    Raises:
        InputError: Naming the options to leave out.
    """
    if mining is not None and not is_mined(dataset):
        raise InputError(
            f"{dataset}: no pairs are mined of it; leave --miner, --threshold, --candidates, "
            "--partners and --identity out"
        )


def load_miner(
    dataset: str,
    mining: MiningOptions | None,
    given: EncoderOptions,
    encoders: Sequence[FrozenEncoder],
) -> FrozenEncoder | None:
    """The encoder that pairs are mined with: one of the encoders if it is the same as one of them.

    Args:
        dataset: Name of the data set.
        mining: What the user asks for; None for the defaults.
        given: How encoders are run. Pooling and layer of the miner are its own.
        encoders: Loaded already.

    Returns:
        None if there is nothing to mine.

    Raises:
        InputError: If it cannot be loaded.
    """
    if not is_mined(dataset):
        return None
    name = (mining or MiningOptions()).miner
    for encoder in encoders:
        if (encoder.name, encoder.pool, encoder.options.layer) == (name, "mean", -1):
            return encoder
    options = EncoderOptions(
        pool="mean", max_length=given.max_length, device=given.device, precision=given.precision
    )
    miner = FrozenEncoder(name, "text", options)
    return next((e for e in encoders if e.identity == miner.identity), miner)


def with_pairs_of(known: Items | None, items: Items) -> Items:
    """The items with the pairs that were mined of them earlier, if they are as they were."""
    if known is None or replace(known, pairs=None).digest() != items.digest():
        return items
    return replace(items, pairs=known.pairs)


def is_cached(miner: FrozenEncoder, items: Items, cache: Cache) -> bool:
    """Whether the miner's vectors of these items are there, in any layout."""
    return any(
        stream.complete and stream.identity == miner.identity and is_over(stream, items)
        for stream in cache.streams(items.dataset, items.split, COLUMN)
    )


def mine_pairs(
    cache: Cache,
    items: Items,
    miner: FrozenEncoder,
    options: MiningOptions,
    again: bool,
    report: Report,
) -> Mined:
    """Mine the pairs of a split from the cached vectors of its texts, and write them to its items.

    Pairs that were mined in the same way are kept.

    Args:
        cache: Where the miner's stream lies, complete.
        items: Those of the cache.
        miner: Made the stream.
        options: Which texts make a pair.
        again: Mine even so.
        report: Called now and then with how many texts are compared, of how many.

    Raises:
        InputError: If no two texts make a pair.
    """
    column, pairs = items.column(COLUMN), items.pairs
    record = options.record(miner.short_name, miner.identity)
    if again or pairs is None or pairs.mined != record:
        stream = cache.find(items.dataset, items.split, COLUMN, identity=miner.identity)
        groups = np.arange(len(column.ids)) if column.groups is None else column.groups
        found = options.mine(stream.pooled(), groups[stream.rows], miner.device, report)
        if not len(found):
            raise InputError(
                f"{items.dataset}/{items.split}: none of its {len(column.ids):,} texts has a "
                f"partner at a cosine of {options.threshold} or more; lower --threshold"
            )
        pairs = Pairs(COLUMN, COLUMN, stream.rows[found], mined=record)
        folder = cache.folder(items.dataset, items.split)
        write_items(folder, replace(items, pairs=pairs))
    return Mined.of(items.split, options.threshold, pairs.rows, len(column.ids))
