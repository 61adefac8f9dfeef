"""items.h5: what a split holds, apart from any encoder. N items a column, P pairs.

Written once per set of items and replaced atomically; the file it replaces is kept under the digest
of its contents, so that streams over the older items stay readable.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import CacheError, ShardError
from .files import file_digest, new_file
from .hdf5 import (
    attribute,
    check_seal,
    let_go,
    map_array,
    map_file,
    open_hdf5,
    plain_dataset,
    plain_group,
    write_attributes,
    write_hdf5,
)
from .strings import encoded, map_strings, read_strings, write_strings

ITEMS_FORMAT = "cbmf-items"
ITEMS_VERSION = 2
ITEMS_NAME = "items.h5"
MODALITIES = ("image", "text")


@dataclass(frozen=True)
class Column:
    """Items of one kind, in the order in which every stream over them counts its rows."""

    modality: str
    """`image` or `text`."""
    ids: Sequence[str]
    """N unique ids; of what was read from a cache they stay in its file, as do values."""
    values: Sequence[str]
    """N texts; for images N file names, for people. (A page with pictures looks for them below a
    folder that its reader names, and shows what has the digest.)"""
    digests: np.ndarray
    """SHA-256 of each item's content, (N, 32) uint8: the text's UTF-8, the image's bytes."""
    labels: np.ndarray | None = None
    """Class of each item, (N,) int64, a row of `Items.classes`; absent where there is none."""
    templates: np.ndarray | None = None
    """For class prompts: the template of each, (N,) int64, a row of `Items.templates`."""
    stats: np.ndarray | None = None
    """Size in bytes and modification time in ns of each item's file, (N, 2) int64; -1 without one.

    Only a memory of what was read, so that an unchanged file need not be read again."""
    groups: np.ndarray | None = None
    """Number of what each item belongs to, (N,) int64, at least 0: of a caption, its image.

    Written where no pairs tell it: of captions without their images."""

    def digest(self) -> str:
        """SHA-256 over ids and contents in order, 64 hexadecimal digits; computed once."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        whole = hashlib.sha256(self.modality.encode())
        _feed(whole, self.ids)
        whole.update(np.ascontiguousarray(self.digests).data)
        return whole.hexdigest()


@dataclass(frozen=True)
class Pairs:
    """Which items belong together."""

    left: str
    """Column of the first row number (`image` in an image-text set)."""
    right: str
    """Column of the second row number."""
    rows: np.ndarray
    """(P, 2) int64: row in the left column, row in the right column."""
    labels: np.ndarray | None = None
    """(P,) int64: 1 for a paraphrase, 0 for none; -1 where unknown."""
    scores: np.ndarray | None = None
    """(P,) float64: graded similarity (STS-B: 0 to 5)."""
    mined: str | None = None
    """How the pairs were mined, as JSON; None where the data set itself has them."""

    @property
    def symmetric(self) -> bool:
        """Whether each pair holds both ways round: paraphrases, and pairs that were mined.

        Pairs of a user's own may be of two kinds of texts, and stay as they stand.
        """
        one_column = self.left == self.right
        return one_column and (self.mined is not None or self.labels is not None)


@dataclass(frozen=True)
class Items:
    """Everything that a split of a data set holds, apart from embeddings."""

    dataset: str
    split: str
    columns: dict[str, Column]
    """By name: `image`, `text`, and `prompt` for class names in templates."""
    pairs: Pairs | None = None
    classes: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    """Prompt templates with `{}` for the class name; the bare name is `{}`."""
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    """Items that the data set names but that could not be taken: column, id, reason."""

    def digest(self) -> str:
        """SHA-256 over everything in it, 64 hexadecimal digits."""
        whole = hashlib.sha256()
        for name, column in sorted(self.columns.items()):
            _feed(whole, [name, column.modality], column.ids, column.values)
            _feed(whole, column.digests, column.labels, column.templates, column.stats)
            if column.groups is not None:  # nothing at all without: older files have no groups
                _feed(whole, ["groups"], column.groups)
        if self.pairs is not None:
            _feed(whole, [self.pairs.left, self.pairs.right])
            _feed(whole, self.pairs.rows, self.pairs.labels, self.pairs.scores)
            if self.pairs.mined is not None:
                _feed(whole, ["mined", self.pairs.mined])
        left_out = [part for entry in self.left_out for part in entry]
        _feed(whole, [self.dataset, self.split], self.classes, self.templates, left_out)
        return whole.hexdigest()

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            CacheError: If there is none.
        """
        if name not in self.columns:
            raise CacheError(
                f"{self.dataset}/{self.split} has no column {name!r}; it has "
                f"{', '.join(sorted(self.columns)) or 'none'}"
            )
        return self.columns[name]


def _feed(whole: hashlib._Hash, *parts: Sequence[str] | np.ndarray | None) -> None:
    """Strings, and arrays in one piece each, every one with a zero byte behind it."""
    for part in parts:
        if part is None:
            whole.update(b"\0")
        elif isinstance(part, np.ndarray):
            whole.update(np.ascontiguousarray(part).data)
            whole.update(b"\0")
        else:
            for string in encoded(part):
                whole.update(string + b"\0")


def write_items(folder: Path, items: Items) -> Path:
    """Write `items.h5` in `folder`.

    The file that lay there is kept beside it if it has a column that the new one lacks: streams may
    count its rows. (Other pairs over the same columns are no reason.)
    """
    path = folder / ITEMS_NAME
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        write_hdf5(part, partial(_fill, items))
        if path.exists() and not _has_columns_of(items, path):
            with suppress(FileExistsError):
                os.link(path, folder / f"items-{file_digest(path)[:12]}.h5")
    return path


def _has_columns_of(items: Items, path: Path) -> bool:
    """Whether items have every column of a file; False too if the file cannot tell."""
    try:
        old = read_items(path)
    except CacheError:
        return False
    new = {name: column.digest() for name, column in items.columns.items()}
    return all(new.get(name) == column.digest() for name, column in old.columns.items())


def _fill(items: Items, file: h5py.File) -> None:
    write_attributes(file, format=ITEMS_FORMAT, version=ITEMS_VERSION)
    write_attributes(file, dataset=items.dataset, split=items.split, digest=items.digest())
    columns = file.create_group("columns")
    for name, column in items.columns.items():
        group = columns.create_group(name)
        write_attributes(group, modality=column.modality, digest=column.digest())
        write_strings(group, "ids", column.ids)
        write_strings(group, "values", column.values)
        group.create_dataset("digests", data=np.ascontiguousarray(column.digests, np.uint8))
        for key in ("labels", "templates", "stats", "groups"):
            _store(group, key, getattr(column, key), np.int64)
    write_strings(file, "classes", items.classes)
    write_strings(file, "templates", items.templates)
    left_out = file.create_group("left_out")
    for place, name in enumerate(("columns", "ids", "reasons")):
        write_strings(left_out, name, [entry[place] for entry in items.left_out])
    if items.pairs is not None:
        group = file.create_group("pairs")
        write_attributes(group, left=items.pairs.left, right=items.pairs.right)
        _store(group, "rows", items.pairs.rows, np.int64)
        _store(group, "labels", items.pairs.labels, np.int64)
        _store(group, "scores", items.pairs.scores, np.float64)
        if items.pairs.mined is not None:
            write_attributes(group, mined=items.pairs.mined)


def _store(group: h5py.Group, name: str, array: np.ndarray | None, dtype: Any) -> None:
    if array is not None:
        group.create_dataset(name, data=np.ascontiguousarray(array, dtype))


def read_items(path: Path) -> Items:
    """Read an `items.h5`.

    Raises:
        ShardError: If the file is damaged.
        CacheError: If it is of another format version.
    """
    try:
        check_seal(path)
    except ShardError:
        with open_hdf5(path) as file:
            _require_version(file, path)  # older ones have no seal
        raise
    whole = map_file(path)
    with open_hdf5(path) as file:
        _require_version(file, path)
        columns = plain_group(file, "columns")
        items = Items(
            dataset=str(attribute(file, "dataset")),
            split=str(attribute(file, "split")),
            columns={name: _read_column(plain_group(columns, name), whole) for name in columns},
            pairs=_read_pairs(plain_group(file, "pairs")) if "pairs" in file else None,
            classes=read_strings(file, "classes"),
            templates=read_strings(file, "templates"),
            left_out=_read_left_out(plain_group(file, "left_out")),
        )
        if items.digest() != attribute(file, "digest"):
            raise ShardError(
                f"{path}: its contents do not match its digest; run cbmf precompute "
                f"{items.dataset} again, it writes the items anew"
            )
    _check(path, items)
    for column in items.columns.values():
        column.digest()  # now, while the file lies in memory: whoever reads items asks for it
    let_go(whole)
    return items


def _require_version(file: h5py.File, path: Path) -> None:
    found = (attribute(file, "format"), attribute(file, "version"))
    if found != (ITEMS_FORMAT, ITEMS_VERSION):
        raise CacheError(
            f"{path}: expected {ITEMS_FORMAT} version {ITEMS_VERSION}, got {found[0]} version "
            f"{found[1]}; read it with the release that wrote it, or choose another --cache"
        )


def _read_column(group: h5py.Group, whole: mmap.mmap) -> Column:
    return Column(
        modality=str(attribute(group, "modality")),
        ids=map_strings(group, "ids", whole),
        values=map_strings(group, "values", whole),
        digests=map_array(whole, plain_dataset(group, "digests", "uint8", 2)),
        labels=_load(group, "labels", "int64", 1),
        templates=_load(group, "templates", "int64", 1),
        stats=_load(group, "stats", "int64", 2),
        groups=_load(group, "groups", "int64", 1),
    )


def _read_pairs(group: h5py.Group) -> Pairs:
    mined = attribute(group, "mined")
    return Pairs(
        left=str(attribute(group, "left")),
        right=str(attribute(group, "right")),
        rows=plain_dataset(group, "rows", "int64", 2)[()],
        labels=_load(group, "labels", "int64", 1),
        scores=_load(group, "scores", "float64", 1),
        mined=None if mined is None else str(mined),
    )


def _read_left_out(group: h5py.Group) -> list[tuple[str, str, str]]:
    columns, ids, reasons = (read_strings(group, name) for name in ("columns", "ids", "reasons"))
    return list(zip(columns, ids, reasons, strict=True))


def _load(group: h5py.Group, name: str, dtype: str, axes: int) -> np.ndarray | None:
    return plain_dataset(group, name, dtype, axes)[()] if name in group else None


def _check(path: Path, items: Items) -> None:
    for name, column in items.columns.items():
        n = len(column.ids)
        optional = (column.labels, column.templates, column.stats, column.groups)
        lengths = [len(array) for array in optional if array is not None]
        if any(length != n for length in (len(column.values), len(column.digests), *lengths)):
            raise ShardError(f"{path}: column {name!r} has arrays of unequal length")
        if column.modality not in MODALITIES:
            raise ShardError(f"{path}: column {name!r} has modality {column.modality!r}")
        _check_range(path, f"labels of {name!r}", column.labels, len(items.classes))
        _check_range(path, f"templates of {name!r}", column.templates, len(items.templates))
        if column.groups is not None and n and column.groups.min() < 0:
            raise ShardError(f"{path}: groups of {name!r} lie below 0")
    if items.pairs is not None:
        pairs = items.pairs
        for axis, name in enumerate((pairs.left, pairs.right)):
            _check_range(
                path, f"pairs of {name!r}", pairs.rows[:, axis], len(items.column(name).ids)
            )
        if any(a is not None and len(a) != len(pairs.rows) for a in (pairs.labels, pairs.scores)):
            raise ShardError(f"{path}: pairs have arrays of unequal length")
        if pairs.mined is not None and not _is_json_object(pairs.mined):
            raise ShardError(f"{path}: how its pairs were mined is no JSON object")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _check_range(path: Path, what: str, values: np.ndarray | None, end: int) -> None:
    if values is not None and len(values) and (values.min() < 0 or values.max() >= end):
        raise ShardError(f"{path}: {what} lie outside 0..{end - 1}")
