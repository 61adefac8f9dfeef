"""What a run's results come to, in a few plain lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .results import Result, Row
from .tables import show

TOLD = {
    ("retrieval", "standard"): "R@10",
    ("zero-shot", "ensemble"): "top-1",
    ("linear", "standard"): "top-1",
    ("fine-tune", "paper"): "epoch",
    ("paraphrase", "standard"): "AP",
    ("similarity", "standard"): "Spearman",
}
"""By benchmark and protocol: how the name of the metric begins that is told, its direction apart;
of several of a direction the last."""
FLOORS = ("baseline", "raw")
"""Kinds of systems that a user could take instead."""
AHEAD, LEVEL, BEHIND = "ahead", "level", "behind"


@dataclass(frozen=True)
class Headline:
    """One benchmark's outcome."""

    what: str
    """Benchmark, data set and metric."""
    figure: str
    """Of the model, with its interval; times 100."""
    floor: str
    """Name and figure of the best floor; empty without one."""
    chance: str
    """Figure of guessing; empty without one."""
    verdict: str
    """`ahead` of the floor, `level` with it (within half of the model's interval), `behind`; empty
    without a floor."""


def headlines(results: Sequence[Result]) -> list[Headline]:
    """One for each benchmark, data set and direction, in the order of TOLD."""
    often = Counter(result.key[:4] for result in results)
    return [
        _headline(result, name, often[result.key[:4]] > 1)
        for kind in TOLD
        for result in results
        if (result.benchmark, result.protocol) == kind and result.rows
        for name in _told(result)
    ]


def _told(result: Result) -> Iterator[str]:
    start = TOLD[result.benchmark, result.protocol]
    fitting = {
        name.rpartition("/")[0]: name
        for name in result.rows[0].metrics
        if name.rpartition("/")[2].startswith(start)
    }
    yield from fitting.values()


def _headline(result: Result, name: str, of_several: bool) -> Headline:
    """The headline of a metric; of several sets of encoders it says of which it is."""
    ours = _best(result, name, ("model",))
    floor, chance = _best(result, name, FLOORS), _best(result, name, ("chance",))
    direction, _, metric = name.rpartition("/")
    way = f" {direction.replace('_to_', ' → ')}" if direction else ""
    verdict = ""
    if ours is not None and floor is not None:
        low, high = ours.intervals.get(name, (0.0, 0.0))
        ahead = ours.metrics[name] - floor.metrics[name]
        verdict = LEVEL if abs(ahead) <= (high - low) / 2 else AHEAD if ahead > 0 else BEHIND
    return Headline(
        what=f"{result.benchmark}, {result.dataset}/{result.split}{way}, {metric}"
        + (f", {' with '.join(dict.fromkeys(result.encoders.values()))}" if of_several else ""),
        figure="" if ours is None else show(ours, name),
        floor="" if floor is None else f"{floor.system} {_plain(floor, name)}",
        chance="" if chance is None else _plain(chance, name),
        verdict=verdict,
    )


def _best(result: Result, name: str, kinds: Sequence[str]) -> Row | None:
    """The best row of some kinds that has the metric."""
    rows = [row for row in result.rows if row.kind in kinds and name in row.metrics]
    return max(rows, key=lambda row: row.metrics[name], default=None)


def _plain(row: Row, name: str) -> str:
    return f"{100 * row.metrics[name]:.1f}"
