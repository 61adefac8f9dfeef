"""Atomic writing of files, digests, and the one-line form of a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from .errors import CacheError, DiskFullError, ShardError

PART = ".tmp"
"""Ending of a file that is still being written; never read, removed by `gc`."""
JSON_SEAL = "sha256"
"""Key of a JSON file's own digest."""
JSON_LIMIT_BYTES = 256 * 2**20
"""A JSON file of the cache that is larger than this is refused unread."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it, synced, when the block ends well.

    Raises:
        DiskFullError: If the disk has no room; the temporary file is gone then.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    with full_disk_is_one_line(path):
        try:
            yield part
            sync(part)
            os.replace(part, path)
            sync(path.parent)
        except BaseException:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise


def abandoned(folder: Path) -> list[Path]:
    """Half-written files of a folder that no living process holds."""
    found = [path for path in folder.iterdir() if path.name.endswith(PART)]
    return [path for path in found if not _alive(path)]


def _alive(part: Path) -> bool:
    pid = part.name.removesuffix(PART).rpartition(".")[2]
    if not pid.isdigit():
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")  # killed, and not yet buried by its parent


def run_apart(module: str, *words: str, folder: Path) -> str | None:
    """Run a module in a process of its own, which writes into `folder` through `new_file`.

    If this process is stopped meanwhile, the other one is ended and leaves nothing half-written.

    Returns:
        None if it ended well, or the last line of its complaint.
    """
    command = [sys.executable, "-m", module, *words]
    with Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            complaint = process.communicate()[1]
        except BaseException:
            process.kill()
            process.wait()
            for part in folder.glob(f"*.{process.pid}{PART}"):
                part.unlink(missing_ok=True)
            raise
    if not process.returncode:
        return None
    return (complaint.strip().splitlines() or ["no reason given"])[-1]


@contextmanager
def full_disk_is_one_line(path: Path) -> Iterator[None]:
    """Turn any 'no space left' of the block, h5py's wording included, into a DiskFullError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "errno = 28" in str(error)
        if full or "No space left" in str(error):
            raise DiskFullError(
                f"{path}: the disk is full; everything finished is kept. "
                "Make room, then run the same command again"
            ) from error
        raise


def sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces), 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Write a sealed JSON object atomically: a reader sees the old file or the new, never half.

    The seal is its last key, `sha256`: `value_digest` of the object without it.
    """
    with new_file(path) as part:
        part.write_bytes(_sealed(json.loads(json.dumps(table))))


def read_json(path: Path, version: int | None = None) -> dict[str, Any]:
    """The object in a JSON file that `write_json` wrote, without its seal.

    Args:
        path: The file.
        version: Of the format that is expected. An object of another version comes back even
            without a seal, for the caller to refuse by name.

    Raises:
        ShardError: If the file is not JSON, no object, or was changed since it was written.
        CacheError: If it is absent or too large.
    """
    try:
        if path.stat().st_size > JSON_LIMIT_BYTES:
            raise CacheError(f"{path}: {path.stat().st_size} bytes is too large to be a manifest")
        content = path.read_bytes()
        value = json.loads(content)
    except FileNotFoundError as error:
        raise CacheError(f"{path}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path}: damaged, not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise ShardError(f"{path}: expected a JSON object, got a {type(value).__name__}")
    seal = value.pop(JSON_SEAL, None)
    if seal is None and version is not None and value.get("version") != version:
        return value
    if content != _sealed(value):
        raise ShardError(f"{path}: damaged, or changed since cbmf wrote it")
    return value


def _sealed(table: dict[str, Any]) -> bytes:
    whole = {**table, JSON_SEAL: value_digest(table)}
    return (json.dumps(whole, indent=1) + "\n").encode()


def require_room(folder: Path, needed_bytes: int) -> None:
    """Refuse to begin when the disk is too small for what is to be written.

    Raises:
        DiskFullError: If fewer than `needed_bytes` and a reserve of 1% are free.
    """
    present = folder
    while not present.exists():
        present = present.parent
    free = shutil.disk_usage(present).free
    if needed_bytes * 1.01 > free:
        raise DiskFullError(
            f"{folder}: {needed_bytes / 2**30:.2f} GiB are to be written, "
            f"{free / 2**30:.2f} GiB are free; make room, choose another --cache, "
            "or a smaller layout (--layout pooled, --grid)"
        )
