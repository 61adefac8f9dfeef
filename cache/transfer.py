"""Moving a cache: one tar file with a sealed list of what is in it, checked on arrival.

The list comes first, so that a cut file is known as one, and nothing is put in place before all is
there and proved. An ordinary `tar x` unpacks the file too; it checks nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .catalog import Cache
from .errors import CacheError, InputError, ShardError
from .files import (
    PART,
    file_digest,
    full_disk_is_one_line,
    new_file,
    read_json,
    require_room,
    sync,
    write_json,
)
from .items import ITEMS_NAME, read_items
from .manifest import MANIFEST_NAME
from .stream import Stream
from .upkeep import verify

LIST_NAME = "cbmf-export.json"
LIST_FORMAT, LIST_VERSION = "cbmf-export", 1
PLACE = re.compile(
    r"[^./\\\0][^/\\\0]*/[^./\\\0][^/\\\0]*/"
    r"(items(-[0-9a-f]{12})?\.h5|[^./\\\0][^/\\\0]*@[^/\\\0]*/(manifest\.json|[0-9]{5,}\.h5))"
)
"""dataset/split/items.h5, or dataset/split/stream/file; nothing hidden, nothing that climbs."""
COPIED_BYTES = 2**20
"""Copied at a time."""


@dataclass(frozen=True)
class Moved:
    """What an export or an import did."""

    streams: list[str] = field(default_factory=list)
    """`dataset/split/stream` of each that was moved."""
    left: list[str] = field(default_factory=list)
    """Those that were left, each with the reason."""
    size_bytes: int = 0


@dataclass(frozen=True)
class _File:
    """A file of the list."""

    path: str
    """Below the cache's root, with slashes."""
    size_bytes: int
    sha256: str


def export_cache(cache: Cache, target: Path, datasets: Sequence[str] = ()) -> Moved:
    """Write the complete streams of a cache, and the items they are over, into one tar file.

    Args:
        cache: What to move.
        target: The file; replaced if it is there.
        datasets: Names of data sets; none stands for all.

    Raises:
        CacheError: If the cache has none of these, or nothing complete.
        ShardError: If a file is not what its manifest says; nothing is written then.
        DiskFullError: If the disk is full.
    """
    splits = [(d, s) for d, s in cache.splits() if not datasets or d in datasets]
    unknown = sorted(set(datasets) - {dataset for dataset, _ in splits})
    if unknown or not splits:
        have = ", ".join(sorted({dataset for dataset, _ in cache.splits()})) or "nothing"
        raise CacheError(f"{cache.root}: no data set {', '.join(unknown) or 'at all'}; has {have}")
    files: list[_File] = []
    streams: list[str] = []
    left: list[str] = []
    for dataset, split in splits:
        folder = cache.folder(dataset, split)
        files += [_listed(cache.root, path) for path in sorted(folder.glob("items*.h5"))]
        for stream in cache.streams(dataset, split):
            name = f"{dataset}/{split}/{stream.path.name}"
            if not stream.complete:
                left.append(f"{name}: incomplete")
                continue
            streams.append(name)
            files += list(_of_stream(cache.root, stream))
    if not streams:
        raise CacheError(f"{cache.root}: no complete stream to export")
    table = {"format": LIST_FORMAT, "version": LIST_VERSION, "files": [vars(f) for f in files]}
    with new_file(target) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        index = part.with_name(f"{part.name}.{LIST_NAME}{PART}")
        try:
            write_json(index, table)
            _add(tar, index, LIST_NAME, None)
        finally:
            index.unlink(missing_ok=True)
        for file in files:
            _add(tar, cache.root / file.path, file.path, file.sha256)
    return Moved(streams, left, sum(file.size_bytes for file in files))


def _of_stream(root: Path, stream: Stream) -> Iterator[_File]:
    yield _listed(root, stream.path / MANIFEST_NAME)
    for _, entry in sorted(stream.manifest.shards.items()):
        path = (stream.path / entry.name).relative_to(root).as_posix()
        yield _File(path, entry.size_bytes, entry.sha256)


def _listed(root: Path, path: Path) -> _File:
    return _File(path.relative_to(root).as_posix(), path.stat().st_size, file_digest(path))


def _add(tar: tarfile.TarFile, path: Path, name: str, sha256: str | None) -> None:
    """Put a file into the archive; its digest is taken on the way."""
    with path.open("rb") as file:
        header = tarfile.TarInfo(name)
        header.size, header.mode = os.fstat(file.fileno()).st_size, 0o644
        reader = _Digested(file)
        tar.addfile(header, reader)  # type: ignore[arg-type]
    if sha256 is not None and reader.whole.hexdigest() != sha256:
        raise ShardError(f"{path}: damaged, its digest is not the one in the manifest")


class _Digested:
    """A file that is digested while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.whole = file, hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        """As a file's."""
        piece = self.file.read(count)
        self.whole.update(piece)
        return piece


def import_cache(source: Path, cache: Cache) -> Moved:
    """Put what `export_cache` wrote into a cache, once all of it is there and proved.

    Streams that the cache has complete are left as they are; incomplete ones are replaced.

    Raises:
        InputError: If the file is no export, cut, or damaged, or the cache has other items in the
            same place. The cache is as it was then.
        DiskFullError: If the disk is too small, or fills up.
    """
    staging = cache.root / f".import.{os.getpid()}{PART}"
    try:
        with full_disk_is_one_line(staging):
            staging.mkdir(parents=True)
            size_bytes = _unpack(source, staging, cache.root)
            staged = Cache(staging)
            _check(source, staged, cache)
            return _put(staged, cache, size_bytes)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpack(source: Path, staging: Path, root: Path) -> int:
    """Copy every listed file below `staging`, digested; how many bytes they are."""
    try:
        with source.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            first = tar.next()
            if first is None or first.name != LIST_NAME or not first.isfile():
                raise InputError(f"{source}: no export of a cache, {LIST_NAME} does not come first")
            waiting = _read_list(source, staging, _content(tar, first))
            total = sum(file.size_bytes for file in waiting.values())
            require_room(root, total)
            while (member := tar.next()) is not None:
                listed = waiting.pop(member.name, None)
                if listed is None or not member.isfile() or member.size != listed.size_bytes:
                    raise InputError(f"{source}: {member.name!r:.200} is not as the list says")
                _copy(source, _content(tar, member), listed, staging)
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file") from error
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source}: cut, damaged, or no tar file ({error})") from error
    if waiting:
        raise InputError(f"{source}: cut, {len(waiting)} of its files are missing; copy it again")
    return total


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # a regular file, as was looked at
    return content


def _read_list(source: Path, staging: Path, content: IO[bytes]) -> dict[str, _File]:
    path = staging / LIST_NAME
    with path.open("wb") as out:
        shutil.copyfileobj(content, out, COPIED_BYTES)
    try:
        table: dict[str, Any] = read_json(path)
        if (table["format"], table["version"]) != (LIST_FORMAT, LIST_VERSION):
            raise InputError(f"{source}: of another format version than {LIST_VERSION}")
        files = [_File(**entry) for entry in table["files"]]
        whole = all(PLACE.fullmatch(f.path) and f.size_bytes >= 0 for f in files)
    except (CacheError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: its list of files is damaged ({error})") from error
    finally:
        path.unlink()
    if not whole or len({file.path for file in files}) < len(files):
        raise InputError(f"{source}: its list names files that no cache has")
    return {file.path: file for file in files}


def _copy(source: Path, content: IO[bytes], listed: _File, staging: Path) -> None:
    path, whole = staging / listed.path, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        while piece := content.read(COPIED_BYTES):
            whole.update(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    if whole.hexdigest() != listed.sha256:
        raise InputError(f"{source}: {listed.path} is cut or damaged; copy the file again")


def _check(source: Path, staged: Cache, cache: Cache) -> None:
    """Refuse what is not whole in itself, and other items than the cache has in the same place."""
    for path, findings in verify(staged):
        for finding in findings:
            raise InputError(f"{source}: {path.name} is damaged ({finding.reason})")
    for dataset, split in staged.splits():
        for stream in staged.streams(dataset, split):
            spec = stream.manifest.spec
            stream.require_complete()
            if (spec.dataset, spec.split, spec.folder) != (dataset, split, stream.path.name):
                raise InputError(f"{source}: {stream.path.name} is not the stream it says it is")
            staged.items_of(stream)
        new, there = (c.folder(dataset, split) / ITEMS_NAME for c in (staged, cache))
        if there.exists() and read_items(there).digest() != read_items(new).digest():
            raise InputError(
                f"{cache.root} has other items of {dataset}/{split} than {source}; import it into "
                "another --cache"
            )


def _put(staged: Cache, cache: Cache, size_bytes: int) -> Moved:
    moved = Moved(size_bytes=size_bytes)
    for dataset, split in staged.splits():
        here, folder = staged.folder(dataset, split), cache.folder(dataset, split)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(here.glob("items*.h5")):
            if not (folder / path.name).exists():
                os.replace(path, folder / path.name)
        for stream in staged.streams(dataset, split):
            name, target = f"{dataset}/{split}/{stream.path.name}", folder / stream.path.name
            if _complete(target):
                moved.left.append(f"{name}: there already")
                continue
            if target.exists():
                os.replace(target, staged.root / f"{stream.path.name}.old")
            os.replace(stream.path, target)
            moved.streams.append(name)
        sync(folder)
    return moved


def _complete(folder: Path) -> bool:
    with suppress(CacheError):
        return Stream(folder).complete
    return False
