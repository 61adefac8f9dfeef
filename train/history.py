"""history.jsonl, a line for each epoch of a fit, and summary.json, which ends it. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.errors import CacheError, RunError
from ..cache.files import file_digest, new_file, read_json, write_json

HISTORY_NAME = "history.jsonl"
SUMMARY_NAME = "summary.json"
SEAL = "history_sha256"
"""Key of the summary: the digest of the history that it ends."""


def write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write history.jsonl anew, atomically."""
    with new_file(folder / HISTORY_NAME) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")


def read_history(folder: Path) -> list[dict[str, float]]:
    """The lines of history.jsonl in a run folder, an epoch each.

    Raises:
        RunError: If it is missing or damaged, or not the one that the summary ends.
    """
    path = folder / HISTORY_NAME
    try:
        if (folder / SUMMARY_NAME).exists():
            ended = read_json(folder / SUMMARY_NAME).get(SEAL)
            if ended != file_digest(path):
                raise RunError(f"{path}: damaged, it is not the one that {SUMMARY_NAME} ends")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, CacheError, ValueError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: missing or damaged ({error})") from error


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """End a fit: from then on its folder counts as finished."""
    write_json(folder / SUMMARY_NAME, {**summary, SEAL: file_digest(folder / HISTORY_NAME)})


def read_summary(folder: Path) -> dict[str, Any]:
    """How a finished fit ended.

    Raises:
        RunError: If it is not finished, or the file is damaged.
    """
    try:
        return read_json(folder / SUMMARY_NAME)
    except (OSError, CacheError) as error:
        raise RunError(f"{folder}: not finished, or damaged ({error})") from error
