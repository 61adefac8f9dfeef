"""Similarity: does the cosine of two sentences follow the grade that people gave the pair?

P pairs, U units of the bootstrap (pairs that sentences connect).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.items import Items
from ..train.run import Run
from ..train.source import VAL
from .bootstrap import resampled
from .grades import HIGHEST, TOLERANCES, correlations, counted_correlations, within_tolerance
from .results import Result, Row
from .sentence_pairs import Scored, SentencePairs, are_texts, prepare, scored
from .sides import note_on_split, run_name

BENCHMARK = "similarity"


def suits(items: Items) -> bool:
    """Whether a split has pairs of texts with graded similarity."""
    return are_texts(items) and items.pairs is not None and items.pairs.scores is not None


def evaluate_similarity(
    cache: Cache, run: Run, dataset: str, split: str, report: Callable[[str], None]
) -> list[Result]:
    """How well cosines follow graded similarity, for each text encoder of a run and across them.

    Protocol `standard`: Spearman's correlation, the usual figure of STS-B, and Pearson's, with
    intervals; pairs that share a sentence, directly or over others, are drawn together. Protocol
    `paper`: the share of the pairs whose grade is met within a tolerance, by class of grades, as
    curves over the tolerances (Figure 3) and in the table as their mean. It is left out where the
    grades do not lie between 0 and 5.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: Name of the split.
        report: Called with what is being measured.

    Raises:
        InputError: If the split has no graded pairs of texts, or those that are encoded all have
            the same grade; if the run has no text encoder.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    started = time.perf_counter()
    pairs = prepare_graded(cache, run, dataset, split)
    in_grades = bool((pairs.targets >= 0).all() and (pairs.targets <= HIGHEST).all())
    standard, paper = [], []
    for system in scored(cache, run, pairs, lambda name: report(f"{dataset}/{split}: {name}")):
        standard.append(_standard(system, pairs))
        if in_grades:
            paper.append(_paper(system, pairs))
    standard.append(Row("chance", "chance", {"Spearman": 0.0, "Pearson": 0.0}))
    seconds = round(time.perf_counter() - started, 3)
    return [
        _result(run, pairs, name, rows, seconds)
        for name, rows in (("standard", standard), ("paper", paper))
        if rows
    ]


def prepare_graded(cache: Cache, run: Run, dataset: str, split: str) -> SentencePairs:
    """The graded pairs of a split, their grades as targets.

    Raises:
        InputError, CacheError: As `evaluate_similarity`.
    """
    items = cache.items(dataset, split)
    if not suits(items):
        raise InputError(f"{dataset}/{split} has no pairs of sentences with graded similarity")
    assert items.pairs is not None and items.pairs.scores is not None  # suits has looked
    pairs = prepare(cache, items, run, items.pairs.scores)
    if np.ptp(pairs.targets) == 0:
        raise InputError(
            f"{dataset}/{split}: its {len(pairs.rows):,} encoded pairs all have grade "
            f"{pairs.targets[0]:g}, nothing can follow it; encode more of them"
        )
    return pairs


def _standard(system: Scored, pairs: SentencePairs) -> Row:
    metrics = correlations(system.cosines, pairs.targets)
    if np.ptp(system.cosines) == 0:
        return Row(system.system, system.kind, metrics)
    found = resampled(counted_correlations(system.cosines, pairs.targets), pairs.units)
    ends = {name: (float(a), float(b)) for name, (a, b) in zip(metrics, found, strict=True)}
    return Row(system.system, system.kind, metrics, ends)


def _paper(system: Scored, pairs: SentencePairs) -> Row:
    curves = within_tolerance(system.cosines, pairs.targets)
    metrics = {name: float(curve.mean()) for name, curve in curves.items()}
    return Row(
        system.system,
        system.kind,
        metrics,
        curves={name: curve.tolist() for name, curve in curves.items()},
    )


def _result(
    run: Run, pairs: SentencePairs, protocol: str, rows: list[Row], seconds: float
) -> Result:
    items = pairs.items
    notes = [note_on_split(run, items.dataset, items.split)]
    if protocol == "paper" and items.split != VAL:
        notes.append("the paper's Figure 3 is of the validation split")
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
        counts={"pairs": len(pairs.rows)},
        excluded={"pairs": pairs.missing},
        axis=TOLERANCES.tolist() if protocol == "paper" else [],
        note="; ".join(filter(None, notes)),
        seconds=seconds,
    )
