"""Which left items belong to which right ones, as positions in two banks.

G left items (images), P pairs (captions), in compressed rows: left item g has the right items
right[starts[g]:starts[g + 1]].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..cache.errors import InputError
from ..cache.items import Items, Pairs
from .bank import Bank

HOLD_OUT_SHARE = 0.05
"""Of the left items, held out for validation where there is no split for it."""
VALIDATION_ITEMS = 5000
"""Left items that are validated on, at most."""


@dataclass(frozen=True)
class PairTable:
    """Pairs of one split, or of a part of it."""

    left: np.ndarray
    """(G,) int64: position of each left item in the left bank."""
    starts: np.ndarray
    """(G + 1,) int64."""
    right: np.ndarray
    """(P,) int64: position in the right bank of each pair's right item."""
    group: np.ndarray
    """(G,) int64: equal for left items that pairs connect, directly or over others; members of a
    group are never negatives of each other. In an image-text set each image is its own group."""
    dropped: int = 0
    """Pairs left out because the cache lacks one of their items (it could not be encoded)."""

    @property
    def counts(self) -> np.ndarray:
        """(G,) int64: right items of each left one."""
        return np.diff(self.starts)

    def take(self, which: np.ndarray) -> PairTable:
        """The table of some left items, given by their places in this one, in that order."""
        counts = self.counts[which]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        right = self.right[runs(self.starts[which], counts)]
        return replace(
            self, left=self.left[which], starts=starts, right=right, group=self.group[which]
        )


def runs(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers of several runs in a row: starts [5, 9] with counts [2, 1] give [5, 6, 9]."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - counts), counts)


def join(items: Items, left: Bank, right: Bank) -> PairTable:
    """The positive pairs of a split, as positions in the banks of its two columns.

    Args:
        items: With pairs; of labelled pairs only those of label 1 are taken.
        left: Bank over the pairs' left column.
        right: Bank over the pairs' right column.

    Raises:
        InputError: If no pair is left.
    """
    pairs = items.pairs
    assert pairs is not None  # choose_source takes data sets with pairs only
    rows = pairs.rows if pairs.labels is None else pairs.rows[pairs.labels == 1]  # (P, 2)
    group = _groups(rows, pairs)
    at = np.stack([left.positions(rows[:, 0]), right.positions(rows[:, 1])], axis=1)
    there = (at >= 0).all(1)
    if not there.any():
        raise InputError(
            f"{items.dataset}/{items.split}: none of its {len(rows)} pairs has both items encoded"
        )
    at, group = at[there], group[there]
    order = np.lexsort((at[:, 1], at[:, 0]))
    at, group = at[order], group[order]
    lefts, first = np.unique(at[:, 0], return_index=True)
    return PairTable(
        left=lefts,
        starts=np.append(first, len(at)).astype(np.int64),
        right=at[:, 1],
        group=group[first],
        dropped=int((~there).sum()),
    )


def _groups(rows: np.ndarray, pairs: Pairs) -> np.ndarray:
    """(P,) int64: the connected component of each pair, in the graph of all items."""
    one = rows[:, 0]
    shift = 0 if pairs.left == pairs.right else int(one.max(initial=-1)) + 1
    two = rows[:, 1] + shift
    label = np.arange(int(max(one.max(initial=-1), two.max(initial=-1))) + 1)
    while True:
        low, high = np.sort(np.stack([label[one], label[two]]), axis=0)
        if np.array_equal(low, high):
            return low
        np.minimum.at(label, high, low)
        while not np.array_equal(label, label[label]):
            label = label[label]


def hold_out(table: PairTable, seed: int) -> tuple[PairTable, PairTable]:
    """Part a table into one to train on and one to validate on, groups kept whole.

    Args:
        table: G left items.
        seed: Of the choice.

    Returns:
        The larger part, and about 5% of the left items (at most 5,000, at least 2).

    Raises:
        InputError: If there are not enough groups for both.
    """
    wanted = min(VALIDATION_ITEMS, max(2, round(HOLD_OUT_SHARE * len(table.left))))
    kinds, kind, sizes = np.unique(table.group, return_inverse=True, return_counts=True)
    order = np.random.default_rng([seed, 0x0E1D]).permutation(len(kinds))
    taken = int(np.searchsorted(np.cumsum(sizes[order]), wanted)) + 1
    taken = max(taken, 2)
    if len(kinds) < taken + 2:
        raise InputError(
            f"{len(kinds)} unconnected groups of pairs are too few to train on and to validate on"
        )
    held = np.isin(kind, order[:taken])
    return table.take(np.flatnonzero(~held)), table.take(np.flatnonzero(held))
