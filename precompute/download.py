"""One file over HTTP: gone on with where it broke, proved, and never half there under its name."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
from dataclasses import dataclass
from pathlib import Path

from ..cache.errors import CacheError, DiskFullError
from ..cache.files import full_disk_is_one_line, read_json, sync, write_json
from .checksums import Watcher, digest_of, prove, record_of, recorded_digest
from .file_lock import one_at_a_time
from .web import Again, DownloadError, Patience, blocks, connect, declared_bytes, validator

PART, STATE = ".part", ".part.json"
"""Endings of a file that is not whole yet, and of what is known of it."""
SIZE_LIMIT_BYTES = 64 * 1024**3
"""A file of which no size is published may not be larger."""


@dataclass(frozen=True)
class Wanted:
    """What is to be fetched."""

    url: str
    digest: str | None = None
    """`md5:<hex>` or `sha256:<hex>` as published; None: that of the first download is kept."""
    size_bytes: int | None = None
    """As published."""


def fetch(wanted: Wanted, target: Path, watcher: Watcher, patience: Patience | None = None) -> None:
    """Have the file at `target`: proved if it is there already, else fetched.

    A broken download is gone on with, if the server still has the same file. One process works on
    a file at a time; others wait.

    Raises:
        DownloadError: If the server cannot be reached, has not the file, or gives a wrong one.
        InputError: If another file lies at `target`; it is left alone.
        DiskFullError: If the disk is too small.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(target, watcher.fetch_note), full_disk_is_one_line(target):
        expected = wanted.digest or recorded_digest(target)
        if target.exists():
            prove(target, expected, watcher)
            return
        part = _beside(target, PART)
        _receive(wanted, part, watcher, patience or Patience())
        sync(part)
        _settle(wanted, part, target, expected, watcher)


def partial_bytes(target: Path) -> int:
    """Bytes of an earlier, broken download of a file."""
    part = _beside(target, PART)
    return part.stat().st_size if part.is_file() else 0


def require_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse to begin what cannot end.

    Args:
        folder: Where it will be written; it need not exist.
        needed_bytes: How much.
        what: What it will be, for the error: `fetched`, `unpacked`.

    Raises:
        DiskFullError: If less is free.
    """
    present = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(present).free
    if needed_bytes > free:
        raise DiskFullError(
            f"{folder}: {needed_bytes / 2**30:.2f} GiB are to be {what}, "
            f"{free / 2**30:.2f} GiB are free; make room or choose another --root"
        )


def _beside(target: Path, ending: str) -> Path:
    return target.with_name(target.name + ending)


def _receive(wanted: Wanted, part: Path, watcher: Watcher, patience: Patience) -> None:
    """Connect until the file is whole; the wait doubles while nothing new comes."""
    failures, most = 0, 0
    while True:
        try:
            _transfer(wanted, part, watcher, patience)
            return
        except Again as again:
            reason, asked_s = str(again), again.wait_s
        have = part.stat().st_size if part.exists() else 0
        failures = failures + 1 if have <= most else 1
        most = max(most, have)
        if failures >= patience.tries:
            raise DownloadError(
                f"{wanted.url}: {reason}, {failures} times; {have:,} bytes are kept, "
                "the same command goes on from there"
            )
        wait_s = min(patience.first_wait_s * 2 ** (failures - 1), patience.longest_wait_s)
        if asked_s is not None:
            wait_s = max(wait_s, min(asked_s, patience.longest_wait_s))
        watcher.fetch_note(f"{wanted.url}: {reason}; again in {wait_s:.0f} s")
        time.sleep(wait_s)


def _transfer(wanted: Wanted, part: Path, watcher: Watcher, patience: Patience) -> None:
    """One connection. `Again` unless the file is whole after it."""
    state_path = part.with_name(part.name.removesuffix(PART) + STATE)
    have, state = _begun(wanted, part, state_path)
    if have and have == state.get("total"):
        return
    headers = {"Range": f"bytes={have}-", "If-Range": str(state["validator"])} if have else {}
    try:
        response = connect(wanted.url, headers, patience)
    except urllib.error.HTTPError as error:  # 416: what is here is longer than what is there
        part.unlink(missing_ok=True)
        raise Again("the file has changed; it is fetched from the beginning") from error
    with response:
        start, total = _agreed(response, have, state)
        if response.status == 206 and (not have or start != have):
            part.unlink(missing_ok=True)
            raise Again("the file has changed; it is fetched from the beginning")
        _check_size(wanted, total)
        if start == 0:
            part.write_bytes(b"")
            known = {"url": wanted.url, "validator": validator(response), "total": total}
            write_json(state_path, known)
        if total is not None:
            require_room(part.parent, total - start, "fetched")
        count = _write(
            response, part, start, wanted.size_bytes if total is None else total, watcher
        )
        _check_end(wanted, response, count, total)


def _begun(wanted: Wanted, part: Path, state_path: Path) -> tuple[int, dict[str, object]]:
    """Bytes that can be gone on with, and what is known of the file that they are of."""
    try:
        state = read_json(state_path)
        have = part.stat().st_size
    except (OSError, CacheError):
        return 0, {}
    if state.get("url") != wanted.url or not state.get("validator"):
        return 0, {}
    return have, state


def _agreed(
    response: http.client.HTTPResponse, have: int, state: dict[str, object]
) -> tuple[int, int | None]:
    """The byte that the response begins with, and the size of the whole.

    A continuation counts only if it is of the same file, from where ours ends; otherwise the
    beginning is 0, whatever it is.
    """
    if response.status != 206:
        return 0, declared_bytes(response)
    span, _, whole = (response.headers.get("Content-Range") or "").partition("/")
    first = span.removeprefix("bytes").strip().partition("-")[0]
    total = int(whole) if whole.isdigit() else None
    same = validator(response) in ("", state.get("validator")) and total == state.get("total")
    return (have if have and same and first == str(have) else 0), total


def _check_size(wanted: Wanted, total: int | None) -> None:
    if total is not None and wanted.size_bytes is not None and total != wanted.size_bytes:
        raise DownloadError(
            f"{wanted.url}: the server has {total:,} bytes, the official file has "
            f"{wanted.size_bytes:,}; it is not fetched"
        )
    if total is not None and total > SIZE_LIMIT_BYTES:
        raise DownloadError(f"{wanted.url}: {total:,} bytes are over the limit; it is not fetched")


def _write(
    response: http.client.HTTPResponse, part: Path, start: int, total: int | None, watcher: Watcher
) -> int:
    """Append the response; the size of the file then, never above what was declared."""
    limit, count = SIZE_LIMIT_BYTES if total is None else total, start
    step = f"fetching {part.name.removesuffix(PART)}"
    with part.open("ab") as file:
        for block in blocks(response):
            count += len(block)
            if count > limit:
                part.unlink()
                raise DownloadError(
                    f"{response.url}: the server sends more than {limit:,} bytes; given up"
                )
            file.write(block)
            watcher.fetching(step, count, total)
    return count


def _check_end(
    wanted: Wanted, response: http.client.HTTPResponse, count: int, total: int | None
) -> None:
    if total is not None and count < total:
        raise Again(f"the connection ended after {count:,} of {total:,} bytes")
    if total is None and not response.chunked and wanted.digest is None:
        raise DownloadError(
            f"{wanted.url}: the server does not say how long the file is, and no checksum is "
            "published: whether it is whole cannot be told"
        )


def _settle(
    wanted: Wanted, part: Path, target: Path, expected: str | None, watcher: Watcher
) -> None:
    """Prove a whole download and give it its name; a wrong one is not kept."""
    state_path = _beside(target, STATE)
    found = digest_of(part, (expected or "sha256").partition(":")[0], watcher)
    if expected is not None and found != expected:
        part.unlink()
        state_path.unlink(missing_ok=True)
        again = "run the same command again, or name another host in $CBMF_MIRROR"
        if not wanted.digest:
            again = f"delete {record_of(target)} to take it all the same"
        raise DownloadError(
            f"{wanted.url}: its {found.replace(':', ' is ', 1)}, expected "
            f"{expected.partition(':')[2]}; what came is not kept; {again}"
        )
    if expected is None:
        record_of(target).write_text(f"{found.partition(':')[2]}  {target.name}\n")
    os.replace(part, target)
    state_path.unlink(missing_ok=True)
    sync(target.parent)
    proof = "its checksum is right" if expected else f"its {found.replace(':', ' is ', 1)}"
    watcher.fetch_note(f"fetched {target}: {proof}")
