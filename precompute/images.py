"""Where an image comes from, and how it is opened: a file, a member of an archive, or pixels."""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps

from ..cache.errors import InputError

PIXEL_LIMIT = 64_000_000
"""Images of more pixels are refused undecoded (decompression bombs)."""
MEMBER_LIMIT = 256 * 1024**2
"""Bytes of an archive's image; a larger one is refused unread (decompression bombs)."""
IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
"""File name endings, lower case, that class folders and listings take for images."""


class ImageSource(Protocol):
    """One image, not yet opened. Sources can be pickled."""

    @property
    def name(self) -> str:
        """What people call it: a path relative to the data set's root."""
        ...

    def stat(self) -> tuple[int, int] | None:
        """Size in bytes and modification time in ns of the file behind it; None without one."""
        ...

    def digest(self) -> bytes:
        """SHA-256 of the content, 32 bytes. OSError if it cannot be read."""
        ...

    def open(self) -> Image.Image:
        """The decoded picture, RGB. InputError if it cannot be."""
        ...


@dataclass(frozen=True)
class ImageFile:
    """An image file in a folder."""

    root: Path
    name: str
    """Path below `root`, with forward slashes."""

    def stat(self) -> tuple[int, int] | None:
        """See ImageSource."""
        found = (self.root / self.name).stat()
        return found.st_size, found.st_mtime_ns

    def digest(self) -> bytes:
        """See ImageSource."""
        return hashlib.sha256((self.root / self.name).read_bytes()).digest()

    def open(self) -> Image.Image:
        """See ImageSource."""
        try:
            return decode(io.BytesIO((self.root / self.name).read_bytes()))
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror or error}") from error


ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises, besides OSError, over a damaged, encrypted or unknown archive."""


@dataclass(frozen=True)
class ZipMember:
    """An image inside a zip archive, read in place."""

    archive: Path
    name: str
    """Name of the member."""

    def stat(self) -> tuple[int, int] | None:
        """See ImageSource."""
        return None

    def _content(self) -> bytes:
        found = self.archive.stat()
        try:
            archive = _opened(self.archive, found.st_mtime_ns, found.st_size, os.getpid())
            info = archive.getinfo(self.name)
            if info.file_size > MEMBER_LIMIT:
                raise OSError(f"{info.file_size} bytes are over the limit")
            return archive.read(info)
        except ZIP_ERRORS as error:
            raise OSError(f"cannot be read from {self.archive.name} ({error})") from error

    def digest(self) -> bytes:
        """See ImageSource."""
        return hashlib.sha256(self._content()).digest()

    def open(self) -> Image.Image:
        """See ImageSource."""
        try:
            return decode(io.BytesIO(self._content()))
        except OSError as error:
            raise InputError(f"{self.name}: {error}") from error


@lru_cache(maxsize=2)
def _opened(path: Path, _time: int, _size: int, _process: int) -> zipfile.ZipFile:
    """An archive, opened once a process: the contents of a large one take a second to read.

    Threads may share it; processes may not, for they would share the position in the file.
    """
    return zipfile.ZipFile(path)


@dataclass(frozen=True, eq=False)
class Pixels:
    """An image that its data set stores as raw pixels."""

    name: str
    array: np.ndarray
    """(H, W, 3) uint8, RGB."""

    def stat(self) -> tuple[int, int] | None:
        """See ImageSource."""
        return None

    def digest(self) -> bytes:
        """See ImageSource."""
        return hashlib.sha256(np.ascontiguousarray(self.array).tobytes()).digest()

    def open(self) -> Image.Image:
        """See ImageSource."""
        return Image.fromarray(self.array, "RGB")


def decode(content: io.BytesIO) -> Image.Image:
    """The picture in some bytes, RGB, turned upright as its EXIF orientation says.

    Raises:
        InputError: If the bytes are no image, a damaged one, or one of absurd size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(content) as image:
                if image.width * image.height > PIXEL_LIMIT:
                    raise InputError(f"{image.width} x {image.height} pixels are over the limit")
                return ImageOps.exif_transpose(image).convert("RGB")
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"not a readable image ({error})") from error


def safe_tar_members(path: Path) -> tarfile.TarFile:
    """A tar archive opened for reading members in memory; nothing is ever extracted to disk.

    Raises:
        InputError: If the archive is damaged.
    """
    try:
        return tarfile.open(path, "r:*")
    except (OSError, tarfile.TarError) as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # more lines say so of each compression
        raise InputError(f"{path}: not a readable tar archive ({reason})") from error
