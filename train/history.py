"""history.jsonl: a line for each epoch of a fit. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path

from ..cache.errors import RunError

HISTORY_NAME = "history.jsonl"


def read_history(folder: Path) -> list[dict[str, float]]:
    """The lines of history.jsonl in a run folder, an epoch each.

    Raises:
        RunError: If it is missing or damaged.
    """
    path = folder / HISTORY_NAME
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: missing or damaged ({error})") from error
