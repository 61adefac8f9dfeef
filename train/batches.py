"""The order of the data: which pairs stand in which batch of an epoch.

A pure function of (seed, epoch), so that a resumed fit sees what an unbroken one would have seen.
B left items, C right items of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .config import FitConfig
from .pairs import PairTable, runs


@dataclass(frozen=True)
class Batch:
    """One batch; every left item in it once."""

    left: np.ndarray
    """(B,) int64: positions in the left bank."""
    right: np.ndarray
    """(C,) int64: positions in the right bank, those of a left item side by side."""
    owner: np.ndarray
    """(C,) int64, ascending: place in `left` of each right item's partner."""
    group: np.ndarray
    """(B,) int64: see PairTable.group."""
    right_group: np.ndarray | None = None
    """(C,) int64: see PairTable.right_group."""

    def within(self, side: int) -> Batch:
        """Each item of one side (0 is left) with itself, as two encoders of that side see it."""
        items, group = self.left, self.group
        if side == 1:
            own = self.group[self.owner] if self.right_group is None else self.right_group
            items, group = self.right, own
        return Batch(left=items, right=items, owner=np.arange(len(items)), group=group)


def generator(seed: int, epoch: int, purpose: int, part: int | None = None) -> np.random.Generator:
    """The random numbers of one purpose in one epoch, or in a part of it."""
    return np.random.default_rng([seed, epoch, purpose, *([] if part is None else [part])])


def batch_count(table: PairTable, config: FitConfig) -> int:
    """Batches an epoch."""
    items = len(table.left) if config.batch_unit == "images" else len(table.right)
    return -(-items // config.batch_size)


def epoch_batches(
    table: PairTable,
    config: FitConfig,
    epoch: int,
    window: int | None = None,
    count: int | None = None,
) -> Iterator[Batch]:
    """The batches of an epoch: all items once, in batches of nearly equal size.

    With `images`, each left item comes once, with `captions_per_image` of its right ones drawn
    without replacement (all of them for 0, or when it has fewer). With `pairs`, each pair comes
    once, and an image that several pairs of a batch share stands in it once.

    Args:
        table: The items.
        config: Size and unit of a batch, seed.
        epoch: Counted from 0.
        window: Which part of the epoch the table is; None: all of it.
        count: Batches; None: `batch_count`.
    """
    random = generator(config.seed, epoch, purpose=1, part=window)
    count = batch_count(table, config) if count is None else count
    owner = table.owner
    if config.batch_unit == "pairs":
        for chosen in np.array_split(random.permutation(len(table.right)), count):
            chosen = chosen[np.argsort(owner[chosen], kind="stable")]
            yield _batch(table, owner[chosen], chosen)
        return
    pairs, counts = np.arange(len(table.right)), table.counts
    if config.captions_per_image:
        pairs = np.lexsort((random.random(len(pairs)), owner))  # shuffled within each item
        counts = np.minimum(counts, config.captions_per_image)
    for chosen in np.array_split(random.permutation(len(table.left)), count):
        at = runs(table.starts[chosen], counts[chosen])
        yield _batch(table, np.repeat(chosen, counts[chosen]), pairs[at])


def _batch(table: PairTable, item: np.ndarray, pair: np.ndarray) -> Batch:
    """A batch of pairs, by place in the table, and their left items; those of an item together."""
    new = np.flatnonzero(np.diff(item, prepend=-1))
    owner = np.cumsum(np.diff(item, prepend=-1) != 0) - 1
    items = item[new]
    return Batch(
        left=table.left[items],
        right=table.right[pair],
        owner=owner,
        group=table.group[items],
        right_group=None if table.right_group is None else table.right_group[pair],
    )
