"""Retrieval as the paper shows it (Fig. 4): the share of queries with a partner among the first k.

Q queries, C candidates, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..cache.catalog import Cache
from ..cache.errors import CacheError, InputError
from ..train.run import Run
from .ranks import best_ranks, chance_recall, recall_at
from .results import Result, Row
from .retrieval import BENCHMARK, Direction, Task, describe, prepare, recall_intervals
from .systems import System, systems_of

PROTOCOL = "paper"
DEPTHS = tuple(range(100, 10_001, 100))
"""The k of the curve."""
TOLD = (100, 200, 500, 1000, 5000)
"""The k that stand in the table."""
KINDS = ("model", "baseline")


def evaluate_curve(
    cache: Cache, run: Run, dataset: str, split: str, report: Callable[[str], None]
) -> Result:
    """Precision over k = 100, 200, ... 10,000 of a run, in both directions.

    Queries are the items of the split; candidates are those of all splits of the data set that the
    cache has for the run's encoders, so that Flickr8k has its 40,000 captions as in the paper while
    no query was trained on. A k beyond the candidates is left out. The paper's own curve has every
    image as often as it has captions, and rests on 55 queries (docs/method.md); ours does neither.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: The split that the queries are of.
        report: Called with the system that is being measured.

    Raises:
        InputError, CacheError: As `evaluate_retrieval`.
    """
    started = time.perf_counter()
    items = cache.items(dataset, split)
    task = prepare(cache, items, run)
    others = _others(cache, run, dataset, split)
    sizes = [len(task.left.rows), len(task.right.rows)]
    extra = [sum(len(side.rows) for side in sides) for sides in _sides(others)]
    candidates = {
        task.directions[0].name: sizes[1] + extra[1],
        task.directions[1].name: sizes[0] + extra[0],
    }
    depths = [k for k in DEPTHS if k < max(candidates.values())] or [max(candidates.values())]
    told = [k for k in TOLD if k < min(candidates.values())] or depths[:1]
    rows = []
    for system in systems_of(cache, items, run, task.left, task.right):
        if system.kind in KINDS:
            report(f"{BENCHMARK} {dataset}/{split}, over {len(others) + 1} splits: {system.name}")
            rows.append(_measure(system, task, others, run, depths, told))
    chance = _chance(task, candidates, depths, told)
    described = describe(run, items, task)
    counts = {
        f"candidates {way.replace('_to_', ' → ')}": count for way, count in candidates.items()
    }
    return Result(
        **{
            **described,
            "protocol": PROTOCOL,
            "rows": [*rows, chance],
            "counts": {**described["counts"], **counts},
            "axis": [float(k) for k in depths],
            "seconds": round(time.perf_counter() - started, 3),
        }
    )


def _others(cache: Cache, run: Run, dataset: str, split: str) -> list[Task]:
    """The other splits of the data set, where the cache has them for the run's encoders."""
    found = []
    for name, other in cache.splits():
        if name == dataset and other != split:
            try:
                found.append(prepare(cache, cache.items(name, other), run))
            except (InputError, CacheError):
                continue  # not encoded alike: its items are no candidates
    return found


def _sides(tasks: list[Task]) -> tuple[list, list]:
    return [task.left for task in tasks], [task.right for task in tasks]


def _measure(
    system: System, task: Task, others: list[Task], run: Run, depths: list[int], told: list[int]
) -> Row:
    device = run.model.temperature.log_scale.device
    left, right = system.embed(device)
    more = [replace(system, left=other.left, right=other.right).embed(device) for other in others]
    pools = (_joined(right, [r for _, r in more]), _joined(left, [one for one, _ in more]))
    ranks = [
        best_ranks(queries, candidates, way.positives, way.ignored)
        for way, queries, candidates in zip(task.directions, (left, right), pools, strict=True)
    ]
    return Row(
        system=system.name,
        kind=system.kind,
        metrics=_figures(task, ranks, told, "k={}"),
        intervals=recall_intervals(task, ranks, told, "k={}"),
        curves={
            way.name: [recall_at(found, k) for k in depths]
            for way, found in zip(task.directions, ranks, strict=True)
        },
    )


def _joined(first: Tensor, rest: list[Tensor]) -> Tensor:
    """The split's own candidates before those of the others, so that positives keep their place."""
    return torch.cat([first, *rest])


def _figures(task: Task, ranks: list[np.ndarray], depths: list[int], form: str) -> dict[str, float]:
    return {
        f"{way.name}/{form.format(k)}": recall_at(found, k)
        for way, found in zip(task.directions, ranks, strict=True)
        for k in depths
    }


def _chance(task: Task, candidates: dict[str, int], depths: list[int], told: list[int]) -> Row:
    """What a random order gives."""

    def expected(way: Direction, k: int) -> float:
        open_to = np.full(len(way.units), candidates[way.name])
        if way.ignored is not None:
            open_to = open_to - way.ignored.counts
        return chance_recall(way.positives.counts, open_to, k)

    return Row(
        system="chance",
        kind="chance",
        metrics={f"{way.name}/k={k}": expected(way, k) for way in task.directions for k in told},
        curves={way.name: [expected(way, k) for k in depths] for way in task.directions},
    )
