"""What files there are: one listing of a folder or an archive, never a look-up per file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ...cache.errors import InputError
from ..images import ZIP_ERRORS, ImageFile, ImageSource, ZipMember

DEPTH = 5
"""Levels of folders that a tree is read to; it also ends loops of links."""
TEXT_LIMIT = 256 * 1024**2
"""Bytes of an archive's text member; a larger one is refused (a decompression bomb)."""


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder, and of the links in it.

    Raises:
        InputError: If the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return {e.name for e in entries if e.is_symlink() or e.is_file()}
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error


def first_folder(home: Path, names: Sequence[str]) -> Path | None:
    """The first of the folders of these names in `home`, or None."""
    return next((home / name for name in names if (home / name).is_dir()), None)


def first_file(home: Path, names: Sequence[str]) -> Path | None:
    """The first of the files of these names in `home`, or None."""
    return next((home / name for name in names if (home / name).is_file()), None)


class Tree(Protocol):
    """Files under one root, in a folder or in an archive."""

    @property
    def root(self) -> Path:
        """The folder or the archive."""
        ...

    def names(self) -> list[str]:
        """Paths of all files below the root, with forward slashes, sorted, none hidden."""
        ...

    def read(self, name: str) -> bytes:
        """The content of one file. InputError if it cannot be read."""
        ...

    def image(self, name: str) -> ImageSource:
        """One file as an image, not opened."""
        ...


@dataclass(frozen=True)
class FolderTree:
    """Files in a folder and the folders below it."""

    root: Path

    def names(self) -> list[str]:
        """See Tree."""
        return sorted(_walk(self.root, "", DEPTH))

    def read(self, name: str) -> bytes:
        """See Tree."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise InputError(f"{self.root / name}: {error.strerror or error}") from error

    def image(self, name: str) -> ImageSource:
        """See Tree."""
        return ImageFile(self.root, name)


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = [e for e in entries if not e.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error
    for entry in found:
        if not entry.is_dir():
            yield prefix + entry.name
        elif depth > 1:
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", depth - 1)


@dataclass(frozen=True)
class ZipTree:
    """Files in a zip archive, below one of its folders; read in place."""

    root: Path
    members: tuple[str, ...]
    """Full names of the files below `prefix`."""
    prefix: str = ""
    """The folder in the archive, with its slash; empty for the whole."""

    def names(self) -> list[str]:
        """See Tree."""
        return sorted(member[len(self.prefix) :] for member in self.members)

    def read(self, name: str) -> bytes:
        """See Tree."""
        try:
            with zipfile.ZipFile(self.root) as archive:
                info = archive.getinfo(self.prefix + name)
                if info.file_size > TEXT_LIMIT:
                    raise InputError(f"{self.root}: {name} is over {TEXT_LIMIT} bytes")
                return archive.read(info)
        except InputError:
            raise
        except (OSError, *ZIP_ERRORS) as error:
            raise InputError(f"{self.root}: {name} cannot be read ({error})") from error

    def image(self, name: str) -> ImageSource:
        """See Tree."""
        return ZipMember(self.root, self.prefix + name)


def zip_tree(path: Path, landmark: str) -> ZipTree | None:
    """The folder of a zip archive that holds the file `landmark`; None if none does.

    Raises:
        InputError: If the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename for info in archive.infolist() if not info.is_dir()}
    except (OSError, *ZIP_ERRORS) as error:
        raise InputError(f"{path}: not a readable zip archive ({error}); get it again") from error
    found = [n for n in names if n == landmark or n.endswith("/" + landmark)]
    if not found:
        return None
    prefix = min(found, key=lambda n: (n.count("/"), n))[: -len(landmark)]
    inside = (n for n in names if n.startswith(prefix) and not _hidden(n[len(prefix) :]))
    return ZipTree(path, tuple(sorted(inside)), prefix)


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
