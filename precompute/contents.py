"""From a split as it was read to the cache's items, unreadable files left out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from ..cache.items import Column, Items
from .dataset import SourceColumn, Split, arrange, without
from .images import ImageSource

READERS = 4
"""Threads that read files for their digests."""


@dataclass(frozen=True)
class _Seen:
    """An image file as it was found."""

    digest: bytes
    stat: tuple[int, int]
    """Size in bytes and modification time in ns; (-1, -1) without a file of its own."""


def build_items(
    dataset: str,
    split: Split,
    known: Items | None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Items, Split]:
    """The items of a split, and the split in the same order with unreadable files left out.

    Args:
        dataset: Name in the cache.
        split: As its reader gave it.
        known: The items that the cache has; a file whose size and time are as they were is not
            read again.
        report: Called now and then with how many images are digested, of how many.
    """
    seen: dict[str, dict[str, _Seen]] = {}
    for name, column in split.columns.items():
        if column.modality == "image":
            found = _look(column, _memory(known, name), report)
            seen[name] = {i: s for i, s in found.items() if isinstance(s, _Seen)}
            split = without(split, name, {i: s for i, s in found.items() if isinstance(s, str)})
    ordered, pairs = arrange(split)
    columns = {n: _column(column, seen.get(n)) for n, column in ordered.columns.items()}
    if not seen:  # images beside texts tell by their pairs which texts belong together
        columns = {n: _grouped(columns[n], column) for n, column in ordered.columns.items()}
    left_out = [(entry.column, entry.item_id, entry.reason) for entry in ordered.left_out]
    items = Items(
        dataset=dataset,
        split=ordered.name,
        columns=columns,
        pairs=pairs,
        classes=ordered.classes,
        templates=ordered.templates,
        left_out=sorted(left_out),
    )
    return items, ordered


def _grouped(column: Column, source: SourceColumn) -> Column:
    """The column with what its items belong to, numbered in order, where the source tells it."""
    if source.groups is None:
        return column
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(group, len(numbers)) for group in source.groups]
    return replace(column, groups=np.array(groups, np.int64))


def _memory(known: Items | None, name: str) -> dict[tuple[str, int, int], bytes]:
    """What is known of files: id, size and time -> digest."""
    column = known.columns.get(name) if known is not None else None
    if column is None or column.stats is None:
        return {}
    return {
        (item_id, int(size), int(time)): digest.tobytes()
        for item_id, (size, time), digest in zip(
            column.ids, column.stats.tolist(), column.digests, strict=True
        )
        if size >= 0
    }


def _look(
    column: SourceColumn,
    memory: dict[tuple[str, int, int], bytes],
    report: Callable[[int, int], None],
) -> dict[str, _Seen | str]:
    """Each image's digest and stat by id, or the reason why it cannot be read."""

    def look(item: tuple[str, ImageSource]) -> _Seen | str:
        item_id, source = item
        try:
            stat = source.stat()
            digest = None if stat is None else memory.get((item_id, *stat))
            return _Seen(digest or source.digest(), stat or (-1, -1))
        except OSError as error:
            return error.strerror or str(error)

    sources = cast("Sequence[ImageSource]", column.values)
    found: dict[str, _Seen | str] = {}
    with ThreadPoolExecutor(READERS) as readers:
        results = readers.map(look, zip(column.ids, sources, strict=True))
        for item_id, result in zip(column.ids, results, strict=True):
            found[item_id] = result
            if len(found) % 1000 == 0:
                report(len(found), len(sources))
    return found


def _column(column: SourceColumn, seen: dict[str, _Seen] | None) -> Column:
    stats = None
    if seen is None:
        texts = [str(value) for value in column.values]
        digests = [hashlib.sha256(text.encode("utf-8")).digest() for text in texts]
        values = texts
    else:
        digests = [seen[item_id].digest for item_id in column.ids]
        values = [source.name for source in cast("Sequence[ImageSource]", column.values)]
        stats = np.array([seen[item_id].stat for item_id in column.ids], np.int64).reshape(-1, 2)
    return Column(
        modality=column.modality,
        ids=column.ids,
        values=values,
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        labels=None if column.labels is None else np.array(column.labels, np.int64),
        templates=None if column.templates is None else np.array(column.templates, np.int64),
        stats=stats,
    )
