"""One more encoder for a run: its own part is trained, all that the run has stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..cache.catalog import Cache
from ..cache.errors import CacheError, InputError, RunError, StreamError
from ..cache.stream import Stream
from .aligner import EncoderSpec
from .config import FitConfig, override
from .distributed import meet
from .fit import fit_source, silent
from .loop import Report
from .run import Run
from .source import TRAIN, Source, pairs_to_train_on, require_different, validation_streams

EXTENDED = ("cbmf", "linear", "convirt")
"""Methods whose models have parts that belong to one encoder alone."""
FIXED = ("preset", "method", "left", "right")
"""Options of a fit that an extension takes from its run."""
FREE = ("input_dropout", "input_noise", "token_dropout", "projection_dropout")
"""Options of a model that concern an encoder's own part alone, and only while it is trained."""


def extend_run(
    run: Run,
    added: str,
    cache: Cache,
    config: FitConfig | None = None,
    *,
    out: Path | None = None,
    dataset: str | None = None,
    device: torch.device | str | None = None,
    memory_bytes: int | None = None,
    report: Report = silent,
) -> Run:
    """Fit one more encoder's projection and context against a run that stays as it is.

    The new run holds all encoders. Rows by those of the old run are the same, bit by bit: shared
    parts, temperature and old projections and contexts are frozen, and compute as they do in
    evaluation. Linear heads beside the run are extended likewise. What was interrupted goes on as
    a fit does.

    Args:
        run: Finished; its folder is only read.
        added: The new encoder: its short name, or a part of its stream's folder's name. Over pairs
            of one column it stands on the right.
        cache: Where the embeddings of the run's encoders and of the new one lie.
        config: As `config_of_extension` gives it; None: as the run was fitted.
        out: The new run folder; None: beside the old one, both names in its name.
        dataset: Name in the cache; None for the run's own.
        device: As of `fit`.
        memory_bytes: As of `fit`.
        report: As of `fit`.

    Raises:
        InputError: If the run has the encoder already, or cannot be extended, or an option cannot
            be changed.
        CacheError: If a stream is missing, ambiguous, incomplete or damaged.
        RunError: If the run is not finished, or the folder is another run or no run at all: also if
            it extends the run as it was with other weights.
    """
    config = config or config_of_extension(run)
    team = meet(device)
    with team.as_one():
        source = extended_source(cache, config, dataset or run.dataset, run.model.encoders, added)
    name = source.encoders(config.model.layout)[-1].name
    whole = run.folder.resolve()
    folder = out or whole.with_name(f"{whole.name}+{name}")
    if config.baseline and not run.baselines:
        config = replace(config, baseline=False)
    return fit_source(cache, source, config, folder, team, memory_bytes, report, run)


def config_of_extension(run: Run, changes: Mapping[str, Any] | None = None) -> FitConfig:
    """How the new part is fitted: as the run was, unless told otherwise.

    Args:
        run: To be extended.
        changes: Fields of FitConfig, ModelConfig or LossConfig by name that shall be otherwise; of
            the model only those in FREE.

    Raises:
        InputError: If an option cannot be changed, or the method has no parts to add.
        RunError: If the run is not finished.
    """
    name = run.folder.resolve().name
    if not run.finished:
        raise RunError(f"{run.folder}: its fit was interrupted; finish it before it is extended")
    if run.config.method not in EXTENDED or getattr(run.config.model, "shared_projection", False):
        raise InputError(
            f"run {name} ({run.config.method}) has no part that belongs to one encoder alone, "
            "nothing can be added to it"
        )
    config = override(run.config, changes or {})
    before = {**asdict(run.config.model), **{key: getattr(run.config, key) for key in FIXED}}
    after = {**asdict(config.model), **{key: getattr(config, key) for key in FIXED}}
    fixed = [key for key in before if before[key] != after[key] and key not in FREE]
    if fixed:
        raise InputError(
            f"{', '.join(fixed)}: run {name} is {', '.join(str(before[key]) for key in fixed)} and "
            f"stays as it is; of its model only {', '.join(FREE)} may be others for the new part"
        )
    return config


def extended_source(
    cache: Cache, config: FitConfig, dataset: str, known: Sequence[EncoderSpec], added: str
) -> Source:
    """The streams of the encoders that a model has, and that of one more.

    Args:
        cache: Where to look.
        config: Says the layout.
        dataset: Its name.
        known: The model's encoders.
        added: The further encoder, as of `extend_run`.

    Raises:
        InputError: If the data set has no pairs to train on, or other ones than the model was
            fitted on, or the model has the encoder already.
        CacheError: If a stream is missing, ambiguous or incomplete.
    """
    pairs, layout = pairs_to_train_on(cache.items(dataset, TRAIN)), config.model.layout
    train = [
        cache.find(
            dataset,
            TRAIN,
            spec.column,
            identity=spec.identity,
            layout=layout,
            grid=spec.grid if layout == "tokens" else "any",
        )
        for spec in known
    ]
    train.append(_added(cache, dataset, dict.fromkeys((pairs.left, pairs.right)), added, layout))
    require_different(train)
    one_column = pairs.left == pairs.right
    sides = tuple(
        int(place > 0) if one_column else int(stream.column == pairs.right)
        for place, stream in enumerate(train)
    )
    if sides[:2] != (0, 1):
        raise InputError(
            f"{dataset} pairs {pairs.left} with {pairs.right}, the run's first encoders read "
            f"{train[0].column} and {train[1].column}; extend it on the data set it was fitted on"
        )
    val = validation_streams(cache, config, dataset, train)
    return Source(dataset, tuple(train), val, sides, tuple(spec.name for spec in known))


def _added(cache: Cache, dataset: str, columns: Iterable[str], added: str, layout: str) -> Stream:
    """The one stream over one of the columns that a name fits."""
    found, failures = [], []
    for column in columns:
        try:
            found.append(cache.find(dataset, TRAIN, column, encoder=added, layout=layout))
        except CacheError as error:
            failures.append(error)
    if len(found) > 1:
        names = ", ".join(stream.path.name for stream in found)
        raise InputError(f"--add {added} fits several streams, {names}; name one of these")
    if not found:
        incomplete = [error for error in failures if isinstance(error, StreamError)]
        raise incomplete[0] if incomplete else CacheError("; ".join(map(str, failures)))
    return found[0]
