"""Which left items belong to which right ones, as positions in two banks.

G left items (images), P pairs (captions), in compressed rows: left item g has the right items
right[starts[g]:starts[g + 1]].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..cache.errors import InputError
from ..cache.items import Items, Pairs

HOLD_OUT_SHARE = 0.05
"""Of the left items, held out for validation where there is no split for it."""
VALIDATION_ITEMS = 5000
"""Left items that are validated on, at most."""


class Located(Protocol):
    """A bank, in memory or on disk, as far as pairs have to know it."""

    @property
    def rows(self) -> np.ndarray:
        """(n,) int64, ascending: row in the column of items.h5 of each item."""
        ...

    def positions(self, rows: np.ndarray) -> np.ndarray:
        """Position of each item row, int64; -1 where the item is missing."""
        ...


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
    group are never negatives of each other. In an image-text set each image is its own group. Where
    a column tells what its items belong to (captions of an image), that is their group."""
    dropped: int = 0
    """Pairs left out because the cache lacks one of their items (it could not be encoded)."""
    right_group: np.ndarray | None = None
    """(P,) int64: group of each pair's right item, where pairs may lead from one group to another;
    None where it is that of the left item."""
    itself: np.ndarray | None = None
    """(G,) int64, of pairs of one column: position in the right bank of each left item itself, as
    the other encoder sees it; -1 where it is missing, or a partner. None for two columns."""

    @property
    def counts(self) -> np.ndarray:
        """(G,) int64: right items of each left one."""
        return np.diff(self.starts)

    def take(self, which: np.ndarray) -> PairTable:
        """The table of some left items, given by their places in this one, in that order."""
        counts = self.counts[which]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        pairs = runs(self.starts[which], counts)
        return replace(
            self,
            left=self.left[which],
            starts=starts,
            right=self.right[pairs],
            group=self.group[which],
            right_group=None if self.right_group is None else self.right_group[pairs],
            itself=None if self.itself is None else self.itself[which],
        )

    def closed(self) -> PairTable:
        """The table without pairs that lead to other groups than its left items are of."""
        if self.right_group is None:
            return self
        inside = np.isin(self.right_group, self.group)  # (P,)
        counts = np.bincount(self.owner[inside], minlength=len(self.left))
        kept = np.flatnonzero(counts)
        return replace(
            self,
            left=self.left[kept],
            starts=np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64),
            right=self.right[inside],
            group=self.group[kept],
            right_group=self.right_group[inside],
            itself=None if self.itself is None else self.itself[kept],
        )

    @property
    def owner(self) -> np.ndarray:
        """(P,) int64: place in `left` of each pair's left item."""
        return np.repeat(np.arange(len(self.left)), self.counts)


def runs(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers of several runs in a row: starts [5, 9] with counts [2, 1] give [5, 6, 9]."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - counts), counts)


def join(
    items: Items, left: Located, right: Located, more: Sequence[tuple[int, Located]] = ()
) -> PairTable:
    """The positive pairs of a split, as positions in the banks of its two columns.

    Pairs that hold both ways round (`Pairs.symmetric`) are there both ways, once each, so that each
    encoder sees either text.

    Args:
        items: With pairs; of labelled pairs only those of label 1 are taken.
        left: Bank over the pairs' left column.
        right: Bank over the pairs' right column.
        more: Of each further encoder its side (0 is left) and its bank; pairs with an item that one
            of them lacks are left out.

    Raises:
        InputError: If no pair is left.
    """
    pairs = items.pairs
    assert pairs is not None  # choose_source takes data sets with pairs only
    rows = pairs.rows if pairs.labels is None else pairs.rows[pairs.labels == 1]  # (P, 2)
    if pairs.symmetric:
        rows = np.unique(np.concatenate([rows, rows[:, ::-1]]), axis=0)
    groups = _groups(rows, items, pairs)  # (P, 2)
    at = np.stack([left.positions(rows[:, 0]), right.positions(rows[:, 1])], axis=1)
    there = (at >= 0).all(1)
    for side, bank in more:
        there &= bank.positions(rows[:, side]) >= 0
    if not there.any():
        raise InputError(
            f"{items.dataset}/{items.split}: none of its {len(rows)} pairs has both items encoded"
        )
    at, groups = at[there], groups[there]
    order = np.lexsort((at[:, 1], at[:, 0]))
    at, groups = at[order], groups[order]
    lefts, first = np.unique(at[:, 0], return_index=True)
    one, two = groups.T
    itself = None
    if pairs.left == pairs.right:
        itself = right.positions(left.rows[lefts])
        own = left.rows[at[:, 0]] == right.rows[at[:, 1]]  # (P,), paired with themselves
        itself[np.isin(lefts, at[own, 0])] = -1
    return PairTable(
        left=lefts,
        starts=np.append(first, len(at)).astype(np.int64),
        right=at[:, 1],
        group=one[first],
        dropped=int((~there).sum()),
        right_group=None if np.array_equal(one, two) else two,
        itself=itself,
    )


def _groups(rows: np.ndarray, items: Items, pairs: Pairs) -> np.ndarray:
    """(P, 2) int64: the group of each pair's items, left and right.

    Of one column that tells groups, its own: connected components of pairs that lead from image to
    image would soon be one giant.
    """
    column = items.columns.get(pairs.left) if pairs.left == pairs.right else None
    if column is not None and column.groups is not None:
        return column.groups[rows]
    return np.repeat(_components(rows, pairs)[:, None], 2, axis=1)


def _components(rows: np.ndarray, pairs: Pairs) -> np.ndarray:
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

    Pairs that lead from a group of one part into the other are in neither.

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
    rest, part = (table.take(np.flatnonzero(chosen)).closed() for chosen in (~held, held))
    if min(len(np.unique(rest.group)), len(np.unique(part.group))) < 2:
        raise InputError(
            "too few pairs are left within what is trained on and what is held out of it; encode a "
            "data set with a split to validate on, or mine more pairs"
        )
    return rest, part
