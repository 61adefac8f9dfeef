"""The state of an unfinished fit: one safetensors file, its plain values as JSON in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..cache.errors import RunError
from .weights import read_tensors, write_tensors

CHECKPOINT_NAME = "checkpoint.safetensors"
CHECKPOINT_VERSION = 1


def write_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write the checkpoint: the old one stays until the new one is whole.

    Args:
        path: Where.
        modules: By name; everything in their state_dict is kept.
        optimizer: Its moments are kept; rates and decays follow from the configuration.
        state: JSON values.
    """
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            tensors[f"{name}.{key}"] = value
    for index, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            tensors[f"optimizer.{index}.{key}"] = value
    write_tensors(path, tensors, {"version": CHECKPOINT_VERSION, **state})


def read_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore modules and optimizer in place; the JSON values come back.

    Raises:
        RunError: If the file is damaged, of another version, or of another model.
    """
    try:
        tensors, state = read_tensors(path)
        if state["version"] != CHECKPOINT_VERSION:
            raise RunError(f"{path}: version {state['version']}, expected {CHECKPOINT_VERSION}")
        for name, module in modules.items():
            module.load_state_dict(_under(tensors, name))
        kept: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(tensors, "optimizer").items():
            index, moment = key.split(".", 1)
            kept.setdefault(int(index), {})[moment] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": kept, "param_groups": groups})
    except RunError as error:
        raise RunError(f"{error}; remove this file to fit from the start again") from error
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"{path}: not of this fit ({reason}); remove this file to fit from the start again"
        ) from error
    return state


def _under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    head = f"{name}."
    return {key.removeprefix(head): t for key, t in tensors.items() if key.startswith(head)}
