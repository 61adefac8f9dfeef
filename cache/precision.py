"""Numbers as they are stored: float32, float16, and bfloat16 held in uint16 (HDF5 has none)."""

from __future__ import annotations

import numpy as np

from .errors import ShardError

STORED = {"float16": "float16", "bfloat16": "uint16", "float32": "float32"}
"""dtype of a stream -> NumPy dtype of its datasets."""


def to_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 to what a stream of `dtype` stores.

    Raises:
        ShardError: If a value is not finite, or overflows float16 (above 65504).
    """
    if not np.isfinite(array).all():
        raise ShardError("the encoder gave values that are not finite (NaN or Inf)")
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        even = (bits >> np.uint32(16)) & np.uint32(1)
        return ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype(np.uint16)
    with np.errstate(over="ignore"):
        stored = array.astype(STORED[dtype])
    if dtype == "float16" and not np.isfinite(stored).all():
        raise ShardError(
            f"a value of {np.abs(array).max():.0f} does not fit float16; "
            "choose --dtype bfloat16 or --dtype float32"
        )
    return stored


def to_float32(array: np.ndarray, dtype: str) -> np.ndarray:
    """Widen stored numbers to float32, exactly.

    Args:
        array: As it lies in a stream.
        dtype: The stream's dtype: `float16`, `bfloat16` or `float32`.
    """
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)
