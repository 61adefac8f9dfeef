"""Unpacking of zip and tar archives: nothing leaves the folder, nothing is ever half there."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..cache.errors import CbmfError, InputError
from ..cache.files import full_disk_is_one_line, sync
from .checksums import Watcher
from .download import require_room
from .images import ZIP_ERRORS, safe_tar_members

_BLOCK_BYTES = 1024**2
_PADDING_BYTES = 64 * 1024**2
"""Behind the end of a tar; usually below 10 KiB."""
_ENCRYPTED = 1
"""Bit of a zip member's flags."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold; more is refused before anything is written."""

    members: int = 1_000_000
    ratio: int = 20
    """Bytes unpacked, by bytes of the archive: images give 1, text 4 to 6, bombs 1,000."""
    least_bytes: int = 64 * 1024**2
    """Never refused, whatever the ratio."""


@dataclass(frozen=True)
class _Member:
    name: str
    size_bytes: int
    folder: bool
    fault: str
    """Why nothing of its kind is unpacked; empty for files and folders."""
    entry: Any


@dataclass(frozen=True)
class _Opened:
    members: Callable[[], Iterator[_Member]]
    content: Callable[[Any], IO[bytes]]


def unpack(
    archive: Path,
    home: Path,
    watcher: Watcher,
    *,
    below: str = "",
    only: Sequence[str] = (),
    limits: Limits | None = None,
) -> None:
    """Unpack an archive into a folder. What is there already under a name stays.

    It is unpacked beside, written to the disk, and renamed: a folder of it is either whole or not
    there. What an earlier, killed run left is removed first. One process at a time.

    Args:
        archive: A zip, or a tar however it is compressed; the name tells which.
        home: Folder, which must exist.
        watcher: Sees the bytes that are unpacked.
        below: Folder in `home` that the archive's names are relative to.
        only: Patterns of names to unpack; empty for all.
        limits: What it may hold.

    Raises:
        InputError: If it is damaged, or holds what must not be unpacked: paths that lead out, links
            and devices, more than the limits.
        DiskFullError: If the disk is too small.
    """
    aside = home / f".unpacking-{archive.name}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with _opened(archive) as opened, full_disk_is_one_line(home):
            chosen = _checked(archive, opened.members(), only, limits or Limits())
            require_room(home, sum(member.size_bytes for member in chosen), "unpacked")
            _write(archive, opened, chosen, aside / below, watcher)
            os.sync()  # one flush of the disk, not one a file: there may be 100,000
            _move_in(aside, home)
            sync(home)
    except CbmfError:
        raise
    except (OSError, *ZIP_ERRORS, tarfile.TarError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); get it again") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _opened(archive: Path) -> Iterator[_Opened]:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            yield _Opened(lambda: map(_of_zip, packed.infolist()), packed.open)
        return
    with safe_tar_members(archive) as tar:

        def content(entry: tarfile.TarInfo) -> IO[bytes]:
            file = tar.extractfile(entry)
            if file is None:
                raise tarfile.TarError(f"{entry.name} is no file")
            return file

        yield _Opened(lambda: _tar_members(tar), content)


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    """All members; then the rest of the stream is read, where gzip keeps its checksum."""
    yield from map(_of_tar, tar)
    rest = 0
    while tar.fileobj is not None and (block := tar.fileobj.read(_BLOCK_BYTES)):
        rest += len(block)
        if rest > _PADDING_BYTES:
            raise tarfile.TarError("more behind its end than padding")


def _of_zip(info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    fault = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "a link or a device"
    if info.flag_bits & _ENCRYPTED:
        fault = "encrypted"
    # The name as the archive has it: `filename` is cut at a zero byte, which hides an ending.
    return _Member(info.orig_filename, info.file_size, info.is_dir(), fault, info)


def _of_tar(info: tarfile.TarInfo) -> _Member:
    fault = "" if info.isfile() or info.isdir() else "a link or a device"
    return _Member(info.name, info.size, info.isdir(), fault, info)


def _checked(
    archive: Path, members: Iterator[_Member], only: Sequence[str], limits: Limits
) -> list[_Member]:
    """The files to unpack. All members are checked, those that are not unpacked too."""
    most_bytes = max(limits.least_bytes, limits.ratio * archive.stat().st_size)
    chosen: dict[str, _Member] = {}
    count = total = 0
    for member in members:
        count += 1
        total += member.size_bytes
        fault = member.fault or _path_fault(member)
        if fault:
            raise InputError(f"{archive}: {member.name[:200]!r} is {fault}; nothing is unpacked")
        if count > limits.members or total > most_bytes:
            raise InputError(
                f"{archive}: holds more than {limits.members:,} files or {most_bytes:,} bytes; "
                "nothing is unpacked"
            )
        if member.folder or not _asked(member.name, only):
            continue
        if chosen.setdefault(_plain(member.name), member) is not member:
            raise InputError(
                f"{archive}: {member.name[:200]!r} is there twice; nothing is unpacked"
            )
    if not chosen:
        raise InputError(f"{archive}: holds no {' or '.join(only) or 'file'}; get it again")
    return list(chosen.values())


def _path_fault(member: _Member) -> str:
    name = member.name
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path that leads out of the folder"
    if "\\" in name or "\0" in name or not (member.folder or _plain(name)):
        return "not a path"
    return ""


def _plain(name: str) -> str:
    """The name without `./` and double slashes."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _asked(name: str, only: Sequence[str]) -> bool:
    """Whether a member is wanted; what macOS adds to its archives never is."""
    path = PurePosixPath(name)
    if "__MACOSX" in path.parts or path.name == ".DS_Store":
        return False
    return not only or any(fnmatch.fnmatchcase(_plain(name), pattern) for pattern in only)


def _write(
    archive: Path, opened: _Opened, chosen: Sequence[_Member], folder: Path, watcher: Watcher
) -> None:
    total, done = sum(member.size_bytes for member in chosen), 0
    made: set[Path] = set()
    for member in chosen:
        path = folder / _plain(member.name)
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        with opened.content(member.entry) as source, path.open("xb") as file:
            while block := source.read(_BLOCK_BYTES):
                file.write(block)
                done += len(block)
                watcher.fetching(f"unpacking {archive.name}", done, total)
        if path.stat().st_size != member.size_bytes:
            raise InputError(f"{archive}: {member.name[:200]!r} is cut off; get it again")


def _move_in(source: Path, target: Path) -> None:
    """Move what is in one folder into another."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if not os.path.lexists(place):
            os.rename(entry, place)
        elif entry.is_dir() and place.is_dir():
            _move_in(entry, place)
