"""finished.jsonl: shards that were finished since manifest.json was last written.

A line a shard, appended and synced. So finishing a shard costs the same however many there are,
where rewriting the manifest would cost more with each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from .files import JSON_LIMIT_BYTES, full_disk_is_one_line, value_digest
from .shard import ShardEntry

JOURNAL_NAME = "finished.jsonl"
SEAL = "line_sha256"
"""Key of a line's own digest."""


def append_shard(folder: Path, number: int, entry: ShardEntry) -> None:
    """Note a finished shard. The caller holds the stream's lock.

    Raises:
        DiskFullError: If the disk is full. The shard stays; the next writer finds it by its file.
    """
    table = {"number": number, **entry.to_json()}
    line = json.dumps({**table, SEAL: value_digest(table)}) + "\n"
    path = folder / JOURNAL_NAME
    with full_disk_is_one_line(path), path.open("a+b") as file:
        torn = file.tell() > 0 and _last_byte(file.fileno()) != b"\n"  # its writer was killed
        file.write(b"\n" * torn + line.encode())
        file.flush()
        os.fsync(file.fileno())


def _last_byte(handle: int) -> bytes:
    return os.pread(handle, 1, os.fstat(handle).st_size - 1)


def read_shards(folder: Path, at: int = 0) -> tuple[dict[int, ShardEntry], int]:
    """The shards noted from byte `at` on, by number, and the byte after the last whole line.

    A line that was cut by a kill counts for nothing, nor does one that cannot be understood: its
    shard is found by its file.
    """
    path = folder / JOURNAL_NAME
    try:
        with path.open("rb") as file:
            file.seek(at)
            content = file.read(JSON_LIMIT_BYTES)
    except FileNotFoundError:
        return {}, 0
    whole = content[: content.rfind(b"\n") + 1]
    return dict(_entries(whole)), at + len(whole)


def _entries(lines: bytes) -> Iterator[tuple[int, ShardEntry]]:
    for line in lines.splitlines():
        try:
            table = json.loads(line)
            if table.pop(SEAL) != value_digest(table):
                continue
            yield int(table.pop("number")), ShardEntry.from_json(table)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
