"""Results as tables: Markdown for files, rich for the terminal. Shares in percent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .results import Result, Row

HEADINGS = {
    "median_rank": "median rank",
    "MRR": "MRR",
    "mean_class_recall": "per class",
    "ROC_AUC": "ROC AUC",
    "dissimilar/precision": "P₀",
    "dissimilar/recall": "R₀",
    "dissimilar/F1": "F1₀",
    "similar/precision": "P₁",
    "similar/recall": "R₁",
    "similar/F1": "F1₁",
}
"""How a metric is called in a table, where that is not its name."""
PROTOCOLS = {
    ("zero-shot", "photo"): "“a photo of a {}.”",
    ("zero-shot", "names"): "bare class names",
    ("paraphrase", "standard"): "threshold chosen on another split",
    ("paraphrase", "paper"): "similar from a cosine of 0.9 on",
    ("similarity", "standard"): "correlation of cosine and grade",
    ("similarity", "paper"): "grades",
    ("linear", "standard"): "L-BFGS, C chosen on train",
    ("linear", "paper"): "SGD head, top-1 by epoch",
    ("fine-tune", "paper"): "top-1 by epoch",
}
SECTIONS = {
    ("paraphrase", "standard"): {"dissimilar": "each class", "similar": "each class"},
    ("paraphrase", "paper"): {"dissimilar": "", "similar": ""},
}
"""By benchmark and protocol: the section of the metrics of a direction, where that is not the
direction's own."""
LOWER_IS_BETTER = ("median_rank",)
HIDDEN = ("threshold",)
"""Metrics that results.json alone has."""
EXPLANATION = "Recalls and accuracies in %, ± half of the 95% bootstrap interval over {unit}."
_OVER_GROUPS = "± half of the 95% bootstrap interval over groups of pairs that share sentences."
_OF_CLASSES = "P, R, F1: precision, recall, F1 of the dissimilar (₀) and the similar pairs (₁)."
EXPLANATIONS = {
    ("paraphrase", "standard"): f"In %, {_OVER_GROUPS} {_OF_CLASSES}",
    ("paraphrase", "paper"): f"In %, {_OVER_GROUPS} {_OF_CLASSES}",
    ("similarity", "standard"): f"Times 100, {_OVER_GROUPS}",
    ("similarity", "paper"): "Share of the pairs, in %, whose grade five times the cosine meets "
    "within a tolerance: mean over 100 tolerances from 0.1 to 1.",
}
UNLABELLED = "unlabelled pairs"
"""What a result excludes for want of a label, not of embeddings."""
ABSENT = "-"


@dataclass(frozen=True)
class Cell:
    """A figure as it is shown."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a table: one direction of retrieval, or one protocol of classification."""

    title: str
    headings: list[str]
    rows: list[tuple[Row, list[Cell]]]


def together(results: Sequence[Result]) -> Iterator[list[Result]]:
    """Results that share a table: of one benchmark, split and couple of encoders, same columns."""
    for _, group in groupby(results, key=lambda r: (r.key[:3], r.key[4], _columns(r))):
        yield list(group)


def _columns(result: Result) -> list[str]:
    return sections_of(result)[0].headings


def table(results: Sequence[Result]) -> Table:
    """One table for the terminal; no wider than 80 columns unless a system's name is.

    Args:
        results: Of one benchmark and split, at least one.
    """
    sections = [section for result in results for section in sections_of(result)]
    widest = max((section.headings for section in sections), key=len)
    shared = all(section.headings == widest for section in sections)
    grid = Table(
        title=Text(title(results[0]), style="bold"),
        title_justify="left",
        caption=Text("\n".join(remarks(results[0]))),
        caption_justify="left",
        box=None,
        show_header=shared,
        pad_edge=False,
        header_style="dim",
    )
    grid.add_column("", overflow="fold", min_width=12)
    for heading in widest:
        grid.add_column(heading, justify="right", no_wrap=len(heading) < 8, overflow="fold")
    for section in sections:
        headings = [] if shared else [Text(heading, style="dim") for heading in section.headings]
        grid.add_row(Text(section.title, style="italic"), *headings)
        for row, cells in section.rows:
            style = "dim" if row.kind == "chance" else ""
            shown = [Text(cell.text, style="bold" if cell.best else "") for cell in cells]
            grid.add_row(Padding(Text(row.system), (0, 0, 0, 2)), *shown, style=style)
    return grid


def markdown(results: Sequence[Result]) -> str:
    """The same in Markdown: a heading, a table for each section, remarks.

    Args:
        results: Of one benchmark and split, at least one.
    """
    lines = [f"## {escaped(title(results[0]))}", ""]
    for result in results:
        for section in sections_of(result):
            lines.append("| " + " | ".join([escaped(section.title), *section.headings]) + " |")
            lines.append("|---|" + "---:|" * len(section.headings))
            for row, cells in section.rows:
                shown = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
                lines.append("| " + " | ".join([escaped(row.system), *shown]) + " |")
            lines.append("")
    lines += [f"- {escaped(remark)}" for remark in remarks(results[0])]
    return "\n".join(lines) + "\n"


def title(result: Result) -> str:
    """Benchmark, split and encoders in a line."""
    return f"{result.benchmark}: {result.dataset}/{result.split}, {result.key[4]}"


def remarks(result: Result) -> list[str]:
    """What stands below a table: how much took part, what did not, and what to bear in mind."""
    counts = ", ".join(
        f"{count:,} {name}" for name, count in result.counts.items() if name != "templates"
    )
    unit = "images" if "image" in result.encoders else "left items"
    found = [f"Run {result.run}, preset {result.preset}. {counts}."]
    excluded = {name: f"{count:,} {name}" for name, count in result.excluded.items() if count}
    unlabelled = excluded.pop(UNLABELLED, None)
    if excluded:
        found.append(f"Left out, for want of embeddings: {', '.join(excluded.values())}.")
    if unlabelled:
        found.append(f"Left out: {unlabelled}.")
    if result.note:
        found.append(f"Note: {result.note}.")
    explanation = EXPLANATIONS.get((result.benchmark, result.protocol), EXPLANATION)
    return [*found, explanation.format(unit=unit)]


def sections_of(result: Result) -> list[Section]:
    """The parts of a result, each with its metrics in order."""
    sections: dict[str, list[str]] = {}
    for name in result.rows[0].metrics:
        if name not in HIDDEN:
            sections.setdefault(_place(result, name), []).append(name)
    return [_section(result, place, names) for place, names in sections.items()]


def _place(result: Result, name: str) -> str:
    """The section of a metric: its direction, unless that has another one."""
    prefix = name.rpartition("/")[0]
    return SECTIONS.get((result.benchmark, result.protocol), {}).get(prefix, prefix)


def _section(result: Result, place: str, names: list[str]) -> Section:
    best = {name: _best(result.rows, name) for name in names}
    rows = [
        (row, [Cell(show(row, name), _text(row, name) == best[name]) for name in names])
        for row in result.rows
    ]
    short = {name: name.rpartition("/")[2] for name in names}
    return Section(
        title=place.replace("_to_", " → ") or _protocol_title(result),
        headings=[HEADINGS.get(name, HEADINGS.get(short[name], short[name])) for name in names],
        rows=[
            (row, [Cell(cell.text, cell.best and row.kind != "chance") for cell in cells])
            for row, cells in rows
        ],
    )


def _protocol_title(result: Result) -> str:
    ensemble = f"ensemble of {result.counts.get('templates', 0)} templates"
    return PROTOCOLS.get((result.benchmark, result.protocol), ensemble)


def _best(rows: Sequence[Row], name: str) -> str:
    """The best figure as it is shown, chance apart; rows that show the same are all best."""
    values = [
        (row.metrics[name], row) for row in rows if name in row.metrics and row.kind != "chance"
    ]
    if not values:
        return ""
    pick = min if name.rpartition("/")[2] in LOWER_IS_BETTER else max
    return _text(pick(values, key=lambda pair: pair[0])[1], name)


def show(row: Row, name: str) -> str:
    """A metric with its interval: `45.3 ±1.2`; a dash where the system has none."""
    if name not in row.intervals:
        return _text(row, name)
    low, high = row.intervals[name]
    return f"{_text(row, name)} ±{100 * (high - low) / 2:.1f}"


def _text(row: Row, name: str) -> str:
    if name not in row.metrics:
        return ABSENT
    value, metric = row.metrics[name], name.rpartition("/")[2]
    if metric == "median_rank":
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.3f}" if metric == "MRR" else f"{100 * value:.1f}"


def escaped(text: str) -> str:
    """Text that cannot break out of a Markdown table."""
    flat = " ".join(text.split())
    for sign in "\\|`*_<>[]":
        flat = flat.replace(sign, "\\" + sign)
    return flat
