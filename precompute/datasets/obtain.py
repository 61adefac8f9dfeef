"""Fetching a data set: what is missing of it, from its host or a mirror, to where readers look."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from ...cache.errors import InputError
from ..checksums import Watcher
from ..download import Wanted, fetch, partial_bytes, require_room
from ..extract import unpack
from ..file_lock import one_at_a_time
from ..web import DownloadError, Patience, remote_size
from .downloads import DOWNLOADS, Piece, Source
from .registry import DATASETS, data_folder, existing_home
from .source import SPLIT_OF

MIRROR_VARIABLE = "CBMF_MIRROR"
"""Address under which the hosts' files are looked up, as `<mirror>/<host>/<path>`."""
_ASIDE = ".download"
"""Folder, in the data set's own, of archives on their way to be unpacked."""


@dataclass(frozen=True)
class Errand:
    """What is to be fetched for a data set."""

    dataset: str
    home: Path
    """Folder that it goes to."""
    terms: str
    pieces: list[tuple[Piece, Wanted, int | None]]
    """What is missing, with its address and the bytes that its server declares."""


class FetchReporter(Watcher, Protocol):
    """Hears how a data set is fetched."""

    def to_fetch(self, errand: Errand) -> None:
        """It stands what will be fetched; nothing is yet."""
        ...


def obtain(
    dataset: str,
    root: Path | None,
    splits: Sequence[str] | None,
    reporter: FetchReporter,
    *,
    karpathy: bool = False,
    dry_run: bool = False,
    patience: Patience | None = None,
) -> bool:
    """Fetch what is missing of a data set, prove it, and unpack what its reader wants unpacked.

    Args:
        dataset: Its name.
        root: Its folder, made if need be; None for its folder below `$CBMF_DATA`, else `./data`.
        splits: Only what these splits need; None for all.
        reporter: Hears how it goes.
        karpathy: Also Karpathy's split file.
        dry_run: Only say what would be fetched.
        patience: With the servers.

    Returns:
        Whether everything is there now.

    Raises:
        InputError: If there is nothing to fetch for it, or something else lies in the way.
        DownloadError: If a file cannot be fetched, or is a wrong one.
        DiskFullError: If the disk is too small.
    """
    source = _source(dataset, karpathy)
    home = _home(dataset, source, root)
    pieces = _needed(source, home, splits, karpathy)
    missing = [piece for piece in pieces if not _there(piece, home)]
    wanted = [(piece, _mirrored(piece.wanted)) for piece in missing]
    sized = [(piece, want, _size(want)) for piece, want in wanted]
    reporter.to_fetch(Errand(dataset, home, source.terms, sized))
    if dry_run:
        return not missing
    _require_room(home, sized)
    for piece in pieces:
        _obtain(piece, home, reporter, patience)
    return True


def _source(dataset: str, karpathy: bool) -> Source:
    if dataset not in DOWNLOADS:
        known = DATASETS.get(dataset)
        what = f"it is {known.source}" if known else "its files are made, or your own"
        raise InputError(f"{dataset}: --download has nothing to fetch, {what}; leave it out")
    if karpathy and DOWNLOADS[dataset].karpathy is None:
        raise InputError(f"{dataset}: Karpathy made no split of it; leave --karpathy out")
    return DOWNLOADS[dataset]


def _home(dataset: str, source: Source, root: Path | None) -> Path:
    if root is None:
        return existing_home(dataset) or data_folder() / source.folder
    home = Path(os.path.abspath(os.path.expanduser(root)))
    if home.exists() and not home.is_dir():
        raise InputError(f"{home}: --download needs a folder as --root, this is a file")
    return home


def _needed(
    source: Source, home: Path, splits: Sequence[str] | None, karpathy: bool
) -> list[Piece]:
    """Karpathy's splits are made of the images of all official ones."""
    extra = [source.karpathy] if source.karpathy is not None else []
    by_karpathy = karpathy or any(_there(piece, home) for piece in extra)
    asked = {SPLIT_OF.get(name.strip().lower(), name) for name in splits or ()}
    pieces = [
        piece
        for piece in source.pieces
        if not (asked and piece.splits) or by_karpathy or asked & set(piece.splits)
    ]
    return [*(extra if karpathy else []), *pieces]


def _there(piece: Piece, home: Path) -> bool:
    """Whether a piece, or what stands for it, is there; not whether it is right."""
    if any((home / place).exists() for place in piece.instead):
        return True
    return all((home / place).exists() for place in piece.gives or (piece.file,))


def _mirrored(wanted: Wanted) -> Wanted:
    """The same file at the mirror, if one is set; its checksum stays."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip().rstrip("/")
    if not mirror:
        return wanted
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).hostname:
        raise InputError(f"{MIRROR_VARIABLE}={mirror}: expected http://host/path or https://...")
    return Wanted(f"{mirror}/{wanted.url.partition('://')[2]}", wanted.digest, wanted.size_bytes)


def _size(wanted: Wanted) -> int | None:
    declared = remote_size(wanted.url)
    return wanted.size_bytes if declared is None else declared


def _require_room(home: Path, sized: Sequence[tuple[Piece, Wanted, int | None]]) -> None:
    """Refuse at once what would fill the disk in an hour.

    An archive of images is as large unpacked as it is packed, and both lie there for a while.
    """
    needed = 0
    for piece, _, size in sized:
        packed = _packed(piece, home)
        here = packed.stat().st_size if packed.is_file() else partial_bytes(packed)
        needed += max(0, (size or 0) - here) + ((size or 0) if piece.gives else 0)
    require_room(home, needed, "fetched and unpacked")


def _packed(piece: Piece, home: Path) -> Path:
    """Where a file lies or will lie: an archive to unpack aside, unless the user put it there."""
    own = home / piece.file
    return own if own.is_file() or not piece.gives else home / _ASIDE / piece.file


def _obtain(piece: Piece, home: Path, watcher: Watcher, patience: Patience | None) -> None:
    if not piece.gives:
        if not any((home / place).exists() for place in piece.instead):
            fetch(_mirrored(piece.wanted), home / piece.file, watcher, patience)
        return
    if _there(piece, home):
        return
    home.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(home / f"unpack-{piece.file}", watcher.fetch_note):
        if not _there(piece, home):
            _fetch_and_unpack(piece, home, watcher, patience)


def _fetch_and_unpack(
    piece: Piece, home: Path, watcher: Watcher, patience: Patience | None
) -> None:
    archive = _packed(piece, home)
    fetch(_mirrored(piece.wanted), archive, watcher, patience)
    unpack(archive, home, watcher, below=piece.below, only=piece.only)
    if not _there(piece, home):
        what = ", ".join(piece.gives)
        raise DownloadError(f"{archive}: holds no {what}; it is not the official archive")
    if archive.parent.name == _ASIDE:
        archive.unlink()
        with suppress(OSError):  # a kept digest or another file on its way may lie there
            archive.parent.rmdir()
