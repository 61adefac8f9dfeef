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

from .figures import AXIS_NAMES, LOGARITHMIC, Drawing, Line, drawn, panel_title
from .results import Result
from .tables import ABSENT, HEADINGS, escaped

PAPER_FIGURES = Path(__file__).with_name("paper_figures.json")
ORDER = ("paper", "model", "baseline", "raw", "untrained", "chance")
"""Of the rows of a table, by kind; `paper` is what the paper prints."""
PLAIN = ("median_rank", "MRR", "MCC", "threshold", "Spearman", "Pearson")
"""Metrics that are no shares."""


@dataclass(frozen=True)
class Spec:
    """One table: where its figures come from, and its columns."""

    number: str
    """As the paper counts, such as `Table II` or `Figure 4`."""
    title: str
    benchmark: str
    dataset: str
    """Beginning of the data set's name in the cache; empty for that of the run."""
    protocol: str
    printed: str = ""
    """Key of the paper's rows in paper_figures.json; empty where it prints none."""
    panels: bool = False
    """Whether a figure is drawn of it too."""


SPECS = (
    Spec("Table II", "QQP, cosine threshold 0.9", "paraphrase", "qqp", "paper", "II"),
    Spec("Table II, standard", "QQP, tuned threshold", "paraphrase", "qqp", "standard"),
    Spec("Table III", "MRPC, cosine threshold 0.9", "paraphrase", "mrpc", "paper", "III"),
    Spec("Table III, standard", "MRPC, tuned threshold", "paraphrase", "mrpc", "standard"),
    Spec(
        "Figure 3",
        "STS-B, accuracy within an error tolerance, mean over 100 tolerances from 0.1 to 1",
        "similarity",
        "stsb",
        "paper",
        panels=True,
    ),
    Spec(
        "Figure 3, standard", "STS-B, correlation with the grades", "similarity", "stsb", "standard"
    ),
    Spec("Table IV", "CIFAR-10 zero-shot, bare class names", "zero-shot", "cifar10", "names", "IV"),
    Spec(
        "Table IV, standard", "CIFAR-10 zero-shot, 18 templates", "zero-shot", "cifar10", "ensemble"
    ),
    Spec("Table V", "CIFAR-100, linear head by epoch", "linear", "cifar100", "paper", "V"),
    Spec("Table V, standard", "CIFAR-100, L-BFGS probe", "linear", "cifar100", "standard"),
    Spec("Table VI", "Tiny ImageNet, fine-tuned, by epoch", "fine-tune", "tiny-imagenet", "", "VI"),
    Spec("Figure 4", "Retrieval, precision at k", "retrieval", "flickr8k", "paper", panels=True),
    Spec("Figure 4, standard", "Retrieval, recall at k", "retrieval", "flickr8k", "standard"),
    Spec("Retrieval", "COCO, recall at k", "retrieval", "coco", "standard"),
)


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


def paper_tables(entries: Sequence[Entry]) -> list[PaperTable]:
    """Every table that the entries have figures for, in the paper's order."""
    printed = json.loads(PAPER_FIGURES.read_text(encoding="utf-8"))
    tables = (_table(spec, entries, printed.get(spec.printed, [])) for spec in SPECS)
    return [table for table in tables if table is not None]


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
        and result.dataset.startswith(spec.dataset)
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
    prefixes = list(dict.fromkeys(name.rpartition("/")[0] for name in table.metrics))
    headings = [_heading(name, len(prefixes) > 1) for name in table.metrics]
    lines.append("| | " + " | ".join(headings) + " |")
    lines.append("|---|" + "---:|" * len(headings))
    best = {name: _best(table, name) for name in table.metrics}
    for row in table.rows:
        cells = [_text(row, name, row.mean(name) == best[name]) for name in table.metrics]
        name = f"*{escaped(row.system)}*" if row.kind == "paper" else escaped(row.system)
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += ["", *(f"- {escaped(note)}" for note in table.notes)]
    return "\n".join(lines) + "\n"


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


def _text(row: Measured, name: str, best: bool) -> str:
    mean = row.mean(name)
    if mean is None:
        return ABSENT
    metric = name.rpartition("/")[2]
    scale, digits = (1, 3) if metric in PLAIN else (100, 1)
    digits = 1 if metric == "median_rank" else digits
    text = f"{scale * mean:.{digits}f}"
    text = f"**{text}**" if best and row.kind not in ("paper", "chance") else text
    for sign, value in (("±", row.half_width(name)), ("σ", row.deviation(name))):
        text += "" if value is None else f" {sign}{scale * value:.{digits}f}"
    return text


def drawings(tables: Sequence[PaperTable]) -> dict[str, Drawing]:
    """The figures by file name: a line a system, a band from its lowest seed to its highest."""
    return {
        f"{table.spec.number.lower().replace(' ', '-')}.png": _drawing(table)
        for table in tables
        if table.spec.panels and table.axis
    }


def _drawing(table: PaperTable) -> Drawing:
    shown = drawn(table.spec.benchmark, table.rows)
    names = list(shown[0].curves)
    return Drawing(
        title=f"{table.spec.number}: {table.spec.title} ({table.where})",
        axis_name=AXIS_NAMES.get(table.spec.benchmark, ""),
        logarithmic=table.spec.benchmark in LOGARITHMIC,
        value_name="accuracy (%)" if table.spec.benchmark == "similarity" else "precision (%)",
        axis=table.axis,
        panels={
            panel_title(table.spec.benchmark, name): [
                _line(row, name) for row in shown if name in row.curves
            ]
            for name in names
        },
    )


def _line(row: Measured, name: str) -> Line:
    seeds = list(row.curves[name].values())
    low, mean, high = (
        [pick(ys) for ys in zip(*seeds, strict=True)] for pick in (min, statistics.fmean, max)
    )
    return Line(row.system, row.kind, mean, *((low, high) if len(seeds) > 1 else ()))
