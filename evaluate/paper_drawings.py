"""The paper's figures from many runs: Figure 3 and Figure 4, a line a system."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .figures import AXIS_NAMES, LOGARITHMIC, Drawing, Line, drawn, panel_title
from .paper import Measured, PaperTable


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
