"""Batches as the encoder takes them, made ahead of it by threads, across the ends of shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np

from ..cache.errors import InputError
from ..cache.shard import Failure
from .dataset import SourceColumn
from .encoded import Inputs
from .encoders import FrozenEncoder
from .images import ImageSource

T = TypeVar("T")

BATCH_TOKENS = 32_768
"""Padded tokens of a batch of texts at most."""
DECODED_BATCHES = 2
"""Batches of images that are being decoded, besides those that are ready."""
READY = {"image": 2, "text": 8}
"""Batches that are ready for the encoder. Of texts so many that it has work while the next shard's
are tokenised."""


@dataclass(frozen=True)
class Shard:
    """A shard to be encoded."""

    number: int
    first: int
    last: int
    """One past its last row."""


@dataclass(frozen=True)
class Batch:
    """Some rows of a shard. B of them can be encoded."""

    shard: Shard
    rows: list[int]
    """B rows, in the order of `inputs`."""
    inputs: Inputs | None
    """On the CPU; None without any rows."""
    tokens: int
    """That the encoder will see, padding apart."""
    ends_shard: bool
    failures: list[Failure] = field(default_factory=list)


def made_ahead(items: Iterator[T], depth: int, thread: ThreadPoolExecutor) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made before they are asked for.

    Args:
        items: Makes one after the other.
        depth: At least 1.
        thread: One thread, in which they are made.
    """
    end = object()
    waiting: deque[Future[object]] = deque(
        thread.submit(next, items, end)
        for _ in range(depth)  # type: ignore[arg-type]
    )
    while (item := waiting.popleft().result()) is not end:
        waiting.append(thread.submit(next, items, end))  # type: ignore[arg-type]
        yield cast("T", item)


def text_batches(
    encoder: FrozenEncoder, source: SourceColumn, shards: Iterator[Shard], size: int
) -> Iterator[Batch]:
    """The texts of shards in batches of about equal length."""
    texts = cast("Sequence[str]", source.values)
    for shard in shards:
        token_ids = encoder.tokenize(texts[shard.first : shard.last])
        order = sorted(range(len(token_ids)), key=lambda i: (len(token_ids[i]), i))
        left = len(order)
        for places in _by_budget(order, [len(ids) for ids in token_ids], size):
            chosen = [token_ids[i] for i in places]
            left -= len(places)
            rows = [shard.first + i for i in places]
            inputs = encoder.text_inputs(chosen)
            yield Batch(shard, rows, inputs, sum(map(len, chosen)), ends_shard=left == 0)


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


def image_batches(
    encoder: FrozenEncoder,
    source: SourceColumn,
    shards: Iterator[Shard],
    size: int,
    decoders: ThreadPoolExecutor,
) -> Iterator[Batch]:
    """The images of shards in order, decoded by threads."""
    images = cast("Sequence[ImageSource]", source.values)

    def decoded(row: int) -> np.ndarray | Failure:
        try:
            return encoder.preprocess(images[row].open())
        except (InputError, OSError, ValueError) as error:
            return Failure(row, source.ids[row], " ".join(str(error).split())[:200])

    def made(shard: Shard, first: int, pending: list[Future[np.ndarray | Failure]]) -> Batch:
        found = dict(enumerate((future.result() for future in pending), first))
        pixels = {row: p for row, p in found.items() if not isinstance(p, Failure)}
        inputs = encoder.image_inputs(np.stack(list(pixels.values()))) if pixels else None
        return Batch(
            shard,
            rows=list(pixels),
            inputs=inputs,
            tokens=len(pixels) * encoder.image_tokens,
            ends_shard=first + size >= shard.last,
            failures=[p for p in found.values() if isinstance(p, Failure)],
        )

    waiting: deque[tuple[Shard, int, list[Future[np.ndarray | Failure]]]] = deque()
    for shard in shards:
        for first in range(shard.first, shard.last, size):
            rows = range(first, min(first + size, shard.last))
            waiting.append((shard, first, [decoders.submit(decoded, row) for row in rows]))
            if len(waiting) > DECODED_BATCHES:
                yield made(*waiting.popleft())
    while waiting:
        yield made(*waiting.popleft())
