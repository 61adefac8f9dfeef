"""Which shards have been proved on this machine: digested once for as long as the file stays.

What is noted in `.proved` is the state of a file (size, time of change, inode) when its digest
was right. A cache that cannot be written to is proved by every process anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from .errors import ShardError
from .files import file_digest
from .shard import ShardEntry

PROVED_NAME = ".proved"
THREADS = 4
"""Digests taken at once."""


def note_proved(folder: Path, entries: Iterable[ShardEntry]) -> None:
    """Note that the digests of shards are right. Where that cannot be written, nothing happens."""
    lines = "".join(_state(folder, entry) + "\n" for entry in entries)
    with suppress(OSError), (folder / PROVED_NAME).open("a", encoding="utf-8") as file:
        file.write(lines)


def prove(folder: Path, entries: Iterable[ShardEntry]) -> None:
    """Take the digests of those shards that are not proved yet, or have changed since.

    Raises:
        ShardError: If a shard is missing, or not what the manifest says.
    """
    proved = _proved(folder)
    new = [entry for entry in entries if _state(folder, entry) not in proved]
    with ThreadPoolExecutor(THREADS, "digest") as threads:
        list(threads.map(lambda entry: check_digest(folder / entry.name, entry), new))
    if new:
        note_proved(folder, new)


def check_digest(path: Path, entry: ShardEntry) -> None:
    """Refuse a shard whose bytes are not those that were written.

    Raises:
        ShardError: As said.
    """
    try:
        right = file_digest(path) == entry.sha256
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
    if not right:
        raise ShardError(
            f"{path}: damaged, its digest is not the one in the manifest; cbmf cache verify takes "
            "it out, then run the same cbmf precompute again, it rewrites only this shard"
        )


def _state(folder: Path, entry: ShardEntry) -> str:
    """What is different once a file has changed.

    Raises:
        ShardError: If the file is missing.
    """
    try:
        found = os.stat(folder / entry.name)
    except OSError as error:
        raise ShardError(
            f"{folder / entry.name} is missing; run the same cbmf precompute again, it rewrites "
            "only this shard"
        ) from error
    state = (entry.name, entry.sha256, found.st_size, found.st_mtime_ns, found.st_ino)
    return " ".join(map(str, state))


def _proved(folder: Path) -> set[str]:
    with suppress(OSError):
        return set((folder / PROVED_NAME).read_text("utf-8", errors="replace").splitlines())
    return set()
