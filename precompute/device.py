"""Where an encoder runs, and in what arithmetic."""

from __future__ import annotations

import os

import torch

from ..cache.errors import InputError


def choose_device(wanted: str) -> torch.device:
    """The device of that name; `auto`: a GPU if there is one, else the CPU.

    Of several processes that torchrun or `accelerate launch` started, each takes the GPU of its
    `LOCAL_RANK`. A GPU with a number becomes the current one, so that nothing is taken of another.

    Raises:
        InputError: If there is no such device.
    """
    if wanted != "auto":
        try:
            device = torch.device(wanted)
        except RuntimeError as error:
            raise InputError(f"--device {wanted!r} is unknown; try auto, cpu or cuda") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"--device {wanted}: no CUDA device is to be seen; use --device cpu")
        return _current(_of_this_process() if wanted == "cuda" else device)
    if torch.cuda.is_available():
        return _current(_of_this_process())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _of_this_process() -> torch.device:
    local = os.environ.get("LOCAL_RANK")
    if local is None:
        return torch.device("cuda")
    return torch.device("cuda", int(local) % torch.cuda.device_count())


def _current(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def choose_precision(wanted: str, device: torch.device) -> str:
    """The arithmetic of that name; `auto`: float16 where a GPU is fast in it, else float32.

    Not bfloat16, whose 8 bits are further from float32, and so from a CPU's numbers.
    """
    if wanted != "auto":
        return wanted
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return "float16" if fast else "float32"


def processes_here() -> int:
    """How many processes torchrun or `accelerate launch` started on this machine, at least 1."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
