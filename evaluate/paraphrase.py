"""Paraphrase: are two sentences called similar when people say that they mean the same?

P pairs, U units of the bootstrap (pairs that sentences connect).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..cache.catalog import Cache
from ..cache.errors import CacheError, InputError
from ..cache.items import Items
from ..train.run import Run
from ..train.source import TRAIN, VAL
from .binary import at_threshold, best_threshold, counted_without_threshold, without_threshold
from .bootstrap import intervals, resampled
from .results import Result, Row
from .sentence_pairs import Scored, SentencePairs, are_texts, prepare, scored
from .sides import note_on_split, run_name
from .tables import UNLABELLED

BENCHMARK = "paraphrase"
PAPER_THRESHOLD = 0.9
"""Cosine from which the paper calls two sentences similar (Tables II and III)."""


@dataclass(frozen=True)
class Tuning:
    """Thresholds, chosen on a split that is not the one reported on."""

    split: str
    """Empty if no other split can choose."""
    thresholds: dict[str, float]
    """By system."""


def suits(items: Items) -> bool:
    """Whether a split has pairs of texts that are labelled as paraphrases or not."""
    labels = items.pairs.labels if items.pairs is not None else None
    return are_texts(items) and labels is not None and bool((labels >= 0).any())


def evaluate_paraphrase(
    cache: Cache, run: Run, dataset: str, split: str, report: Callable[[str], None]
) -> list[Result]:
    """How well cosines tell paraphrases, for each text encoder of a run and across them.

    Protocol `standard`: average precision and ROC AUC, which need no threshold; accuracy, MCC, and
    precision, recall and F1 of both classes at the threshold of the highest accuracy on another
    split. Protocol `paper`: accuracy and the classes at a cosine of 0.9, for every system alike.
    Intervals are of accuracy, AP and ROC AUC; pairs that share a sentence, directly or over
    others, are drawn together.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: Name of the split.
        report: Called with what is being measured.

    Raises:
        InputError: If the split has no labelled pairs of texts, or those that are encoded are all
            of one class; if the run has no text encoder.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    started = time.perf_counter()
    pairs = prepare_labelled(cache, run, dataset, split)
    tuning = tune(cache, run, dataset, split, report)
    standard, paper = [], []
    for system in scored(cache, run, pairs, lambda name: report(f"{dataset}/{split}: {name}")):
        standard.append(_standard(system, pairs, tuning.thresholds.get(system.system)))
        paper.append(_paper(system, pairs))
    for rows in (standard, paper):
        rows.append(_majority(pairs, rows[0]))
    seconds = round(time.perf_counter() - started, 3)
    return [
        _result(run, pairs, name, rows, tuning, seconds)
        for name, rows in (("standard", standard), ("paper", paper))
    ]


def prepare_labelled(cache: Cache, run: Run, dataset: str, split: str) -> SentencePairs:
    """The labelled pairs of a split, their labels as targets.

    Raises:
        InputError, CacheError: As `evaluate_paraphrase`.
    """
    items = cache.items(dataset, split)
    where = f"{dataset}/{split}"
    if not suits(items):
        raise InputError(f"{where} has no pairs of sentences labelled as paraphrases or not")
    labels = _labels(items)
    pairs = prepare(cache, items, run, np.where(labels >= 0, labels, np.nan))
    classes = np.unique(pairs.targets)
    if len(classes) < 2:
        raise InputError(
            f"{where}: its {len(pairs.rows):,} labelled and encoded pairs are all of class "
            f"{classes[0]:.0f}; there must be paraphrases (1) and others (0), encode more of them"
        )
    return pairs


def _labels(items: Items) -> np.ndarray:
    assert items.pairs is not None and items.pairs.labels is not None  # suits has looked
    return items.pairs.labels


def tune(cache: Cache, run: Run, dataset: str, split: str, report: Callable[[str], None]) -> Tuning:
    """The threshold of the highest accuracy for each system, on `val`, else on `train`.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: The split that is reported on; it never chooses.
        report: Called with what is being measured.
    """
    for name in (VAL, TRAIN):
        if name == split or (dataset, name) not in cache.splits():
            continue
        try:
            pairs = prepare_labelled(cache, run, dataset, name)
        except (InputError, CacheError):
            continue  # not encoded by the run's encoders, or of one class: it cannot choose
        labels = pairs.targets.astype(np.int64)
        systems = scored(cache, run, pairs, lambda system: report(f"threshold: {system}"))
        return Tuning(name, {s.system: best_threshold(s.cosines, labels) for s in systems})
    return Tuning("", {})


def _standard(system: Scored, pairs: SentencePairs, threshold: float | None) -> Row:
    """Figures without a threshold and, if there is one, at the tuned one."""
    labels = pairs.targets.astype(np.int64)
    metrics = without_threshold(system.cosines, labels)
    statistic = counted_without_threshold(system.cosines, labels)
    found = resampled(statistic, pairs.units)
    ends = {name: (float(a), float(b)) for name, (a, b) in zip(metrics, found, strict=True)}
    if threshold is not None:
        metrics |= at_threshold(system.cosines, labels, threshold) | {"threshold": threshold}
        ends["accuracy"] = _accuracy_ends(system, pairs, threshold)
    return Row(system.system, system.kind, metrics, ends)


def _paper(system: Scored, pairs: SentencePairs) -> Row:
    metrics = at_threshold(system.cosines, pairs.targets.astype(np.int64), PAPER_THRESHOLD)
    del metrics["MCC"]  # the paper has none
    ends = {"accuracy": _accuracy_ends(system, pairs, PAPER_THRESHOLD)}
    return Row(system.system, system.kind, metrics, ends)


def _accuracy_ends(system: Scored, pairs: SentencePairs, threshold: float) -> tuple[float, float]:
    right = (system.cosines >= threshold) == (pairs.targets == 1)
    hits = np.bincount(pairs.units, weights=right)
    low, high = intervals(hits[:, None], np.bincount(pairs.units)[:, None])[0]
    return float(low), float(high)


def _majority(pairs: SentencePairs, like: Row) -> Row:
    """Calling every pair what most of them are: the metrics of another row, without a threshold."""
    labels = pairs.targets.astype(np.int64)
    same = np.full(len(labels), float(2 * labels.sum() >= len(labels)))
    metrics = without_threshold(same, labels) | at_threshold(same, labels, 0.5)
    shown = {name: value for name, value in metrics.items() if name in like.metrics}
    return Row("majority class", "chance", shown)


def _result(
    run: Run, pairs: SentencePairs, protocol: str, rows: list[Row], tuning: Tuning, seconds: float
) -> Result:
    items = pairs.items
    return Result(
        benchmark=BENCHMARK,
        dataset=items.dataset,
        split=items.split,
        protocol=protocol,
        run=run_name(run),
        preset=run.config.preset,
        rows=rows,
        encoders=pairs.encoders,
        fingerprints=pairs.fingerprints,
        counts={"pairs": len(pairs.rows), "paraphrases": int(pairs.targets.sum())},
        excluded={"pairs": pairs.missing, UNLABELLED: int((_labels(items) < 0).sum())},
        note=_note(run, items, protocol, tuning),
        seconds=seconds,
    )


def _note(run: Run, items: Items, protocol: str, tuning: Tuning) -> str:
    notes = [note_on_split(run, items.dataset, items.split)]
    if protocol == "paper" and items.split != VAL:
        notes.append("the paper's figures are of GLUE's validation split")
    elif protocol == "standard" and tuning.split:
        own = (items.dataset, tuning.split) == (run.dataset, TRAIN)
        fitted = ", which the model was fitted on" if own else ""
        notes.append(f"thresholds chosen on {tuning.split}{fitted}")
    elif protocol == "standard":
        notes.append("no other labelled split is encoded, so no threshold could be chosen")
    return "; ".join(filter(None, notes))
