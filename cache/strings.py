"""Strings in an HDF5 file: their UTF-8 in a row, and where each begins."""

from __future__ import annotations

import codecs
import mmap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import overload

import h5py
import numpy as np

from .errors import ShardError
from .hdf5 import check_offsets, map_array, plain_dataset, plain_group

STRINGS_AT_ONCE = 4096
"""That are read together."""
BYTES_AT_ONCE = 2**20
"""That are looked at together."""


class Strings(Sequence[str]):
    """Strings as a file has them, in a row: each is read when it is asked for."""

    def __init__(self, utf8: np.ndarray, offsets: np.ndarray) -> None:
        """Of bytes, (any,) uint8, and where each string begins and ends, (n + 1,) int64."""
        self._utf8, self._offsets = utf8, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        place = range(len(self))[at]  # negative ones, and IndexError
        return self._utf8[self._offsets[place] : self._offsets[place + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (encoded.decode() for encoded in self.encoded())

    def encoded(self) -> Iterator[bytes]:
        """Each string as UTF-8; some of them are read at once."""
        for start in range(0, len(self), STRINGS_AT_ONCE):
            edges = self._offsets[start : start + STRINGS_AT_ONCE + 1].tolist()
            piece = self._utf8[edges[0] : edges[-1]].tobytes()
            for begin, end in pairwise(edges):
                yield piece[begin - edges[0] : end - edges[0]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def check(self, where: str) -> None:
        """Refuse offsets that are out of order and bytes that are no UTF-8.

        Raises:
            ShardError: As said.
        """
        check_offsets(self._offsets, len(self._utf8), where)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for start in range(0, len(self._utf8), BYTES_AT_ONCE):
                decoder.decode(self._utf8[start : start + BYTES_AT_ONCE].tobytes())
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise ShardError(f"{where} is not UTF-8 ({error})") from error
        inner = self._offsets[self._offsets < len(self._utf8)]
        if (self._utf8[inner] & 0xC0 == 0x80).any():
            raise ShardError(f"{where} is not UTF-8 (a string begins within a character)")


def encoded(strings: Sequence[str]) -> Iterator[bytes]:
    """Each of some strings as UTF-8."""
    if isinstance(strings, Strings):
        return strings.encoded()
    return (string.encode() for string in strings)


def write_strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """Store strings as group `name`: `utf8` (bytes in a row) and `offsets` (n + 1, int64)."""
    parts = list(encoded(values))
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    strings = group.create_group(name)
    strings.create_dataset("utf8", data=np.frombuffer(b"".join(parts), np.uint8))
    strings.create_dataset("offsets", data=offsets)


def read_strings(group: h5py.Group, name: str) -> list[str]:
    """The strings of group `name`.

    Raises:
        ShardError: If offsets are out of order or the bytes are not UTF-8.
    """
    return list(_strings(group, name, lambda dataset: dataset[()]))


def map_strings(group: h5py.Group, name: str, whole: mmap.mmap) -> Strings:
    """The strings of group `name`, left in the file.

    Args:
        group: Where they lie.
        name: Of their group in it.
        whole: The mapped file.

    Raises:
        ShardError: If offsets are out of order or the bytes are not UTF-8.
    """
    return _strings(group, name, partial(map_array, whole))


def _strings(group: h5py.Group, name: str, read: Callable[[h5py.Dataset], np.ndarray]) -> Strings:
    strings = plain_group(group, name)
    utf8, offsets = (
        read(plain_dataset(strings, part, dtype, 1))
        for part, dtype in (("utf8", "uint8"), ("offsets", "int64"))
    )
    found = Strings(utf8, offsets)
    found.check(f"{group.file.filename}: {name}")
    return found
