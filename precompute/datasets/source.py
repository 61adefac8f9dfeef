"""What a reader hands back, and how it says that something is not there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.errors import InputError
from ..dataset import LeftOut, Split

SPLIT_OF = {
    "train": "train",
    "training": "train",
    "restval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Our name of a split by the names that people use, lower case."""
SPLIT_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class SourceDataset:
    """A data set as it was read, before anything is encoded."""

    name: str
    """Its name in the cache: letters, digits, dot, dash and underscore, lower case."""
    kind: str
    """`image-text`, `labelled`, `sentence-pairs` or `caption-texts`."""
    root: Path
    """Where it was found: a folder, an archive or a table."""
    splits: list[Split]
    """In the order train, val, test."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the results should know, one sentence each."""


class MissingError(InputError):
    """A file or folder that a data set needs is not where it was looked for."""

    def __init__(self, what: str, home: Path, found: str = "") -> None:
        """Say that `home` has no `what`; `found` is the other half, where that is there."""
        super().__init__(f"{home}: found {found}, but no {what}" if found else f"{home}: no {what}")
        self.what = what
        self.home = home
        self.found = found


def chosen_splits(
    there: Sequence[str],
    asked: Sequence[str] | None,
    home: Path,
    gaps: Mapping[str, str] | None = None,
) -> list[str]:
    """The splits to read, in the order train, val, test: those asked for, else all that are there.

    Args:
        there: Splits that can be read.
        asked: Splits asked for by name (or by a usual other name of theirs); None or empty for all.
        home: Where the data set lies.
        gaps: By split, what is missing for it.

    Raises:
        InputError: If a split that is asked for is not there.
    """
    if not asked:
        return [name for name in SPLIT_ORDER if name in there]
    wanted = {SPLIT_OF.get(name.strip().lower(), name) for name in asked}
    for name in sorted(wanted - set(there)):
        gap = f" ({gaps[name]})" if gaps and name in gaps else ""
        has = ", ".join(n for n in SPLIT_ORDER if n in there) or "none"
        raise InputError(f"{home}: no split {name!r}{gap}; there is {has}")
    return [name for name in SPLIT_ORDER if name in wanted]


def text_fault(value: object, what: str) -> str | None:
    """Why a value cannot be used as a text, or None if it can; `what` it is, for the reason."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"empty {what}"
    if not isinstance(value, str):
        return f"{what} is no text"
    return None if encodable(value) else f"{what} is not valid Unicode"


def encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8 (lone surrogates cannot)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """The text with what UTF-8 cannot hold written as escapes, for an id that only people read."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def slug(name: str) -> str:
    """A name for the cache, made of a file or folder name."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "own"


def first_reason(left_out: Sequence[LeftOut]) -> str:
    """How many items were left out and why the first was, for an error line."""
    if not left_out:
        return "nothing was left out"
    first = left_out[0]
    return f"{len(left_out)} left out, the first: {first.column} {first.item_id!r}, {first.reason}"
