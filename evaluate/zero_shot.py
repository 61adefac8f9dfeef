"""Zero-shot classification: an image is of the class whose prompts lie nearest.

N images, K classes, Q prompts, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.items import Items
from ..train.run import Run
from .bootstrap import intervals
from .classification import class_embeddings, class_ranks, depths, mean_class_recall
from .ranks import recall_at
from .results import Result, Row
from .sides import note_on_split, run_name, stream_of, two_encoders
from .systems import Side, systems_of

BENCHMARK = "zero-shot"
IMAGE, PROMPT = "image", "prompt"
BARE_NAME = "{}"
PHOTO = "a photo of a {}."


@dataclass(frozen=True)
class Protocol:
    """Which prompts stand for a class."""

    name: str
    """`ensemble`, `photo` or `names`."""
    prompts: np.ndarray
    """Places among the prompts that take part, int64."""
    templates: int


@dataclass(frozen=True)
class Task:
    """A labelled split made ready."""

    images: Side
    prompts: Side
    labels: np.ndarray
    """(N,) int64: class of each image."""
    classes: np.ndarray
    """(Q,) int64: class of each prompt."""
    protocols: list[Protocol]
    excluded: dict[str, int]


def suits(items: Items) -> bool:
    """Whether a split has classes, labelled images and prompts."""
    image, prompt = items.columns.get(IMAGE), items.columns.get(PROMPT)
    return bool(
        image is not None
        and image.labels is not None
        and prompt is not None
        and prompt.labels is not None
        and prompt.templates is not None
        and items.classes
    )


def evaluate_zero_shot(
    cache: Cache, run: Run, dataset: str, split: str, report: Callable[[str], None]
) -> list[Result]:
    """Top-1 to top-5 and mean per-class recall of a run on a labelled split, floors beside.

    One result a protocol: `ensemble` (all templates but the bare name: each prompt normalised,
    their mean, normalised again), `photo` ("a photo of a {}.") and `names` (the bare name, as in
    the paper). A protocol whose templates the split lacks is left out.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: Name of the split.
        report: Called with the system that is being measured.

    Raises:
        InputError: If the split is not labelled, is empty, or has images of one class only; if a
            class has no prompt; if the run's modalities are not image and text.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    started = time.perf_counter()
    items = cache.items(dataset, split)
    task = prepare(cache, items, run)
    rows: dict[str, list[Row]] = {protocol.name: [] for protocol in task.protocols}
    for system in systems_of(cache, items, run, task.images, task.prompts):
        report(f"{BENCHMARK} {dataset}/{split}: {system.name}")
        images, prompts = system.embed(run.model.temperature.log_scale.device)
        for protocol in task.protocols:
            measured = _measure(images, prompts, protocol, task, len(items.classes))
            rows[protocol.name].append(Row(system.name, system.kind, *measured))
    chance = Row("chance", "chance", _chance(len(items.classes)))
    seconds = round(time.perf_counter() - started, 3)
    return [
        _result(run, items, task, protocol, [*rows[protocol.name], chance], seconds)
        for protocol in task.protocols
    ]


def _result(
    run: Run, items: Items, task: Task, protocol: Protocol, rows: list[Row], seconds: float
) -> Result:
    streams = {IMAGE: task.images.stream, PROMPT: task.prompts.stream}
    return Result(
        benchmark=BENCHMARK,
        dataset=items.dataset,
        split=items.split,
        protocol=protocol.name,
        run=run_name(run),
        preset=run.config.preset,
        rows=rows,
        encoders={name: stream.encoder for name, stream in streams.items()},
        fingerprints={name: stream.fingerprint for name, stream in streams.items()},
        counts={
            "images": len(task.labels),
            "classes": len(items.classes),
            "templates": protocol.templates,
        },
        excluded=task.excluded,
        note=note_on_split(run, items.dataset, items.split),
        seconds=seconds,
    )


def prepare(cache: Cache, items: Items, run: Run) -> Task:
    """Find the streams of images and prompts, their labels, and the protocols that can be run.

    Raises:
        InputError, CacheError: As `evaluate_zero_shot`.
    """
    where = f"{items.dataset}/{items.split}"
    if not suits(items):
        raise InputError(
            f"{where} has no labelled images with prompts, there is nothing to classify"
        )
    image, prompt = items.column(IMAGE), items.column(PROMPT)
    encoders = two_encoders(run, image.modality, prompt.modality)
    images = stream_of(cache, items, IMAGE, run, encoders[0])
    prompts = stream_of(cache, items, PROMPT, run, encoders[1])
    labels = _present(image.labels, images.rows)
    if len(np.unique(labels)) < 2:
        raise InputError(
            f"{where}: its {len(labels):,} encoded images are of {len(np.unique(labels))} class; "
            "images of two classes are the least, encode more of them"
        )
    classes = _present(prompt.labels, prompts.rows)
    return Task(
        images=Side(images, encoders[0], images.rows),
        prompts=Side(prompts, encoders[1], prompts.rows),
        labels=labels,
        classes=classes,
        protocols=_protocols(items, classes, _present(prompt.templates, prompts.rows), where),
        excluded={
            "images": len(image.ids) - len(labels),
            "prompts": len(prompt.ids) - len(classes),
        },
    )


def _present(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
    """The values of the rows that a stream has."""
    assert values is not None  # suits has looked
    return values[rows]


def _protocols(
    items: Items, classes: np.ndarray, templates: np.ndarray, where: str
) -> list[Protocol]:
    """The protocols that the split's templates allow.

    Args:
        items: Of the split.
        classes: (Q,) int64, class of each prompt that takes part.
        templates: (Q,) int64, template of each.
        where: For the error line.

    Raises:
        InputError: If there is none, or a class lacks its prompts.
    """
    phrases = [n for n, text in enumerate(items.templates) if text != BARE_NAME]
    chosen = {
        "ensemble": phrases if len(phrases) > 1 else [],
        "photo": [n for n, text in enumerate(items.templates) if text == PHOTO],
        "names": [n for n, text in enumerate(items.templates) if text == BARE_NAME],
    }
    found = []
    for name, numbers in chosen.items():
        prompts = np.flatnonzero(np.isin(templates, numbers))
        if not numbers:
            continue
        bare = np.setdiff1d(np.arange(len(items.classes)), classes[prompts])
        if len(bare):
            raise InputError(
                f"{where}: no encoded prompt of class {items.classes[bare[0]]!r} for protocol "
                f"{name}; run cbmf precompute {items.dataset} --retry-failed"
            )
        found.append(Protocol(name, prompts, len(numbers)))
    if not found:
        raise InputError(f"{where}: its templates are none of '{BARE_NAME}', '{PHOTO}' or several")
    return found


def _measure(
    images: Tensor, prompts: Tensor, protocol: Protocol, task: Task, classes: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Metrics by name, and the interval of top-1."""
    chosen = prompts[protocol.prompts.tolist()]
    centres = class_embeddings(chosen, task.classes[protocol.prompts], classes)  # (K, D)
    ranks = class_ranks(images, centres, task.labels)
    metrics = {f"top-{k}": recall_at(ranks, k) for k in depths(classes)}
    low, high = intervals((ranks == 1)[:, None])[0]
    metrics["mean_class_recall"] = mean_class_recall(ranks, task.labels)
    return metrics, {"top-1": (float(low), float(high))}


def _chance(classes: int) -> dict[str, float]:
    """What guessing gives."""
    return {**{f"top-{k}": k / classes for k in depths(classes)}, "mean_class_recall": 1 / classes}
