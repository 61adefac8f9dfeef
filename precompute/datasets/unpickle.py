"""Reading CIFAR's pickles without running them.

A pickle may name any function of any module and have it called. Here only the names with which
numpy writes an array are allowed, and even they are answered by stand-ins that only hold values.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from ...cache.errors import InputError

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_DAMAGED = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    ImportError,
    MemoryError,
    OverflowError,
    RecursionError,
)


class _Dtype:
    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: nothing that single bytes need."""


class _Array:
    def __init__(self) -> None:
        self.content: object = None
        self.dtype: object = None
        self.shape: object = None
        self.column_major: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.column_major, self.content = state


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(
    content: object, dtype: object, shape: object, order: object, *_: object
) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order in ("F", b"F"), content))
    return array


def _latin1(text: str, encoding: object = "latin1") -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError(f"bytes written in the encoding {encoding!r}")
    return text.encode("latin1")


def _ndarray(*_: object) -> None:
    raise pickle.UnpicklingError("an array is called, not rebuilt")


class _NameError(Exception):
    """The pickle names something that is not allowed."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Callable[..., Any]:
        """The stand-in of an allowed name."""
        if module_name in _ARRAY_MODULES and global_name == "_reconstruct":
            return _reconstruct
        if module_name in _NUMERIC_MODULES and global_name == "_frombuffer":
            return _from_buffer
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): _ndarray,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (module_name, global_name) not in allowed:
            raise _NameError(f"{module_name}.{global_name}")
        return allowed[module_name, global_name]


def load_plain(content: bytes, where: str) -> dict[str, Any]:
    """The dict of a CIFAR pickle, Python 2's or Python 3's: str keys, uint8 arrays, plain values.

    Args:
        content: The pickle.
        where: Its file, for error lines.

    Raises:
        InputError: If it names anything but numpy's arrays, or is damaged, or is no such dict.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except _NameError as error:
        raise InputError(f"{where}: not a CIFAR batch (pickle names {_brief(error)})") from None
    except _DAMAGED as error:
        raise InputError(f"{where}: not a CIFAR batch ({_brief(error)})") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{where}: not a CIFAR batch (holds {type(loaded).__name__}, not a dict)")
    return {_text(key): _plain(value, where) for key, value in loaded.items()}


def _brief(error: BaseException) -> str:
    """What it says, as one line that a terminal can show."""
    said = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(said.split())[:120] or type(error).__name__


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: object, where: str) -> object:
    if isinstance(value, list):
        return [_text(v) if isinstance(v, bytes) else v for v in value]
    return _pixels(value, where) if isinstance(value, _Array) else value


def _pixels(array: _Array, where: str) -> np.ndarray:
    """The array in it: uint8, any shape."""
    code = array.dtype.code if isinstance(array.dtype, _Dtype) else None
    content, shape = array.content, array.shape
    if code not in ("u1", "|u1", "uint8", "B") or not isinstance(content, bytes | bytearray):
        raise InputError(f"{where}: not a CIFAR batch (an array of {code!r}, expected uint8)")
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not isinstance(shape, tuple) or not whole or math.prod(shape) != len(content):
        raise InputError(f"{where}: not a CIFAR batch (shape {shape!r}, {len(content)} bytes)")
    return np.ndarray(shape, np.uint8, content, order="F" if array.column_major else "C")
