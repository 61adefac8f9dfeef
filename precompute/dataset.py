"""A data set as it was read: typed columns with ids, pairs by id, and what was left out and why.

Readers (precompute/datasets/) return `Split`s in any order; `arrange` gives the canonical order, so
that the order of files and of lines never matters, and joins pairs by id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from ..cache.errors import InputError
from ..cache.items import Pairs
from .images import ImageSource

T = TypeVar("T")


@dataclass(frozen=True)
class LeftOut:
    """An item that could not be taken."""

    column: str
    item_id: str
    reason: str


@dataclass(frozen=True)
class SourceColumn:
    """Items of one kind before encoding. N items."""

    modality: str
    """`image` or `text`."""
    ids: list[str]
    """N unique ids."""
    values: Sequence[str] | Sequence[ImageSource]
    """N texts, or N images not yet opened."""
    groups: list[str] | None = None
    """What each item belongs to (a caption: its image's id), so that partners lie together."""
    labels: list[int] | None = None
    """N classes, as positions in `Split.classes`."""
    templates: list[int] | None = None
    """For prompts: N positions in `Split.templates`."""

    def pick(self, keep: Sequence[int]) -> SourceColumn:
        """The items at these places, in this order."""
        values: Any = [self.values[i] for i in keep]
        return SourceColumn(
            modality=self.modality,
            ids=[self.ids[i] for i in keep],
            values=values,
            groups=_pick(self.groups, keep),
            labels=_pick(self.labels, keep),
            templates=_pick(self.templates, keep),
        )


@dataclass(frozen=True)
class SourcePairs:
    """Which items belong together, by id."""

    left: str
    right: str
    ids: list[tuple[str, str]]
    """P pairs: id in the left column, id in the right column."""
    labels: list[int] | None = None
    """P: 1 for a paraphrase, 0 for none."""
    scores: list[float] | None = None
    """P graded similarities."""

    def pick(self, keep: Sequence[int]) -> SourcePairs:
        """The pairs at these places."""
        return SourcePairs(
            left=self.left,
            right=self.right,
            ids=[self.ids[i] for i in keep],
            labels=_pick(self.labels, keep),
            scores=_pick(self.scores, keep),
        )


@dataclass(frozen=True)
class Split:
    """One split of a data set."""

    name: str
    """`train`, `val` or `test`."""
    columns: dict[str, SourceColumn]
    """By name: `image`, `text`, `prompt`."""
    pairs: SourcePairs | None = None
    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def _pick(values: list[T] | None, keep: Sequence[int]) -> list[T] | None:
    return None if values is None else [values[i] for i in keep]


def hash_key(text: str) -> bytes:
    """Eight bytes that order texts evenly and in the same way everywhere."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()


def arrange(split: Split) -> tuple[Split, Pairs | None]:
    """The split in canonical order, and its pairs as row numbers.

    Items are ordered by a hash of their group, then by id: the same whatever the order of files,
    shuffled (any run of rows is a fair sample), and with the captions of an image side by side.

    Raises:
        InputError: If an id stands twice, or a pair names an id that is in no column.
    """
    columns = {name: _in_order(name, column) for name, column in split.columns.items()}
    ordered = replace(split, columns=columns)
    return ordered, None if split.pairs is None else _join(ordered, split.pairs)


def _in_order(name: str, column: SourceColumn) -> SourceColumn:
    seen: set[str] = set()
    for item_id in column.ids:
        if item_id in seen:
            raise InputError(f"{name} {item_id!r} stands twice in the data set; ids must be unique")
        seen.add(item_id)
    groups = column.groups or column.ids
    keys = [(hash_key(group), item_id) for group, item_id in zip(groups, column.ids, strict=True)]
    return column.pick(sorted(range(len(keys)), key=keys.__getitem__))


def _join(split: Split, source: SourcePairs) -> Pairs:
    row_of = {
        name: {item_id: row for row, item_id in enumerate(split.columns[name].ids)}
        for name in {source.left, source.right}
    }
    try:
        rows = [
            (row_of[source.left][left], row_of[source.right][right]) for left, right in source.ids
        ]
    except KeyError as error:
        raise InputError(f"{split.name}: a pair names {error}, which is no item") from error
    table = np.array(rows, np.int64).reshape(-1, 2)
    labels = None if source.labels is None else np.array(source.labels, np.int64)
    scores = None if source.scores is None else np.array(source.scores, np.float64)
    # A pair that stands twice may be judged twice: its judgements too come in one order.
    ties = [values for values in (labels, scores) if values is not None]
    order = np.lexsort((*ties, table[:, 1], table[:, 0]))
    return Pairs(
        left=source.left,
        right=source.right,
        rows=table[order],
        labels=None if labels is None else labels[order],
        scores=None if scores is None else scores[order],
    )


def without(split: Split, column: str, reasons: dict[str, str]) -> Split:
    """The split without some items of a column, and without the pairs and partners they leave bare.

    Args:
        split: As it was.
        column: The column that the items are of.
        reasons: By id, why each cannot be taken.
    """
    if not reasons:
        return split
    kept = {i for i in split.columns[column].ids if i not in reasons}
    left_out = [LeftOut(column, item_id, reason) for item_id, reason in reasons.items()]
    narrowed = _narrowed(split, column, kept)
    return replace(narrowed, left_out=[*split.left_out, *left_out])


def limited(split: Split, limit: int) -> Split:
    """A trial's worth of a split: about `limit` items, the same ones every time.

    Of an image-text set `limit` images with all their captions; of a labelled set `limit` images
    and every prompt; of sentence pairs `limit` pairs; of captions alone those of `limit` images.
    Chosen by the hash of the id.
    """
    if "image" in split.columns:
        ids = split.columns["image"].ids
        return _narrowed(split, "image", set(sorted(ids, key=hash_key)[:limit]))
    if split.pairs is not None:
        keys = [hash_key("\0".join(pair)) for pair in split.pairs.ids]
        pairs = split.pairs.pick(sorted(sorted(range(len(keys)), key=keys.__getitem__)[:limit]))
        used = {item_id for pair in pairs.ids for item_id in pair}
        columns = {name: _subset(column, used) for name, column in split.columns.items()}
        return replace(split, columns=columns, pairs=pairs)
    name, column = next(iter(split.columns.items()))
    groups = column.groups or column.ids
    chosen = set(sorted(set(groups), key=hash_key)[:limit])
    of_group = zip(groups, column.ids, strict=True)
    return _narrowed(split, name, {item_id for group, item_id in of_group if group in chosen})


def _narrowed(split: Split, column: str, ids: set[str]) -> Split:
    """The split with only these items of a column, and only their partners of the other."""
    columns = {**split.columns, column: _subset(split.columns[column], ids)}
    pairs = split.pairs
    if pairs is None or column not in (pairs.left, pairs.right):
        return replace(split, columns=columns)
    side = 0 if pairs.left == column else 1
    other = pairs.right if side == 0 else pairs.left
    pairs = pairs.pick([i for i, pair in enumerate(pairs.ids) if pair[side] in ids])
    if other != column:
        columns[other] = _subset(columns[other], {pair[1 - side] for pair in pairs.ids})
    return replace(split, columns=columns, pairs=pairs)


def _subset(column: SourceColumn, ids: set[str]) -> SourceColumn:
    return column.pick([i for i, item_id in enumerate(column.ids) if item_id in ids])
