"""One process at a time on a file."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file, which need not exist; the system frees it if the process dies.

    Args:
        path: The file; the lock lies beside it, hidden, while it is held.
        waiting: Hears, as one line, that another process has the lock.
    """
    lock = path.with_name(f".{path.name}.lock")
    handle = _held(lock, waiting)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _held(lock: Path, waiting: Callable[[str], None]) -> int:
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting(f"{lock}: another process is at it; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is(lock, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder took the lock away on leaving; the name is free or another's


def _is(lock: Path, handle: int) -> bool:
    """Whether a lock's name still means the file that is open."""
    try:
        there = lock.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
