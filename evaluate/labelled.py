"""Labelled images to learn a classifier on, and those of another split to score it on.

N images of a split, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cache.catalog import Cache
from ..cache.errors import CacheError, InputError
from ..cache.items import Items
from ..cache.stream import Stream
from ..train.run import Run
from ..train.source import TEST, TRAIN
from .bootstrap import intervals
from .results import Result, Row
from .sides import measured, note_on_split, run_name, stream_of

IMAGE = "image"


@dataclass(frozen=True)
class Part:
    """The encoded images of one split."""

    stream: Stream
    labels: np.ndarray
    """(N,) int64: class of each image of the stream, in its order."""
    missing: int
    """Images that are not encoded."""


@dataclass(frozen=True)
class Task:
    """A classifier to be learned, made ready."""

    dataset: str
    split: str
    """The one that is scored."""
    encoder: int
    """Place in the run's model of the encoder of the images."""
    train: Part
    test: Part
    """Of the split that is scored."""
    classes: int
    """K."""

    @property
    def encoders(self) -> dict[str, str]:
        """As `Result.encoders` has it."""
        return {IMAGE: self.test.stream.encoder}

    @property
    def fingerprints(self) -> dict[str, str]:
        """As `Result.fingerprints` has it."""
        streams = {IMAGE: self.test.stream, f"{IMAGE} ({TRAIN})": self.train.stream}
        return {name: stream.fingerprint for name, stream in streams.items()}

    @property
    def counts(self) -> dict[str, int]:
        """As `Result.counts` has it."""
        train, test = (len(part.labels) for part in (self.train, self.test))
        return {"images": test, "training images": train, "classes": self.classes}

    @property
    def excluded(self) -> dict[str, int]:
        """As `Result.excluded` has it."""
        return {"images": self.test.missing, "training images": self.train.missing}


def are_labelled(items: Items) -> bool:
    """Whether a split has classes and labelled images."""
    image = items.columns.get(IMAGE)
    return image is not None and image.labels is not None and bool(items.classes)


def prepare(cache: Cache, run: Run, dataset: str, split: str) -> Task:
    """Find the images of the split `train` and of the split that is scored, and their classes.

    Args:
        cache: Where they lie.
        run: Its model's first image encoder, of those that are measured, is the one.
        dataset: Name in the cache.
        split: What is scored.

    Raises:
        InputError: If either split has no labelled images, there is no split `train`, or it is the
            one to be scored; if the splits have not the same classes, or training images are of
            one class only; if the run has no image encoder.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    scored = cache.items(dataset, split)
    if not are_labelled(scored):
        raise InputError(f"{dataset}/{split} has no labelled images, there is nothing to classify")
    places = measured(run, IMAGE)
    if not places:
        raise InputError(f"run {run_name(run)} has no image encoder, it cannot classify images")
    trained = _train_items(cache, dataset, split)
    if trained.classes != scored.classes:
        raise InputError(
            f"{cache.root}/{dataset}: {TRAIN} has {len(trained.classes)} classes and {split} "
            f"{len(scored.classes)}, or in another order; run cbmf precompute {dataset} again "
            "for both"
        )
    train, test = (_part(cache, items, run, places[0]) for items in (trained, scored))
    _require_images(train, test, dataset, split)
    return Task(dataset, split, places[0], train, test, len(scored.classes))


def _train_items(cache: Cache, dataset: str, split: str) -> Items:
    """The items of the split `train`."""
    if split == TRAIN:
        raise InputError(
            f"{dataset}/{TRAIN} is what a classifier is learned on, it is scored on another split; "
            f"encode one (cbmf precompute {dataset} --split {TEST}) or name one with --split"
        )
    try:
        items = cache.items(dataset, TRAIN)
    except CacheError as error:
        if (dataset, TRAIN) in cache.splits():
            raise  # it is there, and damaged
        raise InputError(
            f"{cache.root}/{dataset} has no split {TRAIN}, a classifier has nothing to learn from; "
            f"make it with cbmf precompute {dataset} --split {TRAIN} and the run's image encoder"
        ) from error
    if not are_labelled(items):
        raise InputError(f"{dataset}/{TRAIN} has no labelled images, there is nothing to learn")
    return items


def _part(cache: Cache, items: Items, run: Run, encoder: int) -> Part:
    column = items.column(IMAGE)
    assert column.labels is not None  # are_labelled has looked
    stream = stream_of(cache, items, IMAGE, run, encoder)
    missing = len(column.ids) - len(stream)
    return Part(stream, column.labels[stream.rows].astype(np.int64), missing)


def _require_images(train: Part, test: Part, dataset: str, split: str) -> None:
    """Refuse what nothing can be learned from, or scored on."""
    found = len(np.unique(train.labels))
    if found < 2:
        raise InputError(
            f"{dataset}/{TRAIN}: its {len(train.labels):,} encoded images are of {found} class; "
            "two classes are the least to learn from, encode more images"
        )
    if not len(test.labels):
        raise InputError(f"{dataset}/{split}: none of its images is encoded, nothing can be scored")


def ranks_of(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rank of each image's own class among all, (N,) int64 from 1; never better than its ties.

    Args:
        scores: (N, K), higher for a likelier class.
        labels: (N,) int64, below K.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    return (scores >= own).sum(1)


def interval_of(ranks: np.ndarray) -> tuple[float, float]:
    """95% bootstrap interval over images of the share at rank 1."""
    low, high = intervals((ranks == 1)[:, None])[0]
    return float(low), float(high)


def result_of(
    run: Run,
    task: Task,
    benchmark: str,
    protocol: str,
    rows: list[Row],
    note: str,
    seconds: float,
) -> Result:
    """The result of a benchmark on a task; to its note is added what the fit saw of the split."""
    notes = [note, note_on_split(run, task.dataset, task.split)]
    return Result(
        benchmark=benchmark,
        dataset=task.dataset,
        split=task.split,
        protocol=protocol,
        run=run_name(run),
        preset=run.config.preset,
        rows=rows,
        encoders=task.encoders,
        fingerprints=task.fingerprints,
        counts=task.counts,
        excluded=task.excluded,
        note="; ".join(filter(None, notes)),
        seconds=seconds,
    )
