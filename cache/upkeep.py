"""Proving and tidying a cache: `verify` re-digests shards, `garbage` finds what nothing needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .catalog import Cache
from .errors import CacheError, ShardError, StreamError
from .files import PART
from .items import read_items
from .manifest import MANIFEST_NAME, Manifest
from .proof import check_digest
from .shard import map_shard
from .stream import Stream
from .writer import leftovers, strike_shards


@dataclass(frozen=True)
class Finding:
    """Something wrong in a cache."""

    path: Path
    reason: str
    shard: int | None = None
    """Number of the shard, where it is one: precompute can write it again."""
    manifest: bool = False
    """Whether it is a damaged manifest: precompute can make it again from the shards."""


def verify(cache: Cache) -> Iterator[tuple[Path, list[Finding]]]:
    """Check everything a cache holds: items against their digests, shards against the manifests.

    Yields:
        Each items.h5 and each stream's folder, with what is wrong in it (an empty list if nothing).
    """
    for folder in sorted(cache.root.glob("*/*")):
        for path in sorted(folder.glob("items*.h5")):
            yield path, _check_items(path)
        for stream in sorted(path for path in folder.glob("*@*") if path.is_dir()):
            yield stream, _check_stream(stream)


def _check_items(path: Path) -> list[Finding]:
    try:
        read_items(path)
    except CacheError as error:
        return [Finding(path, str(error))]
    return []


def _check_stream(folder: Path) -> list[Finding]:
    if not (folder / MANIFEST_NAME).exists():
        if not any(folder.glob("[0-9]*.h5")):
            return []  # a process was killed when it had just begun
        reason = "is missing; the same cbmf precompute makes it anew from the shards"
        return [Finding(folder / MANIFEST_NAME, f"{folder / MANIFEST_NAME} {reason}")]
    try:
        manifest = Manifest.load(folder)
    except CacheError as error:
        damaged = isinstance(error, ShardError)
        return [Finding(folder / MANIFEST_NAME, str(error), manifest=damaged)]
    found = []
    spec = manifest.spec
    for number, entry in sorted(manifest.shards.items()):
        path = folder / entry.name
        try:
            map_shard(path, entry, spec.layout, spec.dtype, (spec.width, spec.pooled_width))
            check_digest(path, entry)
        except (ShardError, OSError) as error:
            found.append(Finding(path, str(error), shard=number))
    return found


def take_out(folder: Path, findings: Sequence[Finding]) -> str | None:
    """Take what is bad out of a stream, so that nothing wrong is used; what was done, in words."""
    if any(finding.manifest for finding in findings):
        (folder / MANIFEST_NAME).unlink(missing_ok=True)
        return "manifest taken out; the same cbmf precompute makes it anew from the shards"
    numbers = {finding.shard for finding in findings if finding.shard is not None}
    if not numbers:
        return None
    strike_shards(folder, numbers)
    return f"{len(numbers)} shards taken out; the same cbmf precompute writes them anew"


@dataclass(frozen=True)
class Garbage:
    """A file or folder that nothing needs."""

    path: Path
    reason: str
    size_bytes: int


def garbage(cache: Cache, *, incomplete: bool = False) -> list[Garbage]:
    """What `gc` would remove.

    Half-written files of processes that are gone, streams over items that are no longer there,
    and, if asked, incomplete streams.

    Args:
        cache: Where to look.
        incomplete: Also streams that lack shards.
    """
    found: list[Garbage] = []
    for folder in sorted(path for path in cache.root.glob("*/*") if path.is_dir()):
        parts = leftovers(folder)
        for stream in sorted(path for path in folder.glob("*@*") if path.is_dir()):
            parts += leftovers(stream)
            reason = _why_stale(cache, stream, incomplete)
            if reason:
                found.append(Garbage(stream, reason, _size(stream)))
        found += [Garbage(p, "left by a process that is gone", p.stat().st_size) for p in parts]
        found += _unused_items(cache, folder, [item.path for item in found])
    return found


def _why_stale(cache: Cache, folder: Path, incomplete: bool) -> str | None:
    if not (folder / MANIFEST_NAME).exists():
        return "has no manifest"
    try:
        stream = Stream(folder)
        cache.items_of(stream)
    except StreamError:
        return "its items are gone"
    except CacheError:
        return None
    return "incomplete" if incomplete and not stream.complete else None


def _unused_items(cache: Cache, folder: Path, going: list[Path]) -> list[Garbage]:
    """Older items that no remaining stream counts."""
    used = set()
    for path in folder.glob("*@*"):
        if path not in going and (path / MANIFEST_NAME).exists():
            used.add(Manifest.load(path).spec.items_digest)
    unused = []
    for path in sorted(folder.glob("items-*.h5")):
        reason = "older items that no stream uses"
        try:
            if any(column.digest() in used for column in read_items(path).columns.values()):
                continue
        except ShardError:
            reason = "older items, damaged"
        unused.append(Garbage(path, reason, path.stat().st_size))
    return unused


def remove(pieces: list[Garbage]) -> int:
    """Remove them; how many bytes that freed."""
    for piece in pieces:
        if piece.path.is_dir():
            shutil.rmtree(piece.path)
        else:
            piece.path.unlink(missing_ok=True)
    return sum(piece.size_bytes for piece in pieces)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and PART not in p.name)
