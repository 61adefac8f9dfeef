"""The paper's tables and figures from many runs: its figures, ours over seeds, and the floors.

A figure of ours is the mean over seeds; ± is half of its 95% bootstrap interval (mean over seeds),
σ the standard deviation over seeds.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .paper_specs import SPECS, Spec
from .results import Result
from .tables import ABSENT, HEADINGS, PROTOCOLS, escaped

PAPER_FIGURES = Path(__file__).with_name("paper_figures.json")
ORDER = ("paper", "model", "baseline", "raw", "untrained", "chance")
"""Of the rows of a table, by kind; `paper` is what the paper prints."""
PLAIN = ("median_rank", "MRR", "MCC", "threshold", "Spearman", "Pearson")
"""Metrics that are no shares."""


@dataclass(frozen=True)
class Entry:
    """One run's results."""

    label: str
    """What its model is called in the tables."""
    seed: int
    results: Sequence[Result]
    renamed: str = ""
    """What the results call the model, where that is not the label."""


@dataclass
class Measured:
    """One row of a table: figures by metric, one of each seed."""

    system: str
    kind: str
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    """Metric -> seed -> figure."""
    ends: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    """Likewise the bootstrap interval."""
    curves: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def take(self, row: Any, seed: int) -> None:
        """Add what a seed has; a row that several runs share (a floor) counts once a seed."""
        for name, value in row.metrics.items():
            self.values.setdefault(name, {}).setdefault(seed, value)
        for name, pair in row.intervals.items():
            self.ends.setdefault(name, {}).setdefault(seed, pair)
        for name, ys in row.curves.items():
            self.curves.setdefault(name, {}).setdefault(seed, ys)

    def mean(self, name: str) -> float | None:
        """Mean over seeds; None without the metric."""
        found = self.values.get(name)
        return statistics.fmean(found.values()) if found else None

    def deviation(self, name: str) -> float | None:
        """Standard deviation over seeds; None for one seed or seeds that do not differ."""
        found = list(self.values.get(name, {}).values())
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        return spread or None

    def half_width(self, name: str) -> float | None:
        """Half of the bootstrap interval, mean over seeds."""
        found = self.ends.get(name)
        return statistics.fmean((high - low) / 2 for low, high in found.values()) if found else None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, with ours beside."""

    spec: Spec
    where: str
    """Data set and split in the cache."""
    metrics: list[str]
    rows: list[Measured]
    axis: list[float]
    notes: list[str]


@dataclass(frozen=True)
class Figure:
    """A cell of a table, as it is shown."""

    text: str
    spread: str
    """Half of the interval and the deviation over seeds, such as ` ±1.0 σ2.0`; may be empty."""
    best: bool


def paper_tables(entries: Sequence[Entry], others: bool = False) -> list[PaperTable]:
    """Every table that the entries have figures for, in the paper's order.

    Args:
        entries: Runs with their results.
        others: Tables of what the paper has not measured too, after them.
    """
    printed = json.loads(PAPER_FIGURES.read_text(encoding="utf-8"))
    specs = [*SPECS, *_other_specs(entries)] if others else SPECS
    tables = (_table(spec, entries, printed.get(spec.printed, [])) for spec in specs)
    return [table for table in tables if table is not None]


def _other_specs(entries: Sequence[Entry]) -> list[Spec]:
    """A table of each benchmark, data set and protocol that no table of the paper is of."""
    found = {
        (result.benchmark, result.dataset, result.protocol): None
        for entry in entries
        for result in entry.results
        if not any(_fits(spec, result) for spec in SPECS)
    }
    return [
        Spec("", _other_title(benchmark, protocol), benchmark, dataset, protocol, exact=True)
        for benchmark, dataset, protocol in found
    ]


def _other_title(benchmark: str, protocol: str) -> str:
    return f"{benchmark}, {PROTOCOLS.get((benchmark, protocol), protocol)}"


def _table(
    spec: Spec, entries: Sequence[Entry], printed: Iterable[dict[str, Any]]
) -> PaperTable | None:
    rows: dict[tuple[str, str], Measured] = {}
    metrics: dict[str, None] = {}
    notes: list[set[str]] = []
    found = [(e, r) for e in entries for r in e.results if _fits(spec, r)]
    if not found:
        return None
    axis = max((result.axis for _, result in found), key=len)
    where = f"{found[-1][1].dataset}/{found[-1][1].split}"
    apart: dict[str, None] = {}
    for entry, result in found:
        if result.axis != axis:  # of fewer candidates, say
            apart[f"{entry.label}, seed {entry.seed}"] = None
            continue
        notes.append(set(filter(None, result.note.split("; "))))
        for row in result.rows:
            name = row.system
            if row.kind == "model" and entry.renamed:
                name = name.replace(entry.renamed, entry.label)
            measured = rows.setdefault((row.kind, name), Measured(name, row.kind))
            measured.take(row, entry.seed)
            metrics |= dict.fromkeys(row.metrics)
    for line in printed:
        shares = {name: {0: value / 100} for name, value in line["metrics"].items()}
        rows["paper", line["system"]] = Measured(f"{line['system']}, paper", "paper", shares)
        metrics |= dict.fromkeys(shares)
    ordered = sorted(rows.values(), key=lambda row: ORDER.index(row.kind))
    common = sorted(set.intersection(*notes))  # what holds of one run alone is in its own results
    common += [f"measured on other candidates, and left out: {', '.join(apart)}"] if apart else []
    return PaperTable(spec, where, list(metrics), ordered, axis, common)


def _fits(spec: Spec, result: Result) -> bool:
    return (
        result.benchmark == spec.benchmark
        and (
            result.dataset == spec.dataset
            if spec.exact
            else result.dataset.startswith(spec.dataset)
        )
        and spec.protocol in ("", result.protocol)
    )


def to_json(tables: Sequence[PaperTable]) -> list[dict[str, Any]]:
    """The tables as JSON values: every figure with its seeds, deviation and interval."""
    return [
        {
            "table": table.spec.number,
            "title": table.spec.title,
            "data": table.where,
            "notes": table.notes,
            "rows": [
                {
                    "system": row.system,
                    "kind": row.kind,
                    "metrics": {name: _cell(row, name) for name in row.values},
                }
                for row in table.rows
            ],
        }
        for table in tables
    ]


def _cell(row: Measured, name: str) -> dict[str, Any]:
    ends = row.ends.get(name)
    return {
        "mean": row.mean(name),
        "deviation": row.deviation(name),
        "interval": [statistics.fmean(side) for side in zip(*ends.values(), strict=True)]
        if ends
        else None,
        "seeds": row.values[name],
    }


def to_markdown(tables: Sequence[PaperTable]) -> str:
    """The tables in Markdown; shares in percent."""
    return "\n".join(_markdown(table) for table in tables)


def _markdown(table: PaperTable) -> str:
    lines = [f"### {table.spec.number}: {table.spec.title} ({escaped(table.where)})", ""]
    names = headings(table)
    lines.append("| | " + " | ".join(names) + " |")
    lines.append("|---|" + "---:|" * len(names))
    for row, figures in zip(table.rows, shown(table), strict=True):
        cells = [f"**{f.text}**{f.spread}" if f.best else f.text + f.spread for f in figures]
        name = f"*{escaped(row.system)}*" if row.kind == "paper" else escaped(row.system)
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += ["", *(f"- {escaped(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def headings(table: PaperTable) -> list[str]:
    """What the columns of a table are called."""
    prefixes = {name.rpartition("/")[0] for name in table.metrics}
    return [_heading(name, len(prefixes) > 1) for name in table.metrics]


def shown(table: PaperTable) -> list[list[Figure]]:
    """The cells of a table, by row; shares in percent."""
    best = {name: _best(table, name) for name in table.metrics}
    return [[_figure(row, name, best[name]) for name in table.metrics] for row in table.rows]


def _heading(name: str, with_prefix: bool) -> str:
    prefix, _, metric = name.rpartition("/")
    shown = HEADINGS.get(metric, metric)
    if not prefix or not with_prefix:
        return shown
    return f"{prefix.replace('_to_', '→')} {shown}"


def _best(table: PaperTable, name: str) -> float | None:
    """The best mean of ours, floors included."""
    found = [row.mean(name) for row in table.rows if row.kind not in ("paper", "chance")]
    values = [value for value in found if value is not None]
    if not values or name.endswith("threshold"):
        return None
    return min(values) if name.endswith("median_rank") else max(values)


def _figure(row: Measured, name: str, best: float | None) -> Figure:
    mean = row.mean(name)
    if mean is None:
        return Figure(ABSENT, "", False)
    metric = name.rpartition("/")[2]
    scale, digits = (1, 3) if metric in PLAIN else (100, 1)
    digits = 1 if metric == "median_rank" else digits
    spread = "".join(
        f" {sign}{scale * value:.{digits}f}"
        for sign, value in (("±", row.half_width(name)), ("σ", row.deviation(name)))
        if value is not None
    )
    of_ours = row.kind not in ("paper", "chance")
    return Figure(f"{scale * mean:.{digits}f}", spread, of_ours and mean == best)
