"""One immutable file of a stream. n items, T tokens, D width."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import ShardError
from .files import new_file
from .hdf5 import (
    attribute,
    check_offsets,
    check_seal,
    open_hdf5,
    plain_dataset,
    write_attributes,
    write_hdf5,
)
from .precision import STORED

SHARD_FORMAT = "cbmf-shard"
SHARD_VERSION = 2


@dataclass(frozen=True)
class Failure:
    """An item that could not be encoded."""

    row: int
    """Row in the column of items.h5."""
    item_id: str
    reason: str


@dataclass(frozen=True)
class ShardContent:
    """What a shard holds. Numbers in the stored dtype of the stream."""

    rows: np.ndarray
    """(n,) int64, ascending: row in the column of items.h5 of each stored item."""
    pooled: np.ndarray
    """(n, D of the pooled vector)."""
    values: np.ndarray | None = None
    """(T, D): the tokens of all items, one after the other; None in the pooled layout."""
    offsets: np.ndarray | None = None
    """(n + 1,) int64: the tokens of item i are values[offsets[i]:offsets[i + 1]]."""
    failures: tuple[Failure, ...] = ()
    """Items of this shard's range that are missing from it."""


@dataclass(frozen=True)
class ShardEntry:
    """A finished shard as the manifest lists it."""

    name: str
    first: int
    """First row of the range that the shard answers for."""
    last: int
    """One past its last row."""
    items: int
    tokens: int
    size_bytes: int
    sha256: str
    """Of the whole file."""
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        counts = (self.first, self.last, self.items, self.tokens, self.size_bytes)
        if any(type(count) is not int or not 0 <= count < 2**62 for count in counts):
            raise ValueError(f"a shard counts {counts}")
        if self.items > self.last - self.first or not isinstance(self.sha256, str):
            raise ValueError(f"{self.items} items in rows {self.first} to {self.last}")

    def to_json(self) -> dict[str, Any]:
        """As the manifest writes it."""
        table = {key: value for key, value in vars(self).items() if key != "failures"}
        return {**table, "failures": [vars(f) for f in self.failures]}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> ShardEntry:
        """As the manifest reads it.

        Raises:
            TypeError, KeyError, ValueError: If fields are missing, unknown, or make no sense.
        """
        failures = tuple(Failure(**failure) for failure in table["failures"])
        return cls(**{**table, "failures": failures})


def write_shard(
    path: Path, content: ShardContent, *, first: int, last: int, fingerprint: str
) -> ShardEntry:
    """Write a shard so that it is either whole under its name, or not there.

    Temporary file, close, check, sync, rename, sync of the folder.

    Raises:
        DiskFullError: If the disk is full; nothing is left behind.
    """
    bulk = {"rows": content.rows.astype(np.int64), "pooled": content.pooled}
    if content.values is not None and content.offsets is not None:
        bulk |= {"values": content.values, "offsets": content.offsets.astype(np.int64)}
    describe = partial(_describe, content.failures, (first, last), fingerprint)
    with new_file(path) as part:
        digest = write_hdf5(part, describe, bulk)
        return read_entry(part, path.name, fingerprint, digest)


def _describe(
    failures: tuple[Failure, ...], span: tuple[int, int], fingerprint: str, file: h5py.File
) -> None:
    write_attributes(file, format=SHARD_FORMAT, version=SHARD_VERSION)
    write_attributes(file, fingerprint=fingerprint, first=span[0], last=span[1])
    listed = json.dumps([vars(f) for f in failures]).encode()
    file.create_dataset("failures", data=np.frombuffer(listed, np.uint8))


def read_entry(path: Path, name: str, fingerprint: str, sha256: str | None = None) -> ShardEntry:
    """What a shard says of itself, with the digest of its file.

    Args:
        path: The file.
        name: The name to list it under.
        fingerprint: The stream's; a shard of another stream is refused.
        sha256: Of the file, where it is known from writing it.

    Raises:
        ShardError: If the file is damaged or belongs to another stream.
    """
    sha256 = sha256 or check_seal(path)
    with open_hdf5(path) as file:
        found = (attribute(file, "format"), attribute(file, "version"))
        if found != (SHARD_FORMAT, SHARD_VERSION):
            raise ShardError(f"{path}: not a shard of version {SHARD_VERSION}, but {found}")
        if attribute(file, "fingerprint") != fingerprint:
            raise ShardError(f"{path}: the shard belongs to another stream")
        raw = plain_dataset(file, "failures", "uint8", 1)[()].tobytes()
        tokens = file["values"].shape[0] if "values" in file else 0
        try:
            return ShardEntry(
                name=name,
                first=int(attribute(file, "first")),
                last=int(attribute(file, "last")),
                items=plain_dataset(file, "rows", "int64", 1).shape[0],
                tokens=tokens,
                size_bytes=path.stat().st_size,
                sha256=sha256,
                failures=tuple(Failure(**failure) for failure in json.loads(raw)),
            )
        except (TypeError, ValueError) as error:
            raise ShardError(f"{path}: its list of failures is damaged ({error})") from error


def map_shard(
    path: Path, entry: ShardEntry, layout: str, dtype: str, widths: tuple[int, int]
) -> ShardContent:
    """The arrays of a shard, large ones mapped from the file rather than read.

    Args:
        path: The file.
        entry: What the manifest says of it.
        layout: The stream's layout; tokens must be there just in the layout that has them.
        dtype: The stream's dtype.
        widths: D of a token and D of the pooled vector.

    Raises:
        ShardError: If file and manifest disagree in size, shape, range or order.
    """
    size_bytes = path.stat().st_size if path.is_file() else -1
    if size_bytes != entry.size_bytes:
        state = "is missing" if size_bytes < 0 else f"has {size_bytes} bytes"
        raise ShardError(
            f"{path} {state}, the manifest says {entry.size_bytes} bytes; "
            "run the same cbmf precompute again, it rewrites only this shard"
        )
    with open_hdf5(path) as file:
        rows = plain_dataset(file, "rows", "int64", 1)[()]
        pooled = _mapped(path, plain_dataset(file, "pooled", STORED[dtype], 2))
        values = offsets = None
        if ("values" in file) != (layout == "tokens"):
            raise ShardError(f"{path}: is not of the layout {layout!r}")
        if layout == "tokens":
            values = _mapped(path, plain_dataset(file, "values", STORED[dtype], 2))
            offsets = plain_dataset(file, "offsets", "int64", 1)[()]
    content = ShardContent(rows, pooled, values, offsets, entry.failures)
    _check(path, content, entry, widths)
    return content


def _mapped(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    return np.memmap(
        path, dataset.dtype, "r", offset=dataset.id.get_offset(), shape=tuple(dataset.shape)
    )


def _check(path: Path, content: ShardContent, entry: ShardEntry, widths: tuple[int, int]) -> None:
    rows, n = content.rows, len(content.rows)
    in_range = n == 0 or (rows[0] >= entry.first and rows[-1] < entry.last)
    if n != entry.items or not in_range or not np.all(np.diff(rows) > 0):
        raise ShardError(f"{path}: its rows are not those of the manifest")
    if content.pooled.shape != (n, widths[1]):
        raise ShardError(
            f"{path}: 'pooled' has shape {content.pooled.shape}, not ({n}, {widths[1]})"
        )
    if content.values is None or content.offsets is None:
        return
    if content.values.shape != (entry.tokens, widths[0]) or len(content.offsets) != n + 1:
        raise ShardError(
            f"{path}: 'values' has shape {content.values.shape}, not ({entry.tokens}, {widths[0]})"
        )
    check_offsets(content.offsets, entry.tokens, str(path))
