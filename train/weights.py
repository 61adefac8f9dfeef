"""Tensors in a safetensors file, sealed: its header holds a digest of all that the file says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..cache.errors import RunError
from ..cache.files import new_file, value_digest

HEADER = "cbmf"
"""Key of the file's metadata under which state and seal stand, as one JSON object."""


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any] | None = None
) -> None:
    """Write tensors, and JSON values beside them, atomically.

    Raises:
        DiskFullError: If the disk is full; the old file stays.
    """
    whole = {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
    kept = json.loads(json.dumps(state or {}))
    header = json.dumps({"state": kept, "sha256": tensors_digest(whole, kept)})
    with new_file(path) as part:
        part.write_bytes(save(whole, metadata={HEADER: header}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file that `write_tensors` wrote, on the CPU, and the JSON values.

    Raises:
        RunError: If the file cannot be read, or is not what was written.
    """
    try:
        content = path.read_bytes()
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        written = content[8 : 8 + length]
        kept = json.loads(json.loads(written)["__metadata__"][HEADER])
        state, seal = kept["state"], kept["sha256"]
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{path}: damaged, or not written by cbmf ({reason})") from error
    padded = written.rstrip(b" ").endswith(b"}")
    if not padded or seal != tensors_digest(tensors, state):
        raise RunError(f"{path}: damaged, its seal does not fit its contents")
    return tensors, state


def tensors_digest(tensors: Mapping[str, Tensor], state: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over names, types, shapes and numbers, and the JSON values beside them."""
    whole = hashlib.sha256(value_digest(state or {}).encode())
    for name, value in sorted(tensors.items()):
        plain = value.detach().cpu().contiguous()
        whole.update(f"{name} {tuple(plain.shape)} {plain.dtype}\n".encode())
        whole.update(plain.flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()
