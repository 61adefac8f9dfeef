"""Floors: an encoder's own vectors, by every pooling that the cache holds of it.

n items of a stream, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache.catalog import Cache, is_over
from ..cache.files import value_digest
from ..cache.items import Items
from ..cache.stream import Stream, to_float32

CLS = "cls"


@dataclass(frozen=True)
class Pooled:
    """One vector for each item of a stream."""

    stream: Stream
    first_token: bool = False
    """The first of the stored tokens instead of the pooled vector."""

    def vectors(self) -> Tensor:
        """Unit rows in the order of the stream's rows, (n, D) float32 on the CPU."""
        whole = _first_tokens(self.stream) if self.first_token else self.stream.pooled()
        return F.normalize(torch.from_numpy(whole), dim=1)


@dataclass(frozen=True)
class Floor:
    """One pooling of one encoder, over both sides of pairs."""

    name: str
    """`raw <encoder>, <pooling>`."""
    left: Pooled
    right: Pooled
    """The same object as `left` if both sides are of one column."""


def floors_of(cache: Cache, items: Items, own: Sequence[tuple[Stream, Stream]]) -> Iterator[Floor]:
    """One floor for each encoder and pooling.

    Streams are of one encoder if what they were made of differs in the pooling alone: the weights,
    the layer, the tokenizer and the maximal length are the same. Where the cache holds tokens but
    no CLS vectors, the first token is the CLS vector.

    Args:
        cache: Where the streams lie.
        items: Of the split; streams over older items do not count.
        own: A run's streams of the left and the right side, for each of its encoders; the same
            object twice if both sides are of one column.
    """
    names: dict[str, str] = {}  # set-up -> encoder
    for left, right in own:
        setup = _setup(left)
        if setup in names:
            continue
        taken = left.encoder in names.values()
        names[setup] = f"{left.encoder}-{left.identity[:6]}" if taken else left.encoder
        ones = _by_pool(cache, items, left, setup)
        twos = ones if left is right else _by_pool(cache, items, right, setup)
        for pool in ones:
            if pool in twos:
                yield Floor(f"raw {names[setup]}, {pool}", ones[pool], twos[pool])


def _by_pool(cache: Cache, items: Items, own: Stream, setup: str) -> dict[str, Pooled]:
    """What there is of each pooling over a column, the run's own stream first.

    Args:
        cache: Where the streams lie.
        items: Of the split.
        own: The run's stream over the column.
        setup: `_setup` of the streams that count.
    """
    present = [own, *sorted(cache.streams(items.dataset, items.split, own.column), key=_pool)]
    fitting = [s for s in present if s.complete and is_over(s, items) and _setup(s) == setup]
    found: dict[str, Pooled] = {}
    for stream in fitting:
        found.setdefault(_pool(stream), Pooled(stream))
    for stream in fitting:
        if stream.layout == "tokens":
            found.setdefault(CLS, Pooled(stream, first_token=True))
    return found


def _setup(stream: Stream) -> str:
    """Digest of what a stream was made of, the pooling apart."""
    made_of = stream.manifest.spec.made_of
    return value_digest({key: value for key, value in made_of.items() if key != "pool"})


def _pool(stream: Stream) -> str:
    return str(stream.manifest.spec.made_of.get("pool", "pooled"))


def _first_tokens(stream: Stream) -> np.ndarray:
    """(n, D) float32: the first token of each item; zeros for an item that has none."""
    whole = np.zeros((len(stream), stream.width), np.float32)
    at = 0
    for block in stream.blocks():
        assert block.values is not None and block.offsets is not None  # a stream of tokens
        some = np.flatnonzero(np.diff(block.offsets))
        whole[at + some] = to_float32(block.values[block.offsets[some]], stream.dtype)
        at += len(block.rows)
    return whole
