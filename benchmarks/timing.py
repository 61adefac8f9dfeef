"""Repeated runs that take turns, and what is told of them: a Markdown table, and JSON.

Subjects run A B C A B C ..., so that what else a shared machine does hits all alike; a ratio is
taken within each round, and its median told with the lowest and the highest.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

Work = Callable[[], float | None]
"""Does something once. Returns the seconds that count, or None for all that it took."""


@dataclass(frozen=True)
class Subject:
    """Something that is timed."""

    name: str
    work: Work
    amount: float = 1.0
    """What one run does, in `unit` before "/s"; 1 where seconds themselves are told."""
    before: Callable[[], object] = lambda: None
    """Made before each run, not timed."""


def interleaved(
    subjects: Sequence[Subject], repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each run of every subject, by name; the subjects take turns.

    Args:
        subjects: Each is run once a round, in this order.
        repeats: Rounds, at least 1.
        warm_up: One round more before them, which does not count.
    """
    found: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for number in range(repeats + warm_up):
        for subject in subjects:
            subject.before()
            began = time.perf_counter()
            told = subject.work()
            seconds = time.perf_counter() - began if told is None else told
            if number >= warm_up:
                found[subject.name].append(seconds)
    return found


def rates(subject: Subject, seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """What a subject did a second, in every round."""
    return [subject.amount / s for s in seconds[subject.name]]


@dataclass(frozen=True)
class Row:
    """One line of a table: ours, what it is measured against, and what is asked of the ratio."""

    what: str
    unit: str
    """Of the values: `GB/s`, `items/s`, `s`, `MiB`, `%`."""
    ours: list[float]
    other: list[float] = field(default_factory=list)
    """Of the same rounds; empty where a value stands alone."""
    against: str = ""
    asked: str = ""
    """As a person reads it: `>= 0.9`, `< 2%`."""
    fewer_is_better: bool = False
    """Values are costs; the ratio is then other / ours. Above 1 is always in our favour."""
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Of each round."""
        pairs = zip(self.ours, self.other, strict=True)
        return [other / ours if self.fewer_is_better else ours / other for ours, other in pairs]

    def to_json(self) -> dict[str, Any]:
        """With medians beside the rounds."""
        table = asdict(self)
        table["ours_median"] = statistics.median(self.ours)
        if self.other:
            table["other_median"] = statistics.median(self.other)
            table["ratios"] = self.ratios
            table["ratio_median"] = statistics.median(self.ratios)
        return table


def compared(
    what: str,
    ours: Subject,
    other: Subject,
    seconds: Mapping[str, Sequence[float]],
    unit: str,
    asked: str = "",
    note: str = "",
) -> Row:
    """The row of two subjects of one interleaved run; `unit` of the amount a second, or `s`."""
    if unit == "s":
        one, two = list(seconds[ours.name]), list(seconds[other.name])
    else:
        one, two = rates(ours, seconds), rates(other, seconds)
    costs = unit == "s"
    return Row(what, unit, one, two, other.name, asked, fewer_is_better=costs, note=note)


def number(value: float) -> str:
    """A value with three figures or so: 1,234 or 12.3 or 0.123."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """The median, with the lowest and the highest of several values."""
    middle = number(statistics.median(values))
    if len(values) < 2:
        return middle
    return f"{middle} ({number(min(values))}-{number(max(values))})"


HEADING = "| what | ours | against | ratio | asked | note |\n|---|---:|---|---:|---|---|"


def markdown(row: Row) -> str:
    """A line of the table under HEADING."""
    beside = f"{row.against}: {spread(row.other)} {row.unit}" if row.other else row.against
    ratio = spread(row.ratios) if row.other else ""
    ours = f"{spread(row.ours)} {row.unit}"
    return f"| {row.what} | {ours} | {beside} | {ratio} | {row.asked} | {row.note} |"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "command": sys.argv[1:],
        "load_average": os.getloadavg(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write_report(path: Path, topics: Mapping[str, Sequence[Row]]) -> None:
    """Write the rows of all topics, with every round, and the machine as JSON."""
    report = {
        "machine": machine(),
        "topics": {name: [row.to_json() for row in rows] for name, rows in topics.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
