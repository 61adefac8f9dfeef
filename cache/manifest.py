"""manifest.json: what a stream is, what it was made of, and which shards are finished.

Shards that were finished since it was written stand in a journal beside it (journal.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import CacheError, ShardError
from .files import read_json, value_digest, write_json
from .items import MODALITIES
from .journal import JOURNAL_NAME, read_shards
from .precision import STORED
from .shard import Failure, ShardEntry

MANIFEST_FORMAT = "cbmf-stream"
MANIFEST_VERSION = 2
MANIFEST_NAME = "manifest.json"
LAYOUTS = ("pooled", "tokens")


@dataclass(frozen=True)
class StreamSpec:
    """What a stream is, fixed before its first item is encoded."""

    dataset: str
    split: str
    column: str
    modality: str
    """`image` or `text`."""
    encoder: str
    """Short name of the encoder, for people."""
    made_of: dict[str, Any]
    """Everything about the encoder that changes the pooled vector: class, digest of the weights,
    processor, pooling, layer, maximal length, library majors. JSON values only."""
    items_digest: str
    """Digest of the column's ids and contents."""
    count: int
    """Items in the column."""
    width: int
    """Of a token."""
    pooled_width: int
    """Of a pooled vector."""
    layout: str = "pooled"
    grid: int | None = None
    """Image patches are average-pooled to `grid` x `grid` tokens; None keeps them all."""
    dtype: str = "float16"
    source: str = ""
    """How the encoder was named when it was run: hub name or folder; for finding it again."""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS or self.dtype not in STORED:
            raise CacheError(
                f"layout {self.layout!r} or dtype {self.dtype!r} is unknown; "
                f"layouts are {', '.join(LAYOUTS)}, dtypes {', '.join(STORED)}"
            )
        names = (self.dataset, self.split, self.column, self.encoder, self.items_digest)
        if not all(isinstance(name, str) and name for name in names):
            raise CacheError(f"no stream of that name: {names!r:.200}")
        counts = (self.count, self.width, self.pooled_width, self.grid or 1)
        if any(type(count) is not int or not 0 < count < 2**48 for count in counts):
            raise CacheError(f"no stream over {self.count!r:.40} items, {self.width!r:.40} wide")
        if self.modality not in MODALITIES:
            raise CacheError(f"no stream over {self.modality!r:.40} items")

    @property
    def identity(self) -> str:
        """64 hexadecimal digits, equal iff the pooled numbers come from the same encoder set-up."""
        return value_digest(self.made_of)

    @property
    def whole(self) -> dict[str, Any]:
        """Everything that the fingerprint covers, as people read it."""
        storage = {"layout": self.layout, "grid": self.grid, "dtype": self.dtype}
        return {"encoder": self.made_of, "storage": storage, "items": self.items_digest}

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits over everything that changes the stored numbers."""
        return value_digest(self.whole)

    @property
    def folder(self) -> str:
        """Name of its folder: `<column>@<encoder>-<first 12 digits of the fingerprint>`."""
        return f"{self.column}@{self.encoder}-{self.fingerprint[:12]}"

    def row_bytes(self, tokens_per_item: float) -> float:
        """Bytes that an item takes on disk, headers apart."""
        size = 4 if self.dtype == "float32" else 2
        tokens = tokens_per_item * self.width * size + 8 if self.layout == "tokens" else 0.0
        return self.pooled_width * size + 8 + tokens


@dataclass(frozen=True)
class Manifest:
    """A stream's manifest. K shards are planned, some of them finished."""

    spec: StreamSpec
    shard_rows: int
    """Rows that each shard answers for, the last one perhaps fewer."""
    shards: dict[int, ShardEntry] = field(default_factory=dict)
    """Finished shards by number."""

    @property
    def planned(self) -> int:
        """Number of shards in the plan."""
        return -(-self.spec.count // self.shard_rows)

    @property
    def complete(self) -> bool:
        """Whether every planned shard is finished."""
        return len(self.shards) == self.planned

    @property
    def failures(self) -> list[Failure]:
        """Items that could not be encoded, in order of their rows."""
        return [f for _, entry in sorted(self.shards.items()) for f in entry.failures]

    def range(self, number: int) -> tuple[int, int]:
        """First row of a shard, and one past its last."""
        first = number * self.shard_rows
        return first, min(first + self.shard_rows, self.spec.count)

    def missing(self) -> list[int]:
        """Numbers of the shards that are not finished."""
        return [number for number in range(self.planned) if number not in self.shards]

    def without_shards(self, numbers: set[int]) -> Manifest:
        """The manifest with some shards taken back."""
        kept = {number: entry for number, entry in self.shards.items() if number not in numbers}
        return replace(self, shards=kept)

    def save(self, folder: Path) -> None:
        """Write manifest.json, atomically. It holds all there is: the journal begins anew."""
        shards = {str(number): entry.to_json() for number, entry in sorted(self.shards.items())}
        spec = vars(self.spec)
        table = {
            "format": MANIFEST_FORMAT,
            "version": MANIFEST_VERSION,
            "fingerprint": self.spec.fingerprint,
            "identity": self.spec.identity,
            **spec,
            "complete": self.complete,
            "shard_rows": self.shard_rows,
            "planned": self.planned,
            "shards": shards,
        }
        write_json(folder / MANIFEST_NAME, table)
        (folder / JOURNAL_NAME).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read manifest.json, and what the journal adds to it.

        Raises:
            ShardError: If it is damaged.
            CacheError: If it is missing, or of another format version.
        """
        path = folder / MANIFEST_NAME
        # The journal first: whoever clears the journal wrote the manifest before
        noted, _ = read_shards(folder)
        table = read_json(path, MANIFEST_VERSION)
        found = (table.get("format"), table.get("version"))
        if found != (MANIFEST_FORMAT, MANIFEST_VERSION):
            raise CacheError(
                f"{path}: expected {MANIFEST_FORMAT} version {MANIFEST_VERSION}, got {found[0]} "
                f"version {found[1]}; read it with the release that wrote it, "
                "or encode again into another --cache"
            )
        try:
            fields = StreamSpec.__dataclass_fields__.keys() & table.keys()
            spec = StreamSpec(**{key: table[key] for key in fields})
            shards = {int(k): ShardEntry.from_json(v) for k, v in table["shards"].items()}
            shards.update(noted)
            manifest = cls(spec=spec, shard_rows=int(table["shard_rows"]), shards=shards)
            _check(path, manifest, table)
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            if isinstance(error, CacheError):
                raise
            raise ShardError(f"{path}: damaged ({type(error).__name__}: {error})") from error
        return manifest


def _check(path: Path, manifest: Manifest, table: dict[str, Any]) -> None:
    if manifest.spec.fingerprint != table["fingerprint"]:
        raise ShardError(f"{path}: damaged, its contents do not match its fingerprint")
    for number, entry in manifest.shards.items():
        if not 0 <= number < manifest.planned:
            raise ShardError(f"{path}: lists shard {number} of {manifest.planned}")
        if (entry.first, entry.last) != manifest.range(number) or entry.name != shard_name(number):
            raise ShardError(f"{path}: shard {number} does not answer for the rows of the plan")


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{number:05d}.h5"


def differences(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """What differs between two JSON values, a line each: `max_length: 64 -> 128`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield f"{at}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 and text.isalnum() else text[:80]
