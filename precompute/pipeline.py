"""Stage 1: plan the streams of a data set, then encode what is missing, shard by shard.

Length-sorting and batching happen within a shard, so that a shard's numbers do not depend on what
was encoded before it: an interrupted run, resumed, gives the files of an undisturbed one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from ..cache.catalog import Cache, is_over
from ..cache.errors import InputError, ShardError
from ..cache.files import require_room
from ..cache.items import ITEMS_NAME, Items, read_items, write_items
from ..cache.manifest import MANIFEST_NAME, Manifest, StreamSpec, differences
from ..cache.writer import StreamWriter, plan_shard_rows
from .contents import build_items
from .dataset import SourceColumn, Split, limited
from .device import processes_here
from .encoders import EncoderOptions, FrozenEncoder
from .mined import is_cached, with_pairs_of

SAMPLE = 256
"""Texts that are tokenised to estimate the size of a stream."""


@dataclass(frozen=True)
class PrecomputeOptions:
    """How embeddings are made and stored."""

    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    dtype: str = "float16"
    """Of the stored numbers: `float16`, `bfloat16` or `float32`."""
    batch_size: int | None = None
    """Items a forward; None: 32 images or 128 texts on a CPU, 256 or 1,024 elsewhere."""
    shard_rows: int | None = None
    """Items a shard; None: as many as make about 64 MiB."""
    workers: int | None = None
    """Threads that decode images; None: as many as this process has cores, at most 8."""
    limit: int | None = None
    """Only so many items of each split, into a data set of its own (`<name>-limit<N>`)."""
    max_failures: float = 0.01
    """Share of a stream's items that may fail before the command counts as failed."""
    retry_failed: bool = False
    """Encode shards with failed items again."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "shard_rows", "workers", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if not 0 <= self.max_failures <= 1:
            raise InputError(f"--max-failures is a share from 0 to 1, got {self.max_failures}")

    def decoders(self) -> int:
        """Threads that decode images."""
        return self.workers or max(1, min(8, (os.cpu_count() or 1) // processes_here()))

    def batch(self, encoder: FrozenEncoder) -> int:
        """Items a forward."""
        if self.batch_size is not None:
            return self.batch_size
        on_cpu = encoder.device.type == "cpu"
        return (32 if on_cpu else 256) if encoder.modality == "image" else (128 if on_cpu else 1024)


@dataclass(frozen=True)
class StreamPlan:
    """One stream that a precompute is to make or complete."""

    spec: StreamSpec
    folder: Path
    encoder: FrozenEncoder
    source: SourceColumn
    tokens_per_item: float
    """Estimated, of the tokens layout; 0 in the pooled layout."""
    missing_items: int
    """Items in shards that are not there yet."""
    begun: bool
    """Whether some of the stream is there."""
    near: tuple[str, list[str]] | None
    """Another stream of the same encoder over this column, and how it differs."""

    @property
    def size_bytes(self) -> int:
        """Estimated size of what is to be written."""
        return int(self.spec.row_bytes(self.tokens_per_item) * self.missing_items)


@dataclass(frozen=True)
class SplitPlan:
    """A split's items, ready to be written, and the streams over them."""

    items: Items
    changed: bool
    """Whether the cache has other items, or none."""
    streams: list[StreamPlan]


@dataclass(frozen=True)
class Progress:
    """How far a stream is."""

    done: int
    """Items encoded or failed, those of earlier runs included."""
    total: int
    encoded: int
    """Items of this run."""
    tokens: int
    """Tokens that this run put through the encoder."""
    written_bytes: int
    """Size of the shards that this run has finished."""
    failures: int
    seconds: float
    waiting: bool = False
    """Whether other processes write the rest."""


Report = Callable[[Progress], None]


def plan(
    name: str,
    split: Split,
    encoders: Sequence[FrozenEncoder],
    cache: Cache,
    options: PrecomputeOptions,
    report: Callable[[int, int], None] = lambda done, total: None,
    miner: FrozenEncoder | None = None,
) -> SplitPlan:
    """What is to be encoded of a split. Its images are digested, nothing is written yet.

    Args:
        name: Name of the data set in the cache.
        split: As the reader gave it.
        encoders: Loaded encoders; each runs over every column of its modality.
        cache: Where embeddings lie.
        options: How they are made and stored.
        report: Called now and then with how many images are digested, of how many.
        miner: Sentence encoder of whose vectors the pairs will be mined. They are made first; if
            it is none of the encoders, pooled in float16, or not at all where the cache has them.

    Raises:
        InputError: If the split has nothing to encode.
    """
    name = f"{name}-limit{options.limit}" if options.limit else name
    split = limited(split, options.limit) if options.limit else split
    known = _known(cache.folder(name, split.name) / ITEMS_NAME)
    items, ordered = build_items(name, split, known, report)
    own = {encoder: options for encoder in encoders}
    if miner is not None:
        items = with_pairs_of(known, items)
        if miner in own:
            own = {miner: options, **own}
        elif not is_cached(miner, items, cache):
            own = {miner: replace(options, dtype="float16"), **own}
    streams = [
        _plan_stream(items, column, ordered.columns[column], encoder, cache, of_encoder)
        for encoder, of_encoder in own.items()
        for column in ordered.columns
        if ordered.columns[column].modality == encoder.modality
    ]
    changed = known is None or known.digest() != items.digest()
    return SplitPlan(items, changed, streams)


def _known(path: Path) -> Items | None:
    """The items of an earlier run; None without them, or damaged ones, which are made anew."""
    try:
        return read_items(path) if path.exists() else None
    except ShardError:
        return None


def _plan_stream(
    items: Items,
    name: str,
    source: SourceColumn,
    encoder: FrozenEncoder,
    cache: Cache,
    options: PrecomputeOptions,
) -> StreamPlan:
    column = items.columns[name]
    if not column.ids:
        raise InputError(f"{items.dataset}/{items.split}: no usable {column.modality}s in it")
    tokens = _tokens_per_item(source, encoder)
    spec = StreamSpec(
        dataset=items.dataset,
        split=items.split,
        column=name,
        modality=column.modality,
        encoder=encoder.short_name,
        made_of=encoder.made_of,
        items_digest=column.digest(),
        count=len(column.ids),
        width=encoder.width,
        pooled_width=encoder.pooled_width,
        layout=encoder.options.layout,
        grid=encoder.options.grid if encoder.modality == "image" else None,
        dtype=options.dtype,
        source=encoder.source,
    )
    parent = cache.folder(items.dataset, items.split)
    manifest = _manifest(parent / spec.folder)
    missing = spec.count
    if manifest is not None:
        missing = sum(last - first for first, last in map(manifest.range, manifest.missing()))
    return StreamPlan(
        spec=spec,
        folder=parent / spec.folder,
        encoder=encoder,
        source=source,
        tokens_per_item=tokens,
        missing_items=missing,
        begun=manifest is not None and missing < spec.count,
        near=_near(cache, spec, items) if manifest is None else None,
    )


def _manifest(folder: Path) -> Manifest | None:
    """What is there of a stream; None if nothing is, or its manifest is damaged."""
    try:
        return Manifest.load(folder) if (folder / MANIFEST_NAME).exists() else None
    except ShardError:
        return None


def _tokens_per_item(source: SourceColumn, encoder: FrozenEncoder) -> float:
    if encoder.options.layout == "pooled":
        return 0.0
    if encoder.modality == "image":
        return encoder.image_tokens
    texts = cast("Sequence[str]", source.values)
    sample = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    return sum(map(len, encoder.tokenize(sample))) / len(sample)


def _near(cache: Cache, spec: StreamSpec, items: Items) -> tuple[str, list[str]] | None:
    """The stream of the same encoder over this column that differs least, and the differences."""
    near = []
    with suppress(ShardError):  # a manifest is damaged
        for stream in cache.streams(spec.dataset, spec.split, spec.column):
            if stream.encoder == spec.encoder:
                lines = list(differences(stream.manifest.spec.whole, spec.whole))
                near.append((len(lines), not is_over(stream, items), stream.path.name, lines))
    return min(near)[2:] if near else None


def prepare(plans: Sequence[SplitPlan], cache: Cache) -> None:
    """Write the items of the planned splits that changed, once everything is sure to fit.

    Raises:
        DiskFullError: If the disk is too small for the streams as estimated.
    """
    require_room(cache.root, sum(s.size_bytes for p in plans for s in p.streams))
    for split in (split for split in plans if split.changed):
        write_items(cache.folder(split.items.dataset, split.items.split), split.items)


def open_writer(plan: StreamPlan, options: PrecomputeOptions) -> StreamWriter:
    """The writer of a planned stream; shards with failed items are struck if that is asked for."""
    rows = options.shard_rows or plan_shard_rows(plan.spec.row_bytes(plan.tokens_per_item))
    writer = StreamWriter(plan.folder.parent, plan.spec, rows)
    if options.retry_failed:
        shards = writer.manifest.shards.items()
        writer.strike({number for number, entry in shards if entry.failures})
    return writer


class Meter:
    """Counts what a run does, and reports it."""

    def __init__(self, writer: StreamWriter, report: Report) -> None:
        """Begin counting now."""
        self.writer, self.report = writer, report
        self.began = time.monotonic()
        self.encoded = self.tokens = self.written_bytes = self.failures = 0
        self.before = sum(e.last - e.first for e in writer.manifest.shards.values())

    def add(self, items: int, tokens: int, failures: int = 0) -> None:
        """Count a batch."""
        self.encoded += items
        self.tokens += tokens
        self.failures += failures
        self.tell()

    def tell(self, waiting: bool = False) -> None:
        """Report how far it is."""
        total = self.writer.spec.count
        self.report(
            Progress(
                done=min(total, self.before + self.encoded),
                total=total,
                encoded=self.encoded,
                tokens=self.tokens,
                written_bytes=self.written_bytes,
                failures=self.failures,
                seconds=time.monotonic() - self.began,
                waiting=waiting,
            )
        )
