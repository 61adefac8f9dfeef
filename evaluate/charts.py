"""Charts as SVG to stand in a page: their colours are the page's own, so they suit light and dark.

The page that holds them defines `--dim`, `--line` and `--series-1` to `--series-6`. Nothing is
loaded from elsewhere, and text is text. matplotlib loads Pillow, so the functions alone import it.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import STYLES, Drawing, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, DIM, FAINT = "#010101", "#030303", "#020202"
SERIES = tuple(f"#0{number}0{number}0a" for number in range(1, 7))
"""Colours that stand for the page's own until the SVG is written."""
THEME = {INK: "currentColor", DIM: "var(--dim)", FAINT: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)
}
WIDTH_IN, HEIGHT_IN = 4.5, 2.9
LEGEND_LINE_IN = 0.2
WIDE_LABEL = 26
"""Letters of a legend's entry from which on entries stand below each other."""
BINS = 60
NUMBERED = 12
"""Classes of a confusion matrix up to which its cells have numbers."""
NAME_LENGTH = 16
_DROPPED = re.compile(
    r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>|<!--.*?-->"
    r'| id="[A-Za-z0-9.]*_[0-9]+"| xmlns(:xlink)?="[^"]*"',
    re.DOTALL,
)
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "grid.color": FAINT,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Chart:
    """A picture of a page."""

    title: str
    svg: str
    """Safe to stand in HTML as it is."""


def panel_charts(drawing: Drawing) -> list[Chart]:
    """A chart for each panel of a drawing; its values are shares, shown in percent."""
    return [
        line_chart(
            f"{drawing.title}: {title}",
            lines,
            drawing.axis,
            names=(drawing.axis_name, drawing.value_name),
            factor=100,
            logarithmic=drawing.logarithmic,
        )
        for title, lines in drawing.panels.items()
    ]


def line_chart(
    title: str,
    lines: Sequence[Line],
    axis: Sequence[float],
    *,
    names: tuple[str, str],
    factor: float = 1.0,
    logarithmic: bool = False,
    level: tuple[str, float] | None = None,
    mark: float | None = None,
) -> Chart:
    """Lines over an axis.

    Args:
        title: For people who cannot see it, and above it.
        lines: At least one.
        axis: Where the values lie.
        names: Of the axis and of the values.
        factor: On all values.
        logarithmic: Of the axis.
        level: Name and height of a line across, in the unit of the values.
        mark: Where on the axis a line stands upright.
    """

    def paint(cell: Axes) -> None:
        for number, line in enumerate(lines):
            colour = DIM if line.kind == "chance" else SERIES[number % len(SERIES)]
            values = factor * np.asarray(line.values)
            style = STYLES.get(line.kind, "-") if len(axis) > 1 else "o"
            cell.plot(axis, values, style, color=colour, label=line.label, linewidth=1.5)
            if line.low is not None and line.high is not None:
                low, high = (factor * np.asarray(ends) for ends in (line.low, line.high))
                cell.fill_between(axis, low, high, color=colour, alpha=0.15, linewidth=0)
        if level is not None:
            cell.axhline(factor * level[1], color=INK, linestyle="-.", linewidth=1, label=level[0])
        if mark is not None:
            cell.axvline(mark, color=INK, linestyle=":", linewidth=0.8)
        if logarithmic:
            cell.set_xscale("log")
            cell.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        cell.set(xlabel=names[0], ylabel=names[1])
        cell.grid(True, linewidth=0.6)

    labels = [line.label for line in lines] + ([level[0]] if level else [])
    return Chart(title, _svg(title, paint, labels))


def histogram_chart(
    title: str, groups: Mapping[str, np.ndarray], span: tuple[float, float], value_name: str
) -> Chart:
    """How values of some groups lie, as shares of each group in percent.

    Args:
        title: As of `line_chart`.
        groups: Values by the group's name, each (N,), at least one value.
        span: Lowest and highest value shown.
        value_name: What the values are.
    """

    def paint(cell: Axes) -> None:
        edges = np.linspace(*span, BINS + 1)
        for colour, (label, values) in zip(SERIES, groups.items(), strict=False):
            shares = 100 * np.histogram(values.clip(*span), edges)[0] / len(values)
            cell.stairs(shares, edges, fill=True, color=colour, alpha=0.35)
            cell.stairs(shares, edges, color=colour, linewidth=1.2, label=label)
        cell.set(xlabel=value_name, ylabel="share (%)", xlim=span, ylim=(0, None))
        cell.grid(True, axis="y", linewidth=0.6)

    return Chart(title, _svg(title, paint, list(groups)))


def plane_chart(
    title: str, groups: Mapping[str, np.ndarray], joined: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Chart:
    """Points of some groups in a plane.

    Args:
        title: As of `line_chart`.
        groups: Points by the group's name, each (N, 2).
        joined: Pairs of points, (2,) each, with a line between them.
    """

    def paint(cell: Axes) -> None:
        from matplotlib.collections import LineCollection

        ends = [np.stack(pair) for pair in joined]
        cell.add_collection(LineCollection(ends, colors=INK, linewidths=0.5, alpha=0.35))
        for colour, (label, points) in zip(SERIES, groups.items(), strict=False):
            cell.plot(*points.T, "o", color=colour, markersize=2.2, markeredgewidth=0, label=label)
        cell.set_aspect("equal", adjustable="datalim")
        cell.set(xticks=[], yticks=[], xlabel="first principal axis", ylabel="second")

    return Chart(title, _svg(title, paint, list(groups)))


def confusion_chart(title: str, classes: Sequence[str], counts: np.ndarray) -> Chart:
    """How often each class (row) is taken for each class (column), in percent of the row.

    Args:
        title: As of `line_chart`.
        classes: K names; two dozen can be read on a phone.
        counts: (K, K) int64.
    """
    many = len(classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)  # (K, K)
    size = 2.6 + 0.2 * many

    def paint(cell: Axes) -> None:
        from matplotlib.patches import Rectangle

        for row, column in np.argwhere(shares >= 0.005):
            colour = SERIES[0] if row == column else SERIES[1]
            strength = 0.1 + 0.8 * shares[row, column] ** 0.7
            corner = (column - 0.5, row - 0.5)
            cell.add_patch(Rectangle(corner, 1, 1, linewidth=0, color=colour, alpha=strength))
            if many <= NUMBERED and shares[row, column] >= 0.01:
                text = f"{100 * shares[row, column]:.0f}"
                cell.text(column, row, text, ha="center", va="center", fontsize=7.5)
        names = [_short(name) for name in classes]
        cell.set_xticks(range(many), names, rotation=90)
        cell.set_yticks(range(many), names)
        cell.set(xlim=(-0.5, many - 0.5), ylim=(many - 0.5, -0.5), aspect="equal")
        cell.set(xlabel="taken for", ylabel="is")
        cell.tick_params(length=0)

    return Chart(title, _svg(title, paint, [], (size, size)))


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def _svg(
    title: str,
    paint: Callable[[Axes], None],
    labels: Sequence[str],
    size: tuple[float, float] = (WIDTH_IN, HEIGHT_IN),
) -> str:
    """What `paint` draws, with a legend of `labels` below, as an SVG element of a page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = 1 if any(len(label) > WIDE_LABEL for label in labels) else 2
    height = size[1] + LEGEND_LINE_IN * -(-len(labels) // columns)
    settings: Any = {**_SETTINGS, "svg.hashsalt": title}
    with rc_context(settings):
        figure = Figure(figsize=(size[0], height), layout="constrained")
        cell = figure.subplots()
        paint(cell)
        if labels:
            figure.legend(loc="outside lower center", ncols=columns, frameon=False, markerscale=2)
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    return _themed(written.getvalue(), title)


def _themed(text: str, title: str) -> str:
    """An SVG document as an element: no prologue, no size of its own, the page's colours."""
    text = _DROPPED.sub("", text[text.index("<svg") :]).replace("xlink:href", "href")
    for colour, variable in THEME.items():
        text = text.replace(colour, variable)
    view = re.search(r'viewBox="[^"]*"', text)
    assert view is not None  # matplotlib writes one
    label = html.escape(title, quote=True)
    return f'<svg {view[0]} role="img" aria-label="{label}">{text[text.index(">") + 1 :]}'.strip()
