"""Pairs of sentences, and how alike each system finds the two of a pair.

P pairs, n items of a stream, D width. Sides are the left and the right sentence of a pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from torch import Tensor

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.items import Items
from ..cache.stream import Stream
from ..train.aligner import Aligner
from ..train.bank import positions_of
from ..train.run import Run
from .floors import floors_of
from .projections import projected
from .sides import measured, run_name, stream_of
from .systems import models_of

PAIRS_AT_ONCE = 65_536
"""Pairs whose vectors are held twice: 128 MiB at 256 dimensions."""
Sides = tuple[Stream, Stream]
"""The streams of the left and of the right sentences; one and the same if both are of a column."""
Rows = tuple[Stream, Tensor]
"""A stream and a unit row for each of its items, (n, D)."""


@dataclass(frozen=True)
class SentencePairs:
    """The pairs of a split that take part, and where their sentences are encoded."""

    items: Items
    rows: np.ndarray
    """(P, 2) int64: rows in the left and the right column."""
    targets: np.ndarray
    """(P,): label or score of each pair."""
    units: np.ndarray
    """(P,) int64, 0 to U - 1: pairs that sentences connect are one unit of the bootstrap."""
    streams: dict[int, Sides]
    """By place of a text encoder in the model."""
    missing: int
    """Pairs left out because a text encoder lacks one of their sentences."""

    @property
    def where(self) -> str:
        """The split, for messages."""
        return f"{self.items.dataset}/{self.items.split}"

    @property
    def encoders(self) -> dict[str, str]:
        """Short name of each text encoder, by column and place, as `Result.encoders` has it."""
        return {key: stream.encoder for key, stream in self._named()}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each stream, by the same keys."""
        return {key: stream.fingerprint for key, stream in self._named()}

    def _named(self) -> Iterator[tuple[str, Stream]]:
        for place, sides in enumerate(self.streams.values(), start=1):
            for stream in dict.fromkeys(sides):
                yield f"{stream.column} {place}", stream


@dataclass(frozen=True)
class Scored:
    """What a system says of all pairs."""

    system: str
    kind: str
    """As in `results.Row`."""
    cosines: np.ndarray
    """(P,) float64, -1 to 1."""


def are_texts(items: Items) -> bool:
    """Whether a split has pairs of two texts."""
    pairs = items.pairs
    return pairs is not None and all(
        items.column(name).modality == "text" for name in (pairs.left, pairs.right)
    )


def prepare(cache: Cache, items: Items, run: Run, targets: np.ndarray) -> SentencePairs:
    """Find the text encoders' streams, and the pairs whose sentences are in all of them.

    Args:
        cache: Where the streams lie.
        items: With pairs of texts.
        run: Its model has the encoders.
        targets: (all pairs,) label or score of each; NaN leaves a pair out.

    Raises:
        InputError: If the run has no text encoder, or no pair is left.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    pairs = items.pairs
    assert pairs is not None  # are_texts has looked
    texts = measured(run, "text")
    if not texts:
        raise InputError(f"run {run_name(run)} has no text encoder, sentences cannot be compared")
    streams: dict[int, Sides] = {}
    for place in texts:
        left = stream_of(cache, items, pairs.left, run, place)
        same = pairs.left == pairs.right
        streams[place] = left, left if same else stream_of(cache, items, pairs.right, run, place)
    known = ~np.isnan(targets)
    there = known & np.all([_have(sides, pairs.rows) for sides in streams.values()], axis=0)
    if not there.any():
        raise InputError(
            f"{items.dataset}/{items.split}: of its {len(pairs.rows):,} pairs of sentences none "
            f"can be used, {int(known.sum()):,} have a known label or score"
        )
    rows = pairs.rows[there]
    return SentencePairs(
        items=items,
        rows=rows,
        targets=targets[there],
        units=connected(rows, pairs.left == pairs.right),
        streams=streams,
        missing=int((known & ~there).sum()),
    )


def connected(rows: np.ndarray, one_column: bool) -> np.ndarray:
    """The connected group of each pair, (P,) int64 from 0: those that share sentences are one.

    Args:
        rows: (P, 2) int64: rows in the left and the right column, at least one pair.
        one_column: Whether that is the same column, so that equal rows are equal sentences.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    two = rows[:, 1] + (0 if one_column else int(rows[:, 0].max()) + 1)
    size = int(max(rows[:, 0].max(), two.max())) + 1
    graph = coo_array((np.ones(len(rows), bool), (rows[:, 0], two)), shape=(size, size))
    component = connected_components(graph, directed=False)[1]
    return np.unique(component[rows[:, 0]], return_inverse=True)[1].astype(np.int64)


def scored(
    cache: Cache, run: Run, pairs: SentencePairs, report: Callable[[str], None]
) -> Iterator[Scored]:
    """The cosines of all pairs by every system, one system after the other.

    A model compares the two sentences in each of its text encoders, and across every two of them:
    `A → B` has the left sentence in A and the right one in B. `B → A` is told of the fitted model
    only. The floors are the encoders' own vectors, by every pooling that the cache holds of them;
    one that lacks a sentence is passed over. A run measured alone has the fitted model only.

    Args:
        cache: Where the streams lie.
        run: As `prepare` had it.
        pairs: What to score.
        report: Called with the name of what is measured next.
    """
    for name, kind, model in models_of(run):
        report(name)
        views = {place: _view(run, model, place, sides) for place, sides in pairs.streams.items()}
        for one, two in _directions(list(views), both=kind == "model"):
            ends = dict.fromkeys(run.model.encoders[place].name for place in (one, two))
            cosines = _cosines(pairs.rows, views[one][0], views[two][1])
            yield Scored(f"{name}, {' → '.join(ends)}", kind, cosines)
    if run.alone:
        return
    for floor in floors_of(cache, pairs.items, list(pairs.streams.values())):
        if _have((floor.left.stream, floor.right.stream), pairs.rows).all():
            report(floor.name)
            left = floor.left.stream, floor.left.vectors()
            one_side = floor.left is floor.right
            right = left if one_side else (floor.right.stream, floor.right.vectors())
            yield Scored(floor.name, "raw", _cosines(pairs.rows, left, right))


def _view(run: Run, model: Aligner, place: int, sides: Sides) -> tuple[Rows, Rows]:
    """Unit rows of the left and the right sentences; those of one stream are made once."""
    left, right = sides
    one = left, projected(run, model, place, left)
    return one, one if left is right else (right, projected(run, model, place, right))


def _directions(places_: list[int], both: bool) -> list[tuple[int, int]]:
    """Each encoder with itself, then each with another: one way round, or both."""
    crossed = [(one, two) for one, two in permutations(places_, 2) if both or one < two]
    return [*((place, place) for place in places_), *crossed]


def _have(sides: Sides, rows: np.ndarray) -> np.ndarray:
    """(P,) bool: whether each pair (P, 2) has both sentences in the streams."""
    return (positions_of(sides[0].rows, rows[:, 0]) >= 0) & (
        positions_of(sides[1].rows, rows[:, 1]) >= 0
    )


def _cosines(rows: np.ndarray, left: Rows, right: Rows) -> np.ndarray:
    """The cosine of each pair, (P,) float64, -1 to 1; a part of the pairs at a time."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        part = rows[start : start + PAIRS_AT_ONCE]
        one, two = (
            vectors[torch.from_numpy(positions_of(stream.rows, part[:, side])).to(vectors.device)]
            for side, (stream, vectors) in enumerate((left, right))
        )  # (some, D)
        found[start : start + len(part)] = (one * two).sum(1).cpu().numpy()
    return found.clip(-1, 1)
