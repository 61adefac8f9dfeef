"""Retrieval across the pairs of a split, in both directions.

G left items (images), M right items (captions), P pairs, U = G bootstrap units, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.items import Items, Pairs
from ..cache.stream import Stream
from ..train.bank import positions_of
from ..train.run import Run
from .bootstrap import intervals
from .ranks import (
    Relation,
    best_ranks,
    chance_recall,
    mean_reciprocal_rank,
    median_rank,
    recall_at,
)
from .results import Result, Row
from .sides import note_on_split, run_name, stream_of, two_encoders
from .systems import Side, System, systems_of

BENCHMARK = "retrieval"
DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class Direction:
    """Queries of one side against candidates of the other."""

    name: str
    """`image_to_text`, say."""
    positives: Relation
    ignored: Relation | None
    """Where both sides are of one column: the query itself among the candidates."""
    candidates: int
    units: np.ndarray
    """(Q,) int64: the bootstrap unit of each query, below U."""

    def chance(self) -> dict[str, float]:
        """Expected recalls of a random order."""
        open_to = np.full(len(self.units), self.candidates)
        if self.ignored is not None:
            open_to = open_to - self.ignored.counts
        return {
            f"{self.name}/R@{k}": chance_recall(self.positives.counts, open_to, k) for k in DEPTHS
        }


@dataclass(frozen=True)
class Task:
    """A split made ready for retrieval."""

    left: Side
    right: Side
    directions: tuple[Direction, Direction]
    pairs: int
    """P, those with both items in the cache."""
    dropped: int
    """Pairs without."""


def suits(items: Items) -> bool:
    """Whether a split has pairs that belong together."""
    return retrieval_pairs(items) is not None


def retrieval_pairs(items: Items) -> Pairs | None:
    """The pairs that can be retrieved, those known to belong together; None if there are none."""
    pairs = items.pairs
    if pairs is None or pairs.scores is not None:
        return None
    rows = pairs.rows if pairs.labels is None else pairs.rows[pairs.labels == 1]
    return Pairs(pairs.left, pairs.right, rows) if len(rows) else None


def modalities(items: Items) -> tuple[str, str] | None:
    """Of the left and the right items of a split's pairs; None without pairs."""
    pairs = items.pairs
    if pairs is None:
        return None
    return items.column(pairs.left).modality, items.column(pairs.right).modality


def evaluate_retrieval(
    cache: Cache, run: Run, dataset: str, split: str, report: Callable[[str], None]
) -> Result:
    """R@1, 5, 10, median rank and MRR of a run on a split, in both directions, floors beside.

    A query succeeds at k if any of its partners is among the first k candidates, as in CLIP.
    Candidates are all items of the other side that have a partner; five captions an image are five
    queries one way and five positives the other.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: Name of the split.
        report: Called with the system that is being measured.

    Raises:
        InputError: If the split has no pairs, or their modalities are not the run's.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    started = time.perf_counter()
    items = cache.items(dataset, split)
    task = prepare(cache, items, run)
    rows = []
    for system in systems_of(cache, items, run, task.left, task.right):
        report(f"{BENCHMARK} {dataset}/{split}: {system.name}")
        rows.append(_measure(system, task, run))
    chance = {name: value for way in task.directions for name, value in way.chance().items()}
    return Result(
        **describe(run, items, task),
        protocol="standard",
        rows=[*rows, Row("chance", "chance", chance)],
        seconds=round(time.perf_counter() - started, 3),
    )


def describe(run: Run, items: Items, task: Task) -> dict[str, Any]:
    """What a result tells of a task, whatever was measured on it: fields of `Result` by name."""
    names = side_names(items.pairs)
    streams = (task.left.stream, task.right.stream)
    plural = [f"{name} items" if name in ("left", "right") else f"{name}s" for name in names]
    counts = {plural[0]: len(task.left.rows), plural[1]: len(task.right.rows)}
    return {
        "benchmark": BENCHMARK,
        "dataset": items.dataset,
        "split": items.split,
        "run": run_name(run),
        "preset": run.config.preset,
        "encoders": dict(zip(names, (s.encoder for s in streams), strict=True)),
        "fingerprints": dict(zip(names, (s.fingerprint for s in streams), strict=True)),
        "counts": {**counts, "pairs": task.pairs},
        "excluded": {"pairs": task.dropped},
        "note": note_on_split(run, items.dataset, items.split),
    }


def side_names(pairs: Pairs | None) -> tuple[str, str]:
    """What the two sides are called: their columns, or `left` and `right` of one column."""
    if pairs is None or pairs.left == pairs.right:
        return "left", "right"
    return pairs.left, pairs.right


def prepare(cache: Cache, items: Items, run: Run) -> Task:
    """Find the streams, and who belongs to whom among the items that are in both.

    Pairs of one column hold both ways round, and a query is no candidate of its own, unless it is
    paired with itself.

    Raises:
        InputError, CacheError: As `evaluate_retrieval`.
    """
    pairs, where = retrieval_pairs(items), f"{items.dataset}/{items.split}"
    if pairs is None:
        raise InputError(f"{where} has no pairs that belong together, nothing can be retrieved")
    modalities = [items.column(name).modality for name in (pairs.left, pairs.right)]
    encoders = two_encoders(run, *modalities)
    left = stream_of(cache, items, pairs.left, run, encoders[0])
    right = stream_of(cache, items, pairs.right, run, encoders[1])
    same = pairs.left == pairs.right
    rows = np.unique(pairs.rows, axis=0)
    there = _both_there(left, right, rows)
    if not there.any():
        raise InputError(f"{where}: none of its {len(rows):,} pairs has both items in the cache")
    both = np.concatenate([rows, rows[:, ::-1]]) if same else rows
    both = np.unique(both[_both_there(left, right, both)], axis=0)  # (P, 2)
    lefts, one = np.unique(both[:, 0], return_inverse=True)  # (G,), (P,)
    rights, two = np.unique(both[:, 1], return_inverse=True)  # (M,), (P,)
    owner = np.full(len(rights), len(lefts))
    np.minimum.at(owner, two, one)  # the first partner of each right item
    forth = _positives(one, two, lefts, rights, same)
    back = _positives(two, one, rights, lefts, same)
    names = side_names(pairs)
    return Task(
        left=Side(left, encoders[0], lefts),
        right=Side(right, encoders[1], rights),
        directions=(
            Direction(f"{names[0]}_to_{names[1]}", *forth, len(rights), np.arange(len(lefts))),
            Direction(f"{names[1]}_to_{names[0]}", *back, len(lefts), owner),
        ),
        pairs=int(there.sum()),
        dropped=int((~there).sum()),
    )


def _both_there(left: Stream, right: Stream, rows: np.ndarray) -> np.ndarray:
    """(P,) bool: whether each pair (P, 2) of item rows has both items in the streams."""
    return (positions_of(left.rows, rows[:, 0]) >= 0) & (positions_of(right.rows, rows[:, 1]) >= 0)


def _positives(
    query: np.ndarray,
    candidate: np.ndarray,
    queries: np.ndarray,
    candidates: np.ndarray,
    same: bool,
) -> tuple[Relation, Relation | None]:
    """The positives of each query and, within one column, the query itself, to be passed over.

    Args:
        query: (P,) int64, place of each pair's query among `queries`.
        candidate: (P,) int64, place of its candidate among `candidates`.
        queries: (Q,) int64, rows of the column.
        candidates: (C,) int64, rows of the column.
        same: Whether that is one column.
    """
    positives = Relation.of_pairs(query, candidate, len(queries))
    if not same:
        return positives, None
    place = positions_of(candidates, queries)
    paired = np.zeros(len(queries), bool)
    paired[query[queries[query] == candidates[candidate]]] = True
    own = np.flatnonzero((place >= 0) & ~paired)
    return positives, Relation.of_pairs(own, place[own], len(queries))


def _measure(system: System, task: Task, run: Run) -> Row:
    """A system's metrics and intervals, both directions."""
    ranks = ranks_of(system, task, run)
    metrics: dict[str, float] = {}
    for way, found in zip(task.directions, ranks, strict=True):
        for k in DEPTHS:
            metrics[f"{way.name}/R@{k}"] = recall_at(found, k)
        metrics[f"{way.name}/median_rank"] = median_rank(found)
        metrics[f"{way.name}/MRR"] = mean_reciprocal_rank(found)
    return Row(system.name, system.kind, metrics, recall_intervals(task, ranks))


def ranks_of(system: System, task: Task, run: Run) -> list[np.ndarray]:
    """Of the queries of both directions the rank of the best partner, (Q,) int64 each."""
    left, right = system.embed(run.model.temperature.log_scale.device)
    return [
        best_ranks(queries, candidates, way.positives, way.ignored)
        for way, queries, candidates in zip(
            task.directions, (left, right), (right, left), strict=True
        )
    ]


def recall_intervals(
    task: Task, ranks: Sequence[np.ndarray], depths: Sequence[int] = DEPTHS, form: str = "R@{}"
) -> dict[str, tuple[float, float]]:
    """95% intervals of the recalls, by name; left items are drawn anew with all their partners.

    Args:
        task: G left items.
        ranks: Of the queries of both directions, (Q,) int64 each.
        depths: The k that are told.
        form: What their names are made of.
    """
    names, hits, counts = hits_by_unit(task, ranks, depths, form)
    ends = intervals(hits, counts)  # (names, 2)
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, ends, strict=True)}


def hits_by_unit(
    task: Task,
    ranks: Sequence[np.ndarray],
    depths: Sequence[int] = DEPTHS,
    form: str = "R@{}",
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the recalls, and by left item how many of its queries succeed, and how many it has.

    Args:
        task: G left items; each is a unit, its partners' queries with it.
        ranks: Of the queries of both directions, (Q,) int64 each.
        depths: The k that are told.
        form: What their names are made of.

    Returns:
        K names, (G, K) float64, and (G, K) int64.
    """
    names, hits, counts = [], [], []
    units = len(task.left.rows)
    for way, found in zip(task.directions, ranks, strict=True):
        queries = np.bincount(way.units, minlength=units)  # (G,)
        for k in depths:
            names.append(f"{way.name}/{form.format(k)}")
            hits.append(np.bincount(way.units, weights=found <= k, minlength=units))
            counts.append(queries)
    return names, np.stack(hits, axis=1), np.stack(counts, axis=1)
