"""The encoding loop of one stream: decode, encode and write overlap; the encoder does not wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..cache.shard import Failure
from ..cache.stream import Stream
from ..cache.writer import Claim, StreamWriter
from .batches import READY, Batch, Shard, image_batches, made_ahead, text_batches
from .encoded import Encoded, Launched, joined
from .pipeline import Meter, PrecomputeOptions, Report, StreamPlan, open_writer

POLL_S = 0.5
"""Seconds between looks at shards that other processes are writing."""
PENDING_SHARDS = 2
"""Encoded shards that may wait to be written."""


@dataclass(frozen=True)
class Piece:
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
    share = _Share(plan, options, report)
    try:
        while missing := share.writer.missing():
            if not share.encode(missing):
                share.meter.tell(waiting=True)
                time.sleep(POLL_S)
    finally:
        share.close()
    share.meter.tell()
    return Stream(plan.folder)


class _Share:
    """What one process takes of a stream: shards it claims, encodes and writes."""

    def __init__(self, plan: StreamPlan, options: PrecomputeOptions, report: Report) -> None:
        self.plan, self.options = plan, options
        self.writer = open_writer(plan, options)
        self.meter = Meter(self.writer, report)
        self.claims: dict[int, Claim] = {}
        self.decoders = ThreadPoolExecutor(options.decoders(), "decode")
        self.maker, self.pen = ThreadPoolExecutor(1, "batch"), ThreadPoolExecutor(1, "write")
        self.pieces: list[Piece] = []
        self.writing: deque[Future[None]] = deque()

    def close(self) -> None:
        """End the threads; shards that were not written are for others."""
        for threads in (self.decoders, self.maker):
            threads.shutdown(cancel_futures=True)
        self.pen.shutdown()
        for claim in self.claims.values():
            claim.release()

    def encode(self, missing: Sequence[int]) -> bool:
        """Encode and write the shards that no other process has; whether there was one."""
        encoder, before = self.plan.encoder, None
        ready = made_ahead(self._batches(missing), READY[encoder.modality], self.maker)
        took_any = False
        for batch in ready:
            took_any = True
            begun = [] if batch.inputs is None else encoder.launch_fitting(batch.inputs)
            if before is not None:  # a GPU is at this batch while the one before is put away
                self._put_away(*before)
            before = batch, begun
        if before is not None:
            self._put_away(*before)
        while self.writing:
            self.writing.popleft().result()
        return took_any

    def _batches(self, missing: Sequence[int]) -> Iterator[Batch]:
        """Run by the thread that makes batches."""
        encoder, source = self.plan.encoder, self.plan.source
        shards, size = self._claimed(missing), self.options.batch(encoder)
        if encoder.modality == "text":
            return text_batches(encoder, source, shards, size)
        return image_batches(encoder, source, shards, size, self.decoders)

    def _claimed(self, missing: Sequence[int]) -> Iterator[Shard]:
        for number in missing:
            claim = self.writer.claim(number)
            if claim is not None:
                self.claims[number] = claim
                yield Shard(number, *self.writer.manifest.range(number))

    def _put_away(self, batch: Batch, begun: list[Launched]) -> None:
        encoded = joined([part.collect() for part in begun]) if begun else None
        piece = Piece(batch.rows, encoded, batch.failures)
        piece = _without_non_finite(piece, self.plan.source.ids)
        self.pieces.append(piece)
        items, failures = len(piece.rows) + len(piece.failures), len(piece.failures)
        self.meter.add(items, batch.tokens, failures)
        if batch.ends_shard:
            while len(self.writing) >= PENDING_SHARDS:
                self.writing.popleft().result()
            self.writing.append(self.pen.submit(self._write, batch.shard.number, self.pieces))
            self.pieces = []

    def _write(self, number: int, pieces: list[Piece]) -> None:
        """Write a shard, and give its claim free. Run by the thread that writes."""
        self.meter.written_bytes += _write_shard(self.writer, number, pieces)
        self.claims.pop(number).release()


def _without_non_finite(piece: Piece, ids: list[str]) -> Piece:
    """The piece with items that the encoder turned into NaN or Inf made failures."""
    if piece.encoded is None:
        return piece
    pooled, tokens = piece.encoded.pooled, piece.encoded.tokens
    sound = np.isfinite(pooled).all(axis=1)
    if tokens is not None:
        sound &= np.array([bool(np.isfinite(t).all()) for t in tokens])
    if sound.all():
        return piece
    keep = np.flatnonzero(sound)
    failures = [
        Failure(row, ids[row], "the encoder gave NaN or Inf")
        for row, good in zip(piece.rows, sound, strict=True)
        if not good
    ]
    encoded = Encoded(pooled[keep], None if tokens is None else [tokens[i] for i in keep])
    return Piece([piece.rows[i] for i in keep], encoded, [*piece.failures, *failures])


def _write_shard(writer: StreamWriter, number: int, pieces: list[Piece]) -> int:
    """Put a shard's pieces into row order and write it; returns its size in bytes."""
    rows = np.array([row for piece in pieces for row in piece.rows], np.int64)
    order = np.argsort(rows)
    encoded = [piece.encoded for piece in pieces if piece.encoded is not None]
    empty = np.empty((0, writer.spec.pooled_width), np.float32)
    pooled = np.concatenate([e.pooled for e in encoded]) if encoded else empty
    values = offsets = None
    if writer.spec.layout == "tokens":
        tokens = [t for e in encoded for t in e.tokens or ()]
        ragged = [tokens[i] for i in order]
        offsets = np.cumsum([0, *map(len, ragged)], dtype=np.int64)
        values = np.concatenate([np.empty((0, writer.spec.width), np.float32), *ragged])
    failures = sorted((f for piece in pieces for f in piece.failures), key=lambda f: f.row)
    entry = writer.write(number, rows[order], pooled[order], values, offsets, tuple(failures))
    return entry.size_bytes
