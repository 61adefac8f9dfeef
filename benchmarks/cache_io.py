"""Cached reading and writing against raw files of the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cbmf.cache.manifest import shard_name
from cbmf.cache.shard import ShardContent, write_shard
from cbmf.cache.stream import Stream
from cbmf.cache.writer import StreamWriter
from cbmf.train.bank import Bank

from .generated import Size, write_cache
from .settings import Settings
from .timing import Row, Subject, compared, interleaved

READ_ASKED, WRITE_ASKED = ">= 0.9 of the map", ">= 0.8"


def measure(settings: Settings) -> Iterator[Row]:
    """Rows on reading and on writing, pooled and tokens."""
    for layout in ("pooled", "tokens"):
        folder = settings.folder(f"cache-{layout}")
        stream = _generated(folder / "cache", layout, settings.small)
        raw = _raw_files(stream, folder / "raw")
        yield from _reading(stream, raw, settings.repeats)
        yield from _writing(stream, folder / "written", settings.repeats)
        shutil.rmtree(folder)


def _generated(root: Path, layout: str, small: bool) -> Stream:
    """About 300 MB of vectors, 768 wide, in shards as they are by default."""
    pooled = Size(images=2000 if small else 200_000, captions=1)
    tokens = Size(images=100 if small else 4000, captions=1, image_tokens=50)
    cache = write_cache(root, pooled if layout == "pooled" else tokens, {"train": 1})
    return cache.find("generated", "train", "image")


def _bulk(block: ShardContent) -> np.ndarray:
    return block.pooled if block.values is None else block.values


def _raw_files(stream: Stream, folder: Path) -> list[Path]:
    """A raw file for each shard, with the bytes of its large array."""
    folder.mkdir(parents=True)
    paths = []
    for number, block in enumerate(stream.blocks()):
        paths.append(folder / f"{number:05d}.raw")
        np.ascontiguousarray(_bulk(block)).tofile(paths[-1])
    return paths


def _reading(stream: Stream, raw: list[Path], repeats: int) -> list[Row]:
    """Everything into memory, from files that the operating system holds in its cache."""
    width, layout = stream.width, stream.layout
    size_gb = sum(path.stat().st_size for path in raw) / 1e9
    count = sum(path.stat().st_size for path in raw) // (2 * width)

    def blocks() -> None:
        for block in Stream(stream.path).blocks():
            np.array(_bulk(block))

    def maps() -> None:
        for path in raw:
            np.array(np.memmap(path, np.float16, "r").reshape(-1, width))

    def files() -> None:
        for path in raw:
            np.fromfile(path, np.float16)

    def bank() -> None:
        Bank.from_stream(Stream(stream.path), layout)

    def one_map() -> None:
        whole, at = np.empty((count, width), np.float16), 0
        for path in raw:
            part = np.memmap(path, np.float16, "r").reshape(-1, width)
            whole[at : at + len(part)] = part
            at += len(part)

    subjects = {
        work.__name__: Subject(name, work, size_gb)
        for name, work in (
            ("Stream.blocks", blocks),
            ("memory map copied", maps),
            ("np.fromfile", files),
            ("Bank.from_stream", bank),
            ("memory map copied into one array", one_map),
        )
    }
    seconds = interleaved(list(subjects.values()), repeats)
    note = f"{size_gb * 1e3:,.0f} MB in {len(raw)} files, in the page cache"
    return [
        compared(
            f"read {layout}, {subjects[ours].name}", subjects[ours], subjects[other], seconds,
            "GB/s", asked=READ_ASKED if other != "files" else "", note=note,
        )
        for ours, other in (("blocks", "maps"), ("blocks", "files"), ("bank", "one_map"))
    ]  # fmt: skip


def _writing(stream: Stream, folder: Path, repeats: int) -> list[Row]:
    """One shard, anew each time, by both ways in; each is synced and renamed like the raw file."""
    block = next(stream.blocks())
    pooled, values = (
        np.array(block.pooled),
        None if block.values is None else np.array(block.values),
    )
    content = ShardContent(block.rows, pooled, values, block.offsets)
    arrays = [a for a in (block.rows, pooled, values, block.offsets) if a is not None]
    size_gb = sum(array.nbytes for array in arrays) / 1e9
    whole = b"".join(array.tobytes() for array in arrays)
    wide = pooled.astype(np.float32), None if values is None else values.astype(np.float32)
    spec, first, last = stream.manifest.spec, 0, len(block.rows)
    parent, shards = folder / "stream", folder / "shards"

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shards.mkdir(parents=True)
        parent.mkdir()

    def raw() -> None:
        part = shards / "raw.tmp"
        with part.open("wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, shards / "raw")
        handle = os.open(shards, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def shard() -> None:
        path = shards / shard_name(0)
        write_shard(path, content, first=first, last=last, fingerprint=spec.fingerprint)

    def writer() -> None:
        StreamWriter(parent, spec, last).write(0, block.rows, *wide, block.offsets)

    subjects = [
        Subject(name, work, size_gb, before=clear)
        for name, work in (
            ("write_shard", shard),
            ("raw file, fsync, rename", raw),
            ("StreamWriter.write", writer),
        )
    ]
    seconds = interleaved(subjects, repeats)
    ours, other, whole_way = subjects
    note = f"{size_gb * 1e3:,.0f} MB, digest included"
    wider = f"{note}, float32 checked and rounded, manifest written"
    what = f"write {stream.layout}"
    return [
        compared(
            f"{what}, write_shard", ours, other, seconds, "GB/s", asked=WRITE_ASKED, note=note
        ),
        compared(f"{what}, StreamWriter", whole_way, other, seconds, "GB/s", note=wider),
    ]
