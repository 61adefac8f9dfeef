"""Checksums of downloads: published ones, and those kept at a first download."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from ..cache.errors import InputError

RECORD = ".sha256"
"""Ending of the file that keeps a digest, in the form that `sha256sum -c` reads."""
_BLOCK_BYTES = 1024**2


class Watcher(Protocol):
    """Sees how fetching goes."""

    def fetching(self, step: str, done: int, total: int | None) -> None:
        """A step has come so far, in bytes; `total` is None where nobody knows it."""
        ...

    def fetch_note(self, text: str) -> None:
        """Something that people should read: a broken connection, a wait."""
        ...


def record_of(target: Path) -> Path:
    """Where the digest of a file is kept."""
    return target.with_name(target.name + RECORD)


def prove(target: Path, expected: str | None, watcher: Watcher) -> None:
    """Check a file against a digest, if one is known.

    Raises:
        InputError: If it is another file.
    """
    if expected is None:
        return
    found = digest_of(target, expected.partition(":")[0], watcher)
    if found != expected:
        raise InputError(
            f"{target}: is not the official file (its {found.replace(':', ' is ', 1)}, expected "
            f"{expected.partition(':')[2]}); move it away to fetch that, or leave --download out"
        )


def recorded_digest(target: Path) -> str | None:
    """The digest that was kept at the first download."""
    try:
        return "sha256:" + record_of(target).read_text(encoding="ascii").split()[0].lower()
    except (OSError, ValueError, IndexError):
        return None


def digest_of(path: Path, algorithm: str, watcher: Watcher) -> str:
    """`<algorithm>:<hex>` of a file."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    total, done = path.stat().st_size, 0
    step = f"checking {path.name.removesuffix('.part')}"
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
            done += len(block)
            watcher.fetching(step, done, total)
    return f"{algorithm}:{state.hexdigest()}"
