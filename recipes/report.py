"""One page about one or several runs: what `cbmf report` writes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.files import value_digest
from ..evaluate.charts import Chart, panel_charts
from ..evaluate.paper import Entry, PaperTable, headings, paper_tables, shown
from ..evaluate.paper_drawings import drawings
from ..evaluate.results import RESULTS_FOLDER, Result, Row, read_results
from ..evaluate.sides import run_name
from ..evaluate.systems import model_name
from ..train.run import Run
from ..train.source import TEST, TRAIN, VAL
from .page import write_page
from .report_section import section_of

REPORT_NAME = "report.html"
FEW_RUNS = 3
"""Runs up to which each gallery has many examples; the page shall stay under 3 MB."""
EXAMPLES = {True: 4, False: 2}
NAMED_RUNS = 4
"""Runs up to which the page's title names them."""


def silent(text: str) -> None:
    """Report nothing."""


def write_report(
    folders: Sequence[Path],
    cache: Cache,
    out: Path,
    *,
    root: Path | None = None,
    report: Callable[[str], None] = silent,
) -> Path:
    """Write one self-contained HTML page about runs; nothing is encoded, or measured anew.

    What was measured is read from their folders; what cannot be shown is named with the reason.

    Args:
        folders: Of the runs, at least one.
        cache: Where their embeddings lie.
        out: The HTML file.
        root: Where the data lie, for pictures; None: where stage 1 looks for them.
        report: Called with what is being done.

    Raises:
        InputError: If no run is named, or one twice.
        RunError: If one is missing or damaged.
    """
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("name the folders of runs, each once, such as runs/*")
    runs = [Run.load(folder) for folder in folders]
    measured = [_chosen(read_results(run.folder / RESULTS_FOLDER)) for run in runs]
    examples = EXAMPLES[len(runs) <= FEW_RUNS]
    sections = []
    for run, results in zip(runs, measured, strict=True):
        report(f"looking at {run.folder}")
        sections.append(section_of(cache, run, results, root, examples))
    tables = paper_tables(_entries(runs, measured), others=True)
    return write_page(
        out,
        "report.html",
        title=", ".join(section.name for section in sections)
        if len(sections) <= NAMED_RUNS
        else f"{len(sections)} runs",
        sections=sections,
        tables=[(table, headings(table), shown(table)) for table in tables],
        curves=_curves(tables),
        seeds=len({run.config.seed for run in runs}),
    )


def _chosen(results: Sequence[Result]) -> list[Result]:
    """Of results that differ in the split alone, those on the one that a run is reported on."""
    order = (TEST, VAL, TRAIN)
    best: dict[tuple[str, str], str] = {}
    for result in results:
        key = result.benchmark, result.dataset
        best[key] = min(
            best.get(key, result.split),
            result.split,
            key=lambda split: order.index(split) if split in order else len(order),
        )
    return [r for r in results if r.split == best[r.benchmark, r.dataset]]


def _entries(runs: Sequence[Run], measured: Sequence[Sequence[Result]]) -> list[Entry]:
    """The runs as systems of common tables; fits that differ in the seed alone are one system."""
    recipes = [_recipe(run) for run in runs]
    of_name: dict[str, dict[str, str]] = defaultdict(dict)  # model name -> recipe -> first run
    for run, recipe in zip(runs, recipes, strict=True):
        of_name[model_name(run)].setdefault(recipe, run_name(run))
    labels = []
    for run, recipe in zip(runs, recipes, strict=True):
        name = model_name(run)
        same = of_name[name]
        labels.append(name if len(same) == 1 else f"{name} ({same[recipe]})")
    shared: dict[tuple[str, ...], set[str]] = defaultdict(set)  # table -> labels in it
    for label, results in zip(labels, measured, strict=True):
        for result in results:
            shared[result.key[:4]].add(label)
    entries = []
    for run, label, results in zip(runs, labels, measured, strict=True):
        own = []
        often = Counter(result.key[:4] for result in results)
        for result in results:
            beside = f", beside {label}" if len(shared[result.key[:4]]) > 1 else ""
            encoders = f", {_encoders(result)}" if often[result.key[:4]] > 1 else ""
            own.append(_told_apart(result, model_name(run), label, beside, encoders))
        entries.append(Entry(label, run.config.seed, own, model_name(run)))
    return entries


def _recipe(run: Run) -> str:
    """Digest of all that a fit follows from but the seed."""
    fit = {key: value for key, value in asdict(run.config).items() if key != "seed"}
    return value_digest([fit, run.dataset, [spec.identity for spec in run.model.encoders]])


def _encoders(result: Result) -> str:
    return " with ".join(dict.fromkeys(result.encoders.values()))


def _told_apart(result: Result, name: str, label: str, beside: str, encoders: str) -> Result:
    """The result with its rows named so that no two systems of a common table share a name.

    Args:
        result: Of a run.
        name: What it calls the model.
        label: What the common tables call it.
        beside: What to add to the name of what was fitted beside.
        encoders: What to add to the names of all models, where a run has the same of others too.
    """

    def named(row: Row) -> str:
        if row.kind == "untrained":
            return row.system.replace(name, label, 1) + encoders
        if row.kind == "baseline":
            return row.system + beside + encoders
        return row.system + encoders if row.kind == "model" else row.system

    return replace(result, rows=[replace(row, system=named(row)) for row in result.rows])


def _curves(tables: Sequence[PaperTable]) -> list[Chart]:
    """The paper's figures of these runs."""
    return [chart for drawing in drawings(tables).values() for chart in panel_charts(drawing)]
