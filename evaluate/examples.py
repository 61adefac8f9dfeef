"""Queries of retrieval with what was found for them: some answered rightly, some wrongly.

Q queries, C candidates, D width, k found ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .nearest import nearest
from .ranks import best_ranks, recall_at
from .retrieval import Direction, Task
from .spaces import Space
from .systems import Side

EACH = 4
"""Queries of either kind that are shown of a direction."""
FOUND = 4
"""Candidates that are shown of each query."""


@dataclass(frozen=True)
class Found:
    """A candidate that was found."""

    row: int
    """In its column of items.h5."""
    rank: int
    """From 1."""
    cosine: float
    right: bool


@dataclass(frozen=True)
class Example:
    """One query."""

    row: int
    """In its column of items.h5."""
    rank: int
    """Of its best partner, as `best_ranks` has it."""
    found: list[Found]
    """The nearest candidates, best first, and then the best partner if it is not among them."""


@dataclass(frozen=True)
class Gallery:
    """Examples of one direction."""

    name: str
    """`image_to_text`, say."""
    query: str
    """Column of the queries."""
    candidate: str
    """Column of the candidates."""
    right_share: float
    """Of all queries the share whose partner is found first, 0 to 1."""
    queries: int
    candidates: int
    right: list[Example]
    wrong: list[Example]


def galleries(task: Task, space: Space, each: int = EACH, seed: int = 0) -> list[Gallery]:
    """Both directions of a split, the queries drawn at random among the right and the wrong.

    Args:
        task: The split.
        space: What the model makes of it.
        each: Queries of either kind at most.
        seed: Of the draw.
    """
    left, right = _Part(task.left, space.left), _Part(task.right, space.right)
    forth, back = task.directions
    return [_gallery(forth, left, right, each, seed), _gallery(back, right, left, each, seed)]


@dataclass(frozen=True)
class _Part:
    """One side, and its rows in the space."""

    side: Side
    vectors: Tensor
    """(n, D) float32."""


def _gallery(way: Direction, queries: _Part, candidates: _Part, each: int, seed: int) -> Gallery:
    ranks = best_ranks(queries.vectors, candidates.vectors, way.positives, way.ignored)
    random = np.random.default_rng(seed)
    right, wrong = (
        [
            _example(int(place), int(ranks[place]), way, queries, candidates)
            for place in random.permutation(np.flatnonzero(kind))[:each]
        ]
        for kind in (ranks == 1, ranks > 1)
    )
    return Gallery(
        name=way.name,
        query=queries.side.stream.column,
        candidate=candidates.side.stream.column,
        right_share=recall_at(ranks, 1),
        queries=len(queries.side.rows),
        candidates=len(candidates.side.rows),
        right=right,
        wrong=wrong,
    )


def _example(place: int, rank: int, way: Direction, queries: _Part, candidates: _Part) -> Example:
    """The query at a place, with what is nearest to it."""
    query = queries.vectors[place]
    partners = way.positives.cells(place, place + 1)[1]
    hidden = [] if way.ignored is None else way.ignored.cells(place, place + 1)[1].tolist()
    scores, near = nearest(query[None], candidates.vectors, FOUND + len(hidden))
    shown = [pair for pair in zip(near[0], scores[0], strict=True) if pair[0] not in hidden][:FOUND]
    found = [
        Found(int(candidates.side.rows[at]), number, float(cosine), at in partners)
        for number, (at, cosine) in enumerate(shown, start=1)
    ]
    if not any(candidate.right for candidate in found):
        cosines = candidates.vectors[torch.from_numpy(partners)] @ query
        best = int(cosines.argmax())
        row = int(candidates.side.rows[partners[best]])
        found.append(Found(row, rank, float(cosines[best]), True))
    return Example(int(queries.side.rows[place]), rank, found)
