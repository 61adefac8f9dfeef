"""What a benchmark found, and results.json, which keeps it.

A result stands under its benchmark, data set, split, protocol and encoders; made anew, it replaces
the old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..cache.errors import CacheError, RunError
from ..cache.files import read_json, write_json

RESULTS_FORMAT = "cbmf-results"
RESULTS_VERSION = 2
RESULTS_FOLDER = "results"
"""Folder of the results in a run's folder."""
RESULTS_NAME = "results.json"
KINDS = ("model", "baseline", "untrained", "raw", "chance")


@dataclass(frozen=True)
class Row:
    """One system's figures."""

    system: str
    """For people, such as `cbmf-add`, `linear heads`, `chance`."""
    kind: str
    """`model` (what was fitted), `baseline` (fitted beside it), `untrained` (the model before its
    first step), `raw` (the encoder's own vectors) or `chance`."""
    metrics: dict[str, float]
    """By name. Recalls, accuracies and MRR are shares from 0 to 1, ranks count from 1."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95% bootstrap intervals of some metrics: lower and upper end, in the metric's unit."""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """Figures over `Result.axis`, by name, for a drawing rather than a table."""


@dataclass(frozen=True)
class Result:
    """One benchmark on one split by one protocol, of some encoders of a run.

    Metric `a/b` is metric b in direction a.
    """

    benchmark: str
    """`retrieval` or `zero-shot`."""
    dataset: str
    split: str
    protocol: str
    run: str
    """Name of the run's folder."""
    preset: str
    """Preset that the fit began as."""
    rows: list[Row]
    encoders: dict[str, str]
    """Short name of the encoder of each side."""
    fingerprints: dict[str, str]
    """Fingerprint of the stream of each side, 64 hexadecimal digits."""
    counts: dict[str, int]
    """What took part: items of each side, pairs, classes, templates."""
    excluded: dict[str, int]
    """What could not take part because the cache lacks it."""
    axis: list[float] = field(default_factory=list)
    """What the rows' curves run over: tolerances, or k."""
    inputs: str = ""
    """SHA-256 over all that the figures follow from: weights, items, streams, options. A result
    whose inputs are unchanged need not be made again."""
    note: str = ""
    """What a reader must know before comparing, such as that the split chose the epoch."""
    seconds: float = 0.0
    """Time of the benchmark, of all its protocols together."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Results of the same key replace each other."""
        encoders = " with ".join(dict.fromkeys(self.encoders.values()))
        return self.benchmark, self.dataset, self.split, self.protocol, encoders

    def row(self, kind: str) -> Row:
        """The first row of a kind.

        Raises:
            KeyError: If there is none.
        """
        for row in self.rows:
            if row.kind == kind:
                return row
        raise KeyError(kind)

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Result:
        """As results.json holds it.

        Raises:
            TypeError, KeyError, ValueError: If fields are missing, unknown or of another form.
        """
        rows = []
        for row in table["rows"]:
            ends = {
                name: (float(low), float(high)) for name, (low, high) in row["intervals"].items()
            }
            curves = {name: list(map(float, ys)) for name, ys in row["curves"].items()}
            rows.append(Row(row["system"], row["kind"], dict(row["metrics"]), ends, curves))
        return cls(**{**table, "rows": rows})


def read_results(folder: Path) -> list[Result]:
    """The results in a folder; none if it has no results.json.

    Raises:
        RunError: If the file is damaged or of another version.
    """
    path = folder / RESULTS_NAME
    if not path.exists():
        return []
    try:
        table = read_json(path, RESULTS_VERSION)
        found = (table.get("format"), table.get("version"))
        if found != (RESULTS_FORMAT, RESULTS_VERSION):
            raise ValueError(f"of {found[0]} version {found[1]}, not {RESULTS_VERSION}")
        return [Result.from_json(entry) for entry in table["results"]]
    except (CacheError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise RunError(
            f"{path}: not results of this version ({error}); "
            "move it away, then run the same cbmf evaluate again"
        ) from error


def merge_results(folder: Path, results: Sequence[Result]) -> list[Result]:
    """Put results into a folder's results.json, atomically, and return all that it holds then.

    Sorted by key, the protocols of a benchmark in the order in which they were made.

    Raises:
        RunError: If the file that is there is damaged; it is left as it is.
        DiskFullError: If the disk is full.
    """
    new = {result.key for result in results}
    kept = [result for result in read_results(folder) if result.key not in new]
    merged = sorted([*kept, *results], key=lambda result: (result.key[:3], result.key[4]))
    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "format": RESULTS_FORMAT,
        "version": RESULTS_VERSION,
        "results": [asdict(result) for result in merged],
    }
    write_json(folder / RESULTS_NAME, table)
    return merged
