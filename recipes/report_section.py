"""What a report tells of one run: numbers, charts and examples, each left out where it cannot be.

The numbers and charts are made in evaluate/; here they meet the items and their pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..cache.catalog import Cache
from ..cache.errors import CbmfError
from ..cache.items import Items
from ..evaluate import retrieval, zero_shot
from ..evaluate.charts import Chart, confusion_chart, histogram_chart, plane_chart
from ..evaluate.confusion import Confusion, zero_shot_confusion
from ..evaluate.examples import Example, Gallery, galleries
from ..evaluate.headlines import Headline, headlines
from ..evaluate.learning import learning_charts
from ..evaluate.results import Result
from ..evaluate.sides import default_split, run_name
from ..evaluate.spaces import Space, plane, separation, spaces
from ..evaluate.tables import Section as Table
from ..evaluate.tables import remarks, sections_of, title, together
from ..train.run import Run
from .page import Card, card_of
from .pictures import Pictures, find_pictures
from .rebuild import rebuild_commands
from .report_facts import about, environment_of, streams_of

T = TypeVar("T")
LARGEST_MATRIX = 24
"""Classes up to which a confusion matrix is drawn; of more the commonest mistakes are told."""
MISTAKES = 8


@dataclass(frozen=True)
class Shown:
    """A query on the page, with what was found for it."""

    query: Card
    rank: int
    found: list[Card]


@dataclass(frozen=True)
class Shelf:
    """One direction's examples on the page."""

    title: str
    right_share: float
    queries: int
    candidates: int
    right: list[Shown]
    wrong: list[Shown]


@dataclass(frozen=True)
class Mistakes:
    """Confusions of one data set."""

    where: str
    confusion: Confusion
    chart: Chart | None

    @property
    def worst(self) -> list[tuple[str, str, int, int]]:
        """The commonest mistakes."""
        return self.confusion.worst(MISTAKES)


@dataclass
class Section:
    """One run."""

    name: str
    about: str
    """What it is, in a sentence."""
    headlines: list[Headline]
    commands: list[str]
    learning: list[Chart] = field(default_factory=list)
    split: str = ""
    """Data set and split of the charts and galleries below."""
    histograms: list[Chart] = field(default_factory=list)
    areas: list[tuple[str, float]] = field(default_factory=list)
    planes: list[Chart] = field(default_factory=list)
    gaps: list[tuple[str, float, float]] = field(default_factory=list)
    """Name, distance of the modalities' centres, share of the variance shown."""
    shelves: list[Shelf] = field(default_factory=list)
    without_pictures: str = ""
    mistakes: list[Mistakes] = field(default_factory=list)
    figures: list[tuple[str, list[Table], list[str]]] = field(default_factory=list)
    """Of each benchmark: title, parts of its table, remarks."""
    streams: list[tuple[str, ...]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """What could not be shown, and why."""

    def tried(self, what: str, make: Callable[[], T]) -> T | None:
        """What `make` gives; None where it cannot, which is noted."""
        try:
            return make()
        except (CbmfError, OSError) as error:
            self.left_out.append(f"{what}: {' '.join(str(error).split())}")
            return None


def section_of(
    cache: Cache, run: Run, results: Sequence[Result], root: Path | None, examples: int
) -> Section:
    """Everything that a report tells of a run.

    Args:
        cache: Where its embeddings lie.
        run: With its model on a device.
        results: Of its evaluation.
        root: Where its data lie, for pictures; None if that is not known.
        examples: Queries of each kind in a gallery.
    """
    section = Section(
        name=run_name(run),
        about=about(run),
        headlines=headlines(results),
        commands=rebuild_commands(run, cache, root),
        figures=[
            (
                title(group[0]),
                [part for each in group for part in sections_of(each)],
                remarks(group[0]),
            )
            for group in together(results)
        ],
    )
    if not results:
        section.left_out.append(f"figures: none yet; cbmf evaluate all --run {run.folder}")
    section.learning = section.tried("learning curves", lambda: learning_charts(run)) or []
    section.tried("pairs", lambda: _add_pairs(section, cache, run, root, examples))
    for dataset, split in dict.fromkeys(
        (r.dataset, r.split) for r in results if r.benchmark == zero_shot.BENCHMARK
    ):
        where = f"{dataset}/{split}"
        found = section.tried(
            f"confusions on {where}",
            lambda at=(dataset, split): zero_shot_confusion(cache, run, *at),  # type: ignore[misc]
        )
        if found is not None:
            section.mistakes.append(_mistakes(where, found))
    section.streams = section.tried("embeddings", lambda: list(streams_of(cache, run))) or []
    section.environment = section.tried("environment", lambda: environment_of(run)) or {}
    return section


def _add_pairs(section: Section, cache: Cache, run: Run, root: Path | None, examples: int) -> None:
    """Histograms, planes and galleries of the split that the run is reported on."""
    split = default_split(cache, run.dataset, run)
    items = cache.items(run.dataset, split)
    task = retrieval.prepare(cache, items, run)
    section.split = f"{run.dataset}/{split}"
    both = spaces(run, task)
    positives = task.directions[0].positives
    apart = [separation(space, positives) for space in both.values()]
    everything = np.concatenate([part for each in apart for part in (each.true, each.random)])
    span = float(everything.min()), float(everything.max())
    names = retrieval.side_names(items.pairs)
    for (when, space), each in zip(both.items(), apart, strict=True):
        groups = {"pairs that belong together": each.true, "random pairs": each.random}
        chart_title = f"{when}: {space.name}"
        section.histograms.append(histogram_chart(chart_title, groups, span, "cosine"))
        section.areas.append((space.name, each.area))
        section.planes.append(_plane_chart(section, chart_title, space, names, task))
    pictures = _Album(items, root)
    section.shelves = [
        _shelf(items, gallery, pictures) for gallery in galleries(task, both["After"], examples)
    ]
    section.without_pictures = pictures.missing


def _plane_chart(
    section: Section, chart_title: str, space: Space, names: tuple[str, str], task: retrieval.Task
) -> Chart:
    found = plane(space, task.directions[0].positives)
    section.gaps.append((space.name, found.gap, found.explained))
    groups = {f"{names[0]}s": found.left, f"{names[1]}s": found.right}
    joined = list(zip(found.left[:30], found.right[:30], strict=True))
    return plane_chart(chart_title, groups, joined)


class _Album:
    """The pictures of the columns of a split, looked for once each."""

    def __init__(self, items: Items, root: Path | None) -> None:
        self._items, self._root = items, root
        self._found: dict[str, Pictures] = {}

    def of(self, column: str) -> Pictures | None:
        """Those of a column; None if it is of texts."""
        if self._items.column(column).modality != "image":
            return None
        if column not in self._found:
            self._found[column] = find_pictures(self._items, column, self._root)
        return self._found[column]

    @property
    def missing(self) -> str:
        """Why there are none; empty if there are, or no images at all."""
        return next((each.missing for each in self._found.values() if each.missing), "")


def _shelf(items: Items, gallery: Gallery, album: _Album) -> Shelf:
    def shown(example: Example) -> Shown:
        return Shown(
            query=card_of(items, gallery.query, example.row, album.of(gallery.query)),
            rank=example.rank,
            found=[
                card_of(
                    items,
                    gallery.candidate,
                    each.row,
                    album.of(gallery.candidate),
                    rank=each.rank,
                    cosine=each.cosine,
                    right=each.right,
                )
                for each in example.found
            ],
        )

    return Shelf(
        title=gallery.name.replace("_to_", " → "),
        right_share=gallery.right_share,
        queries=gallery.queries,
        candidates=gallery.candidates,
        right=[shown(example) for example in gallery.right],
        wrong=[shown(example) for example in gallery.wrong],
    )


def _mistakes(where: str, found: Confusion) -> Mistakes:
    small = len(found.classes) <= LARGEST_MATRIX
    chart = confusion_chart(f"Zero-shot on {where}", found.classes, found.counts) if small else None
    return Mistakes(where, found, chart)
