"""Proving a run folder: every file that is read again against its own seal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..cache.errors import CbmfError, RunError
from ..cache.files import read_json
from ..cache.upkeep import Finding
from .checkpoint import CHECKPOINT_NAME
from .history import HISTORY_NAME, SUMMARY_NAME, read_history
from .weights import read_tensors


def verify_run(folder: Path) -> list[Finding]:
    """What is wrong in a run folder, the models fitted beside and kept results included.

    Figures and Markdown are not looked at: they are made from what is.

    Raises:
        RunError: If there is no such folder.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    return [finding for path in sorted(folder.rglob("*")) for finding in _check(path)]


def _check(path: Path) -> Iterator[Finding]:
    kinds: dict[str, Callable[[Path], Any]] = {".json": read_json, ".safetensors": read_tensors}
    check = _check_history if path.name == HISTORY_NAME else kinds.get(path.suffix)
    if check is None:
        return
    try:
        check(path)
    except (CbmfError, OSError) as error:
        yield Finding(path, str(error))


def _check_history(path: Path) -> None:
    """Against the summary that ends it, or, of an unfinished fit, its checkpoint."""
    lines = read_history(path.parent)
    checkpoint = path.with_name(CHECKPOINT_NAME)
    if path.with_name(SUMMARY_NAME).exists() or not checkpoint.exists():
        return
    known = read_tensors(checkpoint)[1]["history"]
    count = min(len(lines), len(known))  # a kill may have left a line too many
    if json.dumps(lines[:count]) != json.dumps(known[:count]):
        raise RunError(f"{path}: damaged, it is not the one in the checkpoint")
