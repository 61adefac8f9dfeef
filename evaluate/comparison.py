"""Methods side by side on one split's retrieval, all drawn anew together.

G left items with their partners (the bootstrap units), K recalls, M methods, S resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..cache.catalog import Cache
from ..train.run import Run
from .bootstrap import resampled
from .paper import Figure, Measured, PaperTable, headings, shown, to_json
from .paper_specs import Spec
from .retrieval import BENCHMARK, hits_by_unit, prepare, ranks_of
from .systems import systems_of
from .tables import escaped

MEAN = "mean recall"
"""Of the K recalls, that of R@1, 5 and 10 in both directions."""
EXPLANATION = (
    "Recalls in %, mean over {seeds}; ± half of the 95% bootstrap interval over {units} left items "
    "(drawn anew with their partners, the same for all methods), σ the deviation over seeds. "
    "Difference: of the mean recall to that of {first}, with its interval; where that holds 0 the "
    "two are level. Seconds: of a fit, validation included. Parameters: learned or solved for. "
    "Best in bold."
)


@dataclass(frozen=True)
class Found:
    """What a run finds on a split."""

    names: list[str]
    """Of the K recalls."""
    hits: np.ndarray
    """(G, K): of the queries of each unit, how many succeed."""
    queries: np.ndarray
    """(G, K): how many there are."""


@dataclass
class Contestant:
    """A method, by seed."""

    label: str
    parameters: int
    """Learned or solved for, counted."""
    found: dict[int, Found] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    """Of the fit."""


@dataclass(frozen=True)
class Difference:
    """Of a method's mean recall to the first one's; shares, with a 95% interval."""

    value: float
    low: float
    high: float

    @property
    def level(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """The methods of one split, ready to be shown."""

    contestants: list[Contestant]
    recalls: PaperTable
    differences: list[Difference]
    units: int
    """G."""


def find(cache: Cache, run: Run, dataset: str, split: str) -> Found:
    """Retrieve on a split with a run's model.

    Raises:
        InputError, CacheError: As `evaluate_retrieval`.
    """
    items = cache.items(dataset, split)
    task = prepare(cache, items, run)
    system = systems_of(cache, items, run, task.left, task.right)[0]
    return Found(*hits_by_unit(task, ranks_of(system, task, run)))


def compare(contestants: Sequence[Contestant], where: str) -> Comparison:
    """Set methods beside each other.

    Args:
        contestants: At least one, each of at least one seed, all of the same split.
        where: Data set and split.
    """
    # Over the seeds of a method: queries are the same, so its recalls are those of the mean hits.
    hits = [np.mean([f.hits for f in c.found.values()], axis=0) for c in contestants]
    first = next(iter(contestants[0].found.values()))
    queries, names = first.queries, [*first.names, MEAN]

    def statistic(times: np.ndarray) -> np.ndarray:
        """(S, G) -> (S, M * (K + 1) + M): recalls of each method, then differences."""
        each = [_recalls(times, part, queries) for part in hits]
        ahead = [recalls[:, -1:] - each[0][:, -1:] for recalls in each]
        return np.concatenate([*each, *ahead], axis=1)

    values = statistic(np.ones((1, len(queries))))[0]
    ends = resampled(statistic, np.arange(len(queries)))
    rows = []
    for place, contestant in enumerate(contestants):
        row = Measured(contestant.label, "model")
        for column, name in enumerate(names):
            row.values[name] = {
                seed: float(_recalls(np.ones((1, len(queries))), found.hits, queries)[0, column])
                for seed, found in contestant.found.items()
            }
            low, high = ends[place * len(names) + column]
            row.ends[name] = {0: (float(low), float(high))}
        rows.append(row)
    start = len(contestants) * len(names)
    differences = [
        Difference(float(value), float(low), float(high))
        for value, (low, high) in zip(values[start:], ends[start:], strict=True)
    ]
    spec = Spec("", BENCHMARK, BENCHMARK, "", "standard")
    table = PaperTable(spec, where, names, rows, [], [])
    return Comparison(list(contestants), table, differences, len(queries))


def _recalls(times: np.ndarray, hits: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(S, G), (G, K), (G, K) -> (S, K + 1): the recalls and their mean."""
    shares = (times @ hits) / (times @ queries)
    return np.concatenate([shares, shares.mean(1, keepdims=True)], axis=1)


def columns(comparison: Comparison) -> list[str]:
    """What the columns of the table are called, the first one apart."""
    return [*headings(comparison.recalls), "difference", "seconds", "parameters"]


def cells(comparison: Comparison) -> list[list[Figure]]:
    """The table, by row."""
    rows = []
    for place, recalls in enumerate(shown(comparison.recalls)):
        contestant, ahead = comparison.contestants[place], comparison.differences[place]
        half = 100 * (ahead.high - ahead.low) / 2
        seconds = float(np.mean(list(contestant.seconds.values())))
        rows.append(
            [
                *recalls,
                Figure(f"{100 * ahead.value:+.1f}", f" ±{half:.1f}", False)
                if place
                else Figure("", "", False),
                Figure(f"{seconds:,.1f}", "", False),
                Figure(f"{contestant.parameters:,}", "", False),
            ]
        )
    return rows


def remarks(comparison: Comparison) -> str:
    """What stands below the table."""
    seeds = max(len(contestant.found) for contestant in comparison.contestants)
    return EXPLANATION.format(
        seeds=f"{seeds} seeds" if seeds > 1 else "one seed",
        units=f"{comparison.units:,}",
        first=comparison.contestants[0].label,
    )


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, and what its figures mean."""
    names = columns(comparison)
    lines = [f"### Retrieval ({escaped(comparison.recalls.where)})", ""]
    lines.append("| | " + " | ".join(names) + " |")
    lines.append("|---|" + "---:|" * len(names))
    for contestant, row in zip(comparison.contestants, cells(comparison), strict=True):
        texts = [f"**{f.text}**{f.spread}" if f.best else f.text + f.spread for f in row]
        lines.append("| " + " | ".join([escaped(contestant.label), *texts]) + " |")
    return "\n".join([*lines, "", remarks(comparison), ""])


def document(comparison: Comparison) -> dict[str, Any]:
    """The same as JSON values, every figure with its seeds."""
    (table,) = to_json([comparison.recalls])
    for place, row in enumerate(table["rows"]):
        contestant, ahead = comparison.contestants[place], comparison.differences[place]
        row["difference"] = {"mean": ahead.value, "interval": [ahead.low, ahead.high]}
        row["seconds"] = contestant.seconds
        row["parameters"] = contestant.parameters
    return table
