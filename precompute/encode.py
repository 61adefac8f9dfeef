"""The encoding loop of one stream: decode, encode and write overlap; the encoder does not wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch

from ..cache.errors import InputError
from ..cache.shard import Failure
from ..cache.stream import Stream
from ..cache.writer import Claim, StreamWriter
from .dataset import SourceColumn
from .encoders import Encoded, FrozenEncoder
from .images import ImageSource
from .pipeline import Meter, PrecomputeOptions, Report, StreamPlan, open_writer

T = TypeVar("T")
R = TypeVar("R")

POLL_S = 0.5
"""Seconds between looks at shards that other processes are writing."""
PENDING_SHARDS = 2
"""Encoded shards that may wait to be written."""
BATCH_TOKENS = 32_768
"""Padded tokens of a batch of texts at most."""


@dataclass(frozen=True)
class Batch:
    """What became of some rows of a column. B rows of them encoded."""

    rows: list[int]
    encoded: Encoded | None
    """B results in the order of `rows`; None if there are none."""
    failures: list[Failure]


def encode_stream(plan: StreamPlan, options: PrecomputeOptions, report: Report) -> Stream:
    """Encode what a planned stream lacks; returns the complete stream.

    Any number of processes may do so at once: each shard is written by one of them.

    Raises:
        DiskFullError: If the disk fills up; finished shards are kept.
        ShardError: If a value does not fit the stored dtype.
    """
    writer = open_writer(plan, options)
    meter = Meter(writer, report)
    with ThreadPoolExecutor(options.decoders()) as decoders, ThreadPoolExecutor(1) as pen:
        try:
            while missing := writer.missing():
                if not _write_missing(plan, options, meter, missing, decoders, pen):
                    meter.tell(waiting=True)
                    time.sleep(POLL_S)
        except BaseException:
            decoders.shutdown(wait=False, cancel_futures=True)
            raise
    meter.tell()
    return Stream(plan.folder)


def _write_missing(
    plan: StreamPlan,
    options: PrecomputeOptions,
    meter: Meter,
    missing: Sequence[int],
    decoders: ThreadPoolExecutor,
    pen: ThreadPoolExecutor,
) -> bool:
    """Encode and write the shards that no other process has; whether there was one."""
    writer = meter.writer
    writing: deque[Future[None]] = deque()
    took_any = False
    for number in missing:
        claim = writer.claim(number)
        if claim is None:
            continue
        took_any = True
        try:
            rows = writer.manifest.range(number)
            batches = _encode_shard(plan, options, decoders, meter, rows)
        except BaseException:
            claim.release()
            raise
        while len(writing) >= PENDING_SHARDS:
            writing.popleft().result()
        writing.append(pen.submit(_write, writer, claim, number, batches, meter))
    while writing:
        writing.popleft().result()
    return took_any


def _encode_shard(
    plan: StreamPlan,
    options: PrecomputeOptions,
    decoders: ThreadPoolExecutor,
    meter: Meter,
    rows: tuple[int, int],
) -> list[Batch]:
    encoder, size = plan.encoder, options.batch(plan.encoder)
    if encoder.modality == "text":
        batches = _text_batches(encoder, plan.source, rows, size)
    else:
        batches = _image_batches(encoder, plan.source, rows, size, decoders)
    done = []
    for batch, tokens in batches:
        batch = _without_non_finite(batch, plan.source.ids)
        meter.add(len(batch.rows) + len(batch.failures), tokens, len(batch.failures))
        done.append(batch)
    return done


def _text_batches(
    encoder: FrozenEncoder, source: SourceColumn, rows: tuple[int, int], size: int
) -> Iterator[tuple[Batch, int]]:
    texts = cast("Sequence[str]", source.values)
    token_ids = encoder.tokenize(texts[rows[0] : rows[1]])
    order = sorted(range(len(token_ids)), key=lambda i: (len(token_ids[i]), i))
    for places in _by_budget(order, [len(ids) for ids in token_ids], size):
        chosen = [token_ids[i] for i in places]
        encoded = encoder.encode_texts(chosen)
        yield Batch([rows[0] + i for i in places], encoded, []), sum(map(len, chosen))


def _by_budget(order: list[int], lengths: list[int], size: int) -> Iterator[list[int]]:
    """Runs of at most `size` places and BATCH_TOKENS padded tokens; lengths rise along `order`."""
    batch: list[int] = []
    for place in order:
        if batch and (len(batch) == size or (len(batch) + 1) * lengths[place] > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _image_batches(
    encoder: FrozenEncoder,
    source: SourceColumn,
    rows: tuple[int, int],
    size: int,
    decoders: ThreadPoolExecutor,
) -> Iterator[tuple[Batch, int]]:
    images = cast("Sequence[ImageSource]", source.values)

    def prepare(row: int) -> np.ndarray | Failure:
        try:
            return encoder.preprocess(images[row].open())
        except (InputError, OSError, ValueError) as error:
            return Failure(row, source.ids[row], " ".join(str(error).split())[:200])

    ready = _ahead(decoders, prepare, range(*rows), ahead=3 * size)
    for first in range(rows[0], rows[1], size):
        prepared = [next(ready) for _ in range(first, min(first + size, rows[1]))]
        failures = [p for p in prepared if isinstance(p, Failure)]
        kept = [first + i for i, p in enumerate(prepared) if not isinstance(p, Failure)]
        pixels = [p for p in prepared if not isinstance(p, Failure)]
        encoded = encoder.encode_images(torch.from_numpy(np.stack(pixels))) if pixels else None
        yield Batch(kept, encoded, failures), len(kept) * encoder.image_tokens


def _ahead(
    workers: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Results in order, with up to `ahead` items under way."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(workers.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _without_non_finite(batch: Batch, ids: list[str]) -> Batch:
    """The batch with items that the encoder turned into NaN or Inf made failures."""
    if batch.encoded is None:
        return batch
    pooled, tokens = batch.encoded.pooled, batch.encoded.tokens
    sound = np.isfinite(pooled).all(axis=1)
    if tokens is not None:
        sound &= np.array([bool(np.isfinite(t).all()) for t in tokens])
    if sound.all():
        return batch
    keep = np.flatnonzero(sound)
    failures = [
        Failure(row, ids[row], "the encoder gave NaN or Inf")
        for row, good in zip(batch.rows, sound, strict=True)
        if not good
    ]
    encoded = Encoded(pooled[keep], None if tokens is None else [tokens[i] for i in keep])
    return Batch([batch.rows[i] for i in keep], encoded, [*batch.failures, *failures])


def _write(
    writer: StreamWriter, claim: Claim, number: int, batches: list[Batch], meter: Meter
) -> None:
    """Put a shard's batches into row order, write it, and give the claim free."""
    try:
        rows = np.array([row for batch in batches for row in batch.rows], np.int64)
        order = np.argsort(rows)
        encoded = [batch.encoded for batch in batches if batch.encoded is not None]
        empty = np.empty((0, writer.spec.pooled_width), np.float32)
        pooled = np.concatenate([e.pooled for e in encoded]) if encoded else empty
        values = offsets = None
        if writer.spec.layout == "tokens":
            tokens = [t for e in encoded for t in e.tokens or ()]
            ragged = [tokens[i] for i in order]
            offsets = np.cumsum([0, *map(len, ragged)], dtype=np.int64)
            values = np.concatenate([np.empty((0, writer.spec.width), np.float32), *ragged])
        failures = sorted((f for b in batches for f in b.failures), key=lambda f: f.row)
        entry = writer.write(number, rows[order], pooled[order], values, offsets, tuple(failures))
        meter.written_bytes += entry.size_bytes
    finally:
        claim.release()
