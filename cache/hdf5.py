"""Guarded reading of HDF5: contiguous datasets of the file itself, nothing that leads elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from .errors import ShardError
from .files import sync

GROWTH_BYTES = 16 * 2**20
"""By how much the memory of a file that is being made grows at a time."""
ALIGNMENT_BYTES = 64
"""Datasets begin at multiples of this, so that a mapped array is aligned."""


def write_hdf5(path: Path, fill: Callable[[h5py.File], None]) -> str:
    """Make an HDF5 file in memory, write it in one piece and sync it.

    HDF5 itself does not bear a full disk: it fails late, more than once, and keeps the file open.

    Args:
        path: Where it goes; the caller renames.
        fill: Puts groups, datasets and attributes into the open file.

    Returns:
        SHA-256 of the file's bytes, taken while the disk is at work.

    Raises:
        OSError: If it cannot be written, a full disk included.
    """
    with h5py.File(
        path.name,
        "w",
        driver="core",
        backing_store=False,
        block_size=GROWTH_BYTES,
        libver="earliest",
        alignment_threshold=ALIGNMENT_BYTES,
        alignment_interval=ALIGNMENT_BYTES,
    ) as file:
        fill(file)
        file.flush()
        image = file.id.get_file_image()
    with ThreadPoolExecutor(1, "digest") as thread:
        digest = thread.submit(hashlib.sha256, image)
        path.write_bytes(image)
        sync(path)
        return digest.result().hexdigest()


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, read-only and without file locks (works on NFS and read-only disks).

    Raises:
        ShardError: If the file is missing, no HDF5 file, or breaks while it is read.
    """
    if not path.is_file():
        raise ShardError(f"{path}: no such file")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip("'\"").splitlines()[0]
        raise ShardError(f"{path}: damaged, or no HDF5 file ({reason})") from error


def plain_dataset(group: h5py.Group, name: str, dtype: str, axes: int) -> h5py.Dataset:
    """The dataset `name`, after checking that it is what the format says.

    Args:
        group: Where the dataset lies.
        name: Its name, without a path.
        dtype: NumPy name of the element type that is expected.
        axes: Number of axes that is expected.

    Raises:
        ShardError: If it is missing, a link, stored outside the file, chunked, compressed,
            of another type, or larger than the file that holds it.
    """
    where = f"{group.file.filename}: {group.name.rstrip('/')}/{name}"
    link = group.get(name, getlink=True)
    if link is None:
        raise ShardError(f"{where} is missing")
    if not isinstance(link, h5py.HardLink):
        raise ShardError(f"{where} is a link; the cache holds no links")
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ShardError(f"{where} is a group where a dataset is expected")
    if dataset.is_virtual or dataset.external or dataset.chunks is not None:
        raise ShardError(f"{where} is not stored contiguously in its own file")
    if dataset.dtype != np.dtype(dtype) or dataset.ndim != axes:
        raise ShardError(
            f"{where}: expected {dtype} with {axes} axes, got {dataset.dtype} {dataset.shape}"
        )
    offset = dataset.id.get_offset()
    size_bytes = Path(group.file.filename).stat().st_size
    if dataset.size and (offset is None or offset + dataset.nbytes > size_bytes):
        raise ShardError(f"{where}: declares {dataset.nbytes} bytes, the file ends before")
    return dataset


def plain_group(group: h5py.Group, name: str) -> h5py.Group:
    """The group `name`, which must lie in the same file.

    Raises:
        ShardError: If it is missing or a link.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ShardError(f"{group.file.filename}: group {name!r} is missing, or a link")
    child = group[name]
    if not isinstance(child, h5py.Group):
        raise ShardError(f"{group.file.filename}: {name!r} is not a group")
    return child


def write_strings(group: h5py.Group, name: str, values: list[str]) -> None:
    """Store strings as group `name`: `utf8` (bytes in a row) and `offsets` (n + 1, int64)."""
    encoded = [value.encode("utf-8") for value in values]
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    strings = group.create_group(name)
    strings.create_dataset("utf8", data=np.frombuffer(b"".join(encoded), np.uint8))
    strings.create_dataset("offsets", data=offsets)


def read_strings(group: h5py.Group, name: str) -> list[str]:
    """The strings of group `name`.

    Raises:
        ShardError: If offsets are out of order or the bytes are not UTF-8.
    """
    strings = plain_group(group, name)
    utf8 = plain_dataset(strings, "utf8", "uint8", 1)[()].tobytes()
    offsets = plain_dataset(strings, "offsets", "int64", 1)[()]
    check_offsets(offsets, len(utf8), f"{group.file.filename}: {name}")
    try:
        return [
            utf8[start:end].decode("utf-8")
            for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        ]
    except UnicodeDecodeError as error:
        raise ShardError(f"{group.file.filename}: {name} is not UTF-8 ({error})") from error


def check_offsets(offsets: np.ndarray, total: int, where: str) -> None:
    """Refuse offsets that do not rise from 0 to `total`.

    Raises:
        ShardError: As said.
    """
    rising = len(offsets) > 0 and offsets[0] == 0 and bool(np.all(np.diff(offsets) >= 0))
    if not rising or offsets[-1] != total:
        raise ShardError(f"{where}: offsets do not rise from 0 to {total}")
