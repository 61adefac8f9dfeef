"""HDF5 files as the cache has them: contiguous datasets of the file itself, sealed by a digest.

Writing is in one pass, reading is guarded: nothing that leads elsewhere is followed.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import CacheError, ShardError

SEAL = b"cbmf-sha256:"
"""Behind the last byte of HDF5: this, the SHA-256 of all before it, a newline. HDF5 ignores it."""
SEAL_BYTES = len(SEAL) + 65
ATTRIBUTE_BYTES = 2**16
"""Of an attribute at most."""
READ_BYTES = 2**20
"""Digested at a time."""
DAMAGE = (
    OSError,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    MemoryError,
    ArithmeticError,
)
"""What h5py raises over files that are not as they should be."""
ALIGNMENT_BYTES = 64
"""Datasets begin at multiples of this, so that a mapped array is aligned."""


class _Sketch(io.RawIOBase):
    """What HDF5 itself writes of a file: a few kilobytes, wherever they lie. Not the bulk."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self.size = self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self.pieces[self._at] = piece
        self._at += len(piece)
        self.size = max(self.size, self._at)
        return len(piece)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def readinto(self, into: Any) -> int:
        """HDF5 reads nothing back but what it wrote, in the pieces in which it did."""
        view = memoryview(into).cast("B")
        piece = self.pieces.get(self._at, b"")[: len(view)]
        view[: len(piece)] = piece
        self._at += len(view)
        return len(view)


def write_hdf5(
    path: Path, fill: Callable[[h5py.File], None], bulk: Mapping[str, np.ndarray] | None = None
) -> str:
    """Make an HDF5 file, write it in one pass, sync it and seal it; the seal is not synced yet.

    HDF5 itself does not bear a full disk: it fails late, more than once, and keeps the file open.
    So it only says where everything goes; `bulk` goes to the disk from where it lies in memory.

    Args:
        path: Where it goes; the caller renames.
        fill: Puts groups, datasets and attributes into the open file.
        bulk: Arrays that become datasets of the root, by name.

    Returns:
        SHA-256 of the file's bytes, seal included, taken while the disk is at work.

    Raises:
        OSError: If it cannot be written, a full disk included.
    """
    sketch = _Sketch()
    bulk = {name: np.ascontiguousarray(array) for name, array in (bulk or {}).items()}
    with h5py.File(
        sketch,
        "w",
        libver="earliest",
        alignment_threshold=ALIGNMENT_BYTES,
        alignment_interval=ALIGNMENT_BYTES,
    ) as file:
        fill(file)
        places = {_reserve(file, name, array): array for name, array in bulk.items() if array.size}
        for name, array in bulk.items():
            if not array.size:
                file.create_dataset(name, data=array)
    segments = list(_segments(sketch, places))
    with ThreadPoolExecutor(1, "digest") as thread, path.open("wb") as out:
        digest = thread.submit(_digest, segments)
        for segment in segments:
            out.write(segment)
        out.flush()
        os.fsync(out.fileno())
        whole = digest.result()
        seal = SEAL + whole.hexdigest().encode() + b"\n"
        out.write(seal)
        whole.update(seal)
        return whole.hexdigest()


def check_seal(path: Path) -> str:
    """SHA-256 of a file that `write_hdf5` wrote, seal included.

    Raises:
        ShardError: If the file is missing, cut, or not what was written.
    """
    try:
        with path.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - SEAL_BYTES
            whole = hashlib.sha256()
            while left > 0:
                piece = file.read(min(READ_BYTES, left))
                if not piece:
                    break
                whole.update(piece)
                left -= len(piece)
            seal = file.read()
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
    if seal != SEAL + whole.hexdigest().encode() + b"\n":
        raise ShardError(f"{path}: damaged, its seal does not fit its contents")
    whole.update(seal)
    return whole.hexdigest()


def _reserve(file: h5py.File, name: str, array: np.ndarray) -> int:
    """A contiguous dataset without its numbers; where in the file they belong."""
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)  # the same contents, the same bytes
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    space = h5py.h5s.create_simple(array.shape)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, how)
    return int(dataset.get_offset())


def _segments(sketch: _Sketch, places: Mapping[int, np.ndarray]) -> Iterator[memoryview]:
    """All bytes of the file, from first to last."""
    views = {at: memoryview(piece) for at, piece in sketch.pieces.items()}
    views.update({at: array.data.cast("B") for at, array in places.items()})
    end = 0
    for at in sorted(views):
        if at < end:
            raise ShardError(f"HDF5 put two things at byte {at}")
        if at > end:
            yield memoryview(bytes(at - end))
        yield views[at]
        end = at + len(views[at])
    if end < sketch.size:
        yield memoryview(bytes(sketch.size - end))


def _digest(segments: list[memoryview]) -> hashlib._Hash:
    whole = hashlib.sha256()
    for segment in segments:
        whole.update(segment)
    return whole


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
    except CacheError:
        raise
    except DAMAGE as error:
        reason = (str(error).strip("'\"").splitlines() or [type(error).__name__])[0]
        raise ShardError(f"{path}: damaged, or no HDF5 file ({reason})") from error


def write_attributes(owner: h5py.Group, **values: str | int) -> None:
    """Set attributes; strings as bytes of a fixed length, which lie in the file's own tables."""
    for name, value in values.items():
        owner.attrs[name] = np.bytes_(value.encode()) if isinstance(value, str) else value


def attribute(owner: h5py.Group, name: str) -> Any:
    """The value of an attribute, which is one number or one string; None without it.

    Raises:
        ShardError: If it is more than that, or a string of variable length: over a forged one HDF5
            may read for ever.
    """
    if name not in owner.attrs:
        return None
    found = owner.attrs.get_id(name)
    single = found.shape == () and found.dtype.kind in "iuS"
    if not single or found.dtype.itemsize > ATTRIBUTE_BYTES:
        raise ShardError(f"{owner.file.filename}: attribute {name!r} is not a single value")
    value = owner.attrs[name]
    return value.decode() if isinstance(value, bytes) else int(value)


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


def map_file(path: Path) -> mmap.mmap:
    """A file in the address space, to be read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def map_array(whole: mmap.mmap, dataset: h5py.Dataset) -> np.ndarray:
    """A dataset that `plain_dataset` has looked at, left in the mapped file; read-only."""
    if dataset.size == 0:
        return np.empty(dataset.shape, dataset.dtype)
    start = dataset.id.get_offset()
    flat = np.frombuffer(whole, dataset.dtype, count=dataset.size, offset=start)
    return flat.reshape(dataset.shape)


def let_go(whole: mmap.mmap) -> None:
    """Give back the memory that a mapped file has come to take; it is read again if need be."""
    if hasattr(mmap, "MADV_DONTNEED"):
        whole.madvise(mmap.MADV_DONTNEED)


def check_offsets(offsets: np.ndarray, total: int, where: str) -> None:
    """Refuse offsets that do not rise from 0 to `total`.

    Raises:
        ShardError: As said.
    """
    rising = len(offsets) > 0 and offsets[0] == 0 and bool(np.all(np.diff(offsets) >= 0))
    if not rising or offsets[-1] != total:
        raise ShardError(f"{where}: offsets do not rise from 0 to {total}")
