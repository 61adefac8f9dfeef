"""Writing a stream: shards are planned, claimed, written whole, and listed.

Claiming and finishing a shard cost the same however many shards there are: whether one is done is
seen by its file, and a finished one is a line in the journal (journal.py). The manifest is written
when a writer begins and when the stream is complete.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ShardError
from .files import abandoned
from .journal import JOURNAL_NAME, append_shard, read_shards
from .manifest import MANIFEST_NAME, Manifest, StreamSpec, shard_name
from .precision import to_stored
from .proof import note_proved
from .shard import Failure, ShardContent, ShardEntry, read_entry, write_shard

TARGET_SHARD_BYTES = 64 * 2**20
"""About how large a shard is made."""


def plan_shard_rows(row_bytes: float) -> int:
    """Rows a shard so that it has about 64 MiB: a power of two from 256 to 16,384."""
    rows = TARGET_SHARD_BYTES / max(row_bytes, 1.0)
    return int(min(16384, max(256, 2 ** round(np.log2(rows)))))


@dataclass(frozen=True)
class Claim:
    """A shard that one process is writing: an advisory lock on a file, gone with the process."""

    path: Path
    handle: int

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        """Lock the file, made if need be; None if another process holds it, or just held it."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return cls(path, handle)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(handle)  # held, or taken away by its holder between our opening and locking it
        return None

    def release(self) -> None:
        """Give the shard free."""
        self.path.unlink(missing_ok=True)
        os.close(self.handle)


class StreamWriter:
    """Writes the missing shards of one stream; several processes may do so at once."""

    def __init__(self, parent: Path, spec: StreamSpec, shard_rows: int) -> None:
        """Begin a stream in `parent`, or go on with it.

        Args:
            parent: `<root>/<dataset>/<split>`.
            spec: What the stream is. Its fingerprint names the folder.
            shard_rows: Rows a shard, for a new stream; one begun earlier keeps its plan.
        """
        self.folder = parent / spec.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.spec = spec
        with _locked(self.folder):
            self.manifest = self._begun() or Manifest(spec, self._rows_found() or shard_rows)
            self._adopt()
            self.manifest.save(self.folder)
            self._seen = self._state()
        self._journal_read = 0

    def _begun(self) -> Manifest | None:
        """The manifest that lies there; None if it is damaged: the shards tell what is in them."""
        try:
            return Manifest.load(self.folder) if (self.folder / MANIFEST_NAME).exists() else None
        except ShardError:
            return None

    def _rows_found(self) -> int | None:
        """Rows a shard, as shards without a manifest tell."""
        for path in sorted(self.folder.glob("[0-9]*.h5")):
            with suppress(ShardError):
                entry = read_entry(path, path.name, self.spec.fingerprint)
                return entry.first // int(path.stem) if entry.first else entry.last
        return None

    def _adopt(self) -> None:
        """List shards that were finished just before a kill; strike those that are gone or cut.

        What bears a shard's name from then on is a finished shard: damaged ones are removed.
        """
        shards = self.manifest.shards
        for number in range(self.manifest.planned):
            path = self.folder / shard_name(number)
            entry = shards.get(number)
            size_bytes = path.stat().st_size if path.is_file() else -1
            if entry is not None and size_bytes == entry.size_bytes:
                continue
            shards.pop(number, None)
            found = self._read(number, path) if entry is None and size_bytes >= 0 else None
            if found is not None:
                shards[number] = found
            else:
                path.unlink(missing_ok=True)

    def _read(self, number: int, path: Path) -> ShardEntry | None:
        try:
            entry = read_entry(path, path.name, self.spec.fingerprint)
        except ShardError:
            return None
        return entry if (entry.first, entry.last) == self.manifest.range(number) else None

    def _state(self) -> tuple[int, int]:
        """What changes whenever the manifest is replaced."""
        found = (self.folder / MANIFEST_NAME).stat()
        return found.st_ino, found.st_mtime_ns

    def _refresh(self) -> None:
        """Learn what other processes finished or struck. The lock is held."""
        state = self._state()
        if state != self._seen:
            self.manifest, self._seen, self._journal_read = Manifest.load(self.folder), state, 0
        news, self._journal_read = read_shards(self.folder, self._journal_read)
        self.manifest.shards.update(news)

    def missing(self) -> list[int]:
        """Numbers of the shards still to be written, as the disk says now."""
        with _locked(self.folder):
            self._refresh()
        return self.manifest.missing()

    def claim(self, number: int) -> Claim | None:
        """The right to write a shard, or None if another process has it or the shard is done.

        It ends with `Claim.release`, or with the process, however that ends.
        """
        claim = Claim.take(self.folder / f".{shard_name(number)}.claim")
        if claim is not None and (self.folder / shard_name(number)).exists():
            claim.release()
            return None
        return claim

    def write(
        self,
        number: int,
        rows: np.ndarray,
        pooled: np.ndarray,
        values: np.ndarray | None = None,
        offsets: np.ndarray | None = None,
        failures: tuple[Failure, ...] = (),
    ) -> ShardEntry:
        """Write a shard and list it.

        Args:
            number: Its place in the plan.
            rows: (n,) int64, ascending, within the shard's range.
            pooled: (n, pooled_width) float32.
            values: (T, width) float32 in the tokens layout.
            offsets: (n + 1,) int64 in the tokens layout.
            failures: The rows of the range that are not in `rows`, with reasons.

        Raises:
            ShardError: If rows and failures do not make up the range, or a value cannot be stored.
            DiskFullError: If the disk is full.
        """
        first, last = self.manifest.range(number)
        covered = np.sort(np.concatenate([rows, [f.row for f in failures]]).astype(np.int64))
        if not np.array_equal(covered, np.arange(first, last)):
            raise ShardError(f"shard {number} must answer for each of the rows {first}..{last - 1}")
        if (values is not None) != (self.spec.layout == "tokens"):
            raise ShardError(f"shard {number}: tokens do not fit layout {self.spec.layout!r}")
        content = ShardContent(
            rows=rows,
            pooled=to_stored(pooled.reshape(-1, self.spec.pooled_width), self.spec.dtype),
            values=None
            if values is None
            else to_stored(values.reshape(-1, self.spec.width), self.spec.dtype),
            offsets=offsets,
            failures=failures,
        )
        entry = write_shard(
            self.folder / shard_name(number),
            content,
            first=first,
            last=last,
            fingerprint=self.spec.fingerprint,
        )
        note_proved(self.folder, [entry])
        self._list(number, entry)
        return entry

    def _list(self, number: int, entry: ShardEntry) -> None:
        with _locked(self.folder):
            append_shard(self.folder, number, entry)
            self._refresh()
            if self.manifest.complete:
                self.manifest.save(self.folder)
                self._seen, self._journal_read = self._state(), 0

    def strike(self, numbers: set[int]) -> None:
        """Take shards back, so that they are written again."""
        strike_shards(self.folder, numbers)
        self.missing()


def strike_shards(folder: Path, numbers: set[int]) -> None:
    """Take shards of a stream back: off the disk, and out of the manifest."""
    with _locked(folder):
        # Files first: a file that the manifest does not list would be listed again
        for number in numbers:
            (folder / shard_name(number)).unlink(missing_ok=True)
        Manifest.load(folder).without_shards(numbers).save(folder)


def settle(folder: Path) -> None:
    """Bring a stream's journal into its manifest, if a kill left one behind."""
    if (folder / JOURNAL_NAME).exists():
        with _locked(folder):
            Manifest.load(folder).save(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The sole right to change a stream's manifest, among all processes of this machine."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def leftovers(folder: Path) -> list[Path]:
    """Half-written and claim files of a folder that no living process holds."""
    return [*abandoned(folder), *_free_claims(folder)]


def _free_claims(folder: Path) -> list[Path]:
    free = []
    for path in folder.glob(".*.claim"):
        claim = Claim.take(path)
        if claim is not None:
            os.close(claim.handle)
            free.append(path)
    return free
