"""Curves of results as pictures: tolerance curves (Fig. 3) and precision over k (Fig. 4)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..cache.errors import RunError
from ..cache.files import new_file, run_apart
from .results import Result, read_results

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class HasCurves(Protocol):
    """A row of a result or of a table over many runs."""

    @property
    def kind(self) -> str:
        """As in `results.Row`."""
        ...

    @property
    def curves(self) -> Mapping[str, Any]:
        """By name."""
        ...


R = TypeVar("R", bound=HasCurves)
AXIS_NAMES = {"similarity": "error tolerance (of scores 0 to 5)", "retrieval": "k"}
LOGARITHMIC = ("retrieval",)
"""Benchmarks whose curves rise at once and then hardly: their axis is logarithmic."""
DRAWN = {"similarity": ("model", "raw")}
"""Kinds of systems that are drawn, where all would crowd the figure."""
STYLES = {"model": "-", "baseline": "--", "untrained": ":", "raw": "-.", "chance": ":"}
"""By kind of system."""
WIDTH_IN, HEIGHT_IN, DPI = 4.2, 3.4, 130


@dataclass(frozen=True)
class Line:
    """One system's curve in one panel."""

    label: str
    kind: str
    """As in `results.Row`."""
    values: Sequence[float]
    """Shares, 0 to 1, over the axis."""
    low: Sequence[float] | None = None
    """Lowest of several seeds, for a band; with `high`."""
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Drawing:
    """A figure of one or more panels over the same axis."""

    title: str
    axis_name: str
    value_name: str
    axis: Sequence[float]
    panels: dict[str, list[Line]]
    """By the panel's title."""
    logarithmic: bool = False
    """Of the axis."""


def figures_of(folder: Path) -> dict[Path, Result]:
    """The figures of a results folder, drawn or not, and what each shows.

    Of several on one split, which are of other encoders, all but the first are named after them.
    """
    found: dict[Path, Result] = {}
    for result in read_results(folder):
        path = folder / f"{result.benchmark}-{result.dataset}-{result.split}.png"
        if result.axis and path in found:
            encoders = re.sub(r"[^\w.]+", "-", result.key[4])
            path = path.with_name(f"{path.name.removesuffix('.png')}-{encoders}.png")
        if result.axis:
            found[path] = result
    return found


def figure_paths(folder: Path) -> list[Path]:
    """The figures of a results folder, drawn or not."""
    return list(figures_of(folder))


def draw_results(folder: Path) -> None:
    """Draw every result with curves in a results folder, in a process of its own.

    matplotlib loads Pillow, an evaluation must not.

    Raises:
        RunError: If the drawing failed; the results themselves are whole.
    """
    if not figure_paths(folder):
        return
    reason = run_apart(__name__, str(folder), folder=folder)
    if reason:
        raise RunError(f"{folder}: the figures could not be drawn ({reason}); the tables are whole")


def drawing_of(result: Result) -> Drawing:
    """The figure of a result with curves: a panel for each of its curves."""
    rows = drawn(result.benchmark, result.rows)
    names = list(rows[0].curves)
    return Drawing(
        title=f"{result.benchmark}: {result.dataset}/{result.split}, run {result.run}",
        axis_name=AXIS_NAMES.get(result.benchmark, ""),
        logarithmic=result.benchmark in LOGARITHMIC,
        value_name="accuracy (%)" if result.benchmark == "similarity" else "precision (%)",
        axis=result.axis,
        panels={
            panel_title(result.benchmark, name): [
                Line(row.system, row.kind, row.curves[name]) for row in rows if name in row.curves
            ]
            for name in names
        },
    )


def drawn(benchmark: str, rows: Sequence[R]) -> list[R]:
    """The rows of a result or a table that its figure shows."""
    kinds = DRAWN.get(benchmark, ("model", "baseline", "raw", "chance"))
    return [row for row in rows if row.curves and row.kind in kinds]


def panel_title(benchmark: str, name: str) -> str:
    """What a panel is called: a direction of retrieval, or a class of similarity."""
    if benchmark == "similarity":
        return "all pairs" if name == "all" else f"gold similarity {name}"
    return name.replace("_to_", " → ")


def draw(drawing: Drawing, path: Path) -> None:
    """Draw a figure to a PNG, atomically; at most three panels in a row, one legend below."""
    from matplotlib.figure import Figure

    columns = min(3, len(drawing.panels))
    rows = -(-len(drawing.panels) // columns)
    labels = list(dict.fromkeys(line.label for lines in drawing.panels.values() for line in lines))
    legend_in = 0.25 + 0.22 * -(-len(labels) // max(1, columns))
    size = (WIDTH_IN * columns, HEIGHT_IN * rows + legend_in)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    cells: list[Axes] = list(grid.flat)
    colours = {label: f"C{number % 10}" for number, label in enumerate(labels)}
    for cell, (title, lines) in zip(cells, drawing.panels.items(), strict=False):
        for line in lines:
            _draw_line(cell, drawing.axis, line, "0.6" if line.kind == "chance" else colours)
        cell.set_title(title, fontsize=10)
        cell.set_ylim(-2, 102)
        if drawing.logarithmic:
            cell.set_xscale("log")
        cell.grid(alpha=0.3)
    for cell in cells[len(drawing.panels) :]:
        cell.set_visible(False)
    for row in grid:
        row[0].set_ylabel(drawing.value_name)
    for cell in cells[max(0, len(drawing.panels) - columns) : len(drawing.panels)]:
        cell.set_xlabel(drawing.axis_name)
        cell.tick_params(labelbottom=True)
    figure.suptitle(drawing.title, fontsize=11)
    handles = {line.get_label(): line for cell in cells for line in cell.get_lines()}
    figure.legend(
        list(handles.values()),
        list(map(str, handles)),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
    )
    with new_file(path) as part:
        figure.savefig(part, format="png")


def _draw_line(cell: Axes, axis: Sequence[float], line: Line, colour: str | dict[str, str]) -> None:
    shade = colour if isinstance(colour, str) else colour[line.label]
    percent = [100 * value for value in line.values]
    width = 2.0 if line.kind == "model" else 1.2
    style = STYLES.get(line.kind, "-")
    marker = "o" if len(axis) == 1 else ""
    cell.plot(axis, percent, style, color=shade, label=line.label, linewidth=width, marker=marker)
    if line.low is not None and line.high is not None:
        low, high = ([100 * value for value in ends] for ends in (line.low, line.high))
        cell.fill_between(axis, low, high, color=shade, alpha=0.15, linewidth=0)


def _draw_all(folder: Path) -> None:
    for path, result in figures_of(folder).items():
        draw(drawing_of(result), path)


if __name__ == "__main__":
    _draw_all(Path(sys.argv[1]))
