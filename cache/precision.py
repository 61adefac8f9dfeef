"""Numbers as they are stored: float32, float16, and bfloat16 held in uint16 (HDF5 has none)."""

from __future__ import annotations

import numpy as np

from .errors import ShardError

STORED = {"float16": "float16", "bfloat16": "uint16", "float32": "float32"}
"""dtype of a stream -> NumPy dtype of its datasets."""
INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}
"""Bits of infinity; NaN lies above."""
BLOCK = 2**15
"""Numbers that are rounded and checked at once, while they lie in the processor's cache. So few are
left to one thread by torch: the others are the encoder's."""


def to_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 to what a stream of `dtype` stores.

    Raises:
        ShardError: If a value is not finite, or overflows float16 (above 65504) or bfloat16.
    """
    wide = np.require(array, np.float32, ["C", "W"]).reshape(-1)
    stored = np.empty(wide.shape, STORED[dtype])
    for start in range(0, len(wide), BLOCK):
        piece, out = wide[start : start + BLOCK], stored[start : start + BLOCK]
        if not _round(piece, out, dtype):
            if np.isfinite(piece).all():
                raise ShardError(
                    f"a value of {np.abs(piece).max():.6g} does not fit {dtype}; "
                    f"choose {'--dtype bfloat16 or ' if dtype == 'float16' else ''}--dtype float32"
                )
            raise ShardError("the encoder gave values that are not finite (NaN or Inf)")
    return stored.reshape(array.shape)


def _round(wide: np.ndarray, out: np.ndarray, dtype: str) -> bool:
    """Round one block to nearest, ties to even; whether all that came out is finite."""
    if dtype == "float32":
        out[:] = wide
        return bool(np.isfinite(out).all())
    import torch  # rounds as NumPy does, and many times as fast

    bits = out.view(np.int16)
    torch.from_numpy(bits).view(getattr(torch, dtype)).copy_(torch.from_numpy(wide))
    return not len(bits) or bool((bits & 0x7FFF).max() < INFINITE[dtype])


def to_float32(array: np.ndarray, dtype: str) -> np.ndarray:
    """Widen stored numbers to float32, exactly.

    Args:
        array: As it lies in a stream.
        dtype: The stream's dtype: `float16`, `bfloat16` or `float32`.
    """
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32)
