"""Fit a model, and the linear heads beside it, on a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..cache.catalog import Cache
from ..cache.errors import InputError, RunError
from ..cache.files import PART, abandoned, read_json, write_json
from ..cache.manifest import differences
from ..cache.writer import Claim
from .aligner import CONFIG_NAME, read_card
from .bank import MEMORY_SHARE, free_memory_bytes
from .checkpoint import CHECKPOINT_NAME
from .config import BASELINES, FitConfig, baseline_of
from .curves import CURVES_NAME, draw_run
from .data import FitData, load_data
from .distributed import Team, meet
from .fusion import check_fusion
from .history import SUMMARY_NAME
from .loop import Loop, Progress, Report
from .run import (
    BASELINES_NAME,
    ENVIRONMENT_NAME,
    Run,
    build_model,
    default_folder,
    environment,
    run_card,
)
from .solved import Solved, solve
from .source import Source, choose_source
from .streaming import StreamedPairs

COMPARED = ("method", "model", "encoders", "fit", "dataset", "streams", "extends")
"""Parts of config.json in which an interrupted fit and its continuation must agree."""
MEMORY_NAME = "memory.json"
"""What a streamed fit may take: the order of its data follows from it."""
CLAIM_NAME = ".fit.claim"
"""Locked while a fit is at work in a folder."""


def silent(progress: Progress) -> None:
    """Report nothing."""


def fit(
    cache: Cache,
    config: FitConfig,
    *,
    out: Path | None = None,
    dataset: str | None = None,
    device: torch.device | str | None = None,
    memory_bytes: int | None = None,
    report: Report = silent,
) -> Run:
    """Fit a model on cached embeddings; no encoder is loaded.

    A fit that was interrupted goes on where it stopped when it is called again with the same
    configuration and folder; on the CPU the result is the same, bit by bit. A finished one is left
    as it is.

    Where `accelerate launch` or torchrun has started several processes, all of them call this
    alike: each encodes its share of every batch, and the loss is that of one process over the whole
    batch. Only the main process reports and writes; all of them must see its folder.

    Args:
        cache: Where the embeddings lie.
        config: How to fit.
        out: The run folder; new, empty, or an interrupted fit of the same configuration. None:
            `default_folder`.
        dataset: Name in the cache; None for the only one that has encoded training pairs.
        device: None for the GPU if there is one, else the CPU.
        memory_bytes: What the embeddings may take in memory; None: most of what is free. Larger
            ones are read from disk, block by block, while they are trained on. Their order follows
            from this; a fit that goes on takes what it began with, unless told otherwise.
        report: Called with what is being done, and after every epoch.

    Returns:
        The run, with the best weights.

    Raises:
        InputError: If data set, encoders or options leave a choice open, or do not go together;
            if a GPU's memory is full.
        CacheError: If a stream is missing, ambiguous, incomplete or damaged.
        RunError: If the folder is another run or no run at all, another fit is at work in it, or
            the loss diverges.
        DiskFullError: If the disk is full.
        PeerError: If another process has failed, which raises why.
    """
    check_fusion(config.model)
    team = meet(device)
    with team.as_one():
        source = choose_source(cache, config, dataset)
    folder = out or default_folder(source.dataset, config)
    return fit_source(cache, source, config, folder, team, memory_bytes, report)


def fit_source(
    cache: Cache,
    source: Source,
    config: FitConfig,
    folder: Path,
    team: Team,
    memory_bytes: int | None = None,
    report: Report = silent,
    base: Run | None = None,
) -> Run:
    """Fit on streams that are chosen already; otherwise as `fit`.

    Args:
        cache: Where the items lie.
        source: The streams.
        config: How to fit.
        folder: The run folder.
        team: The processes that fit together.
        memory_bytes: As of `fit`.
        report: As of `fit`.
        base: A run with the first of the source's encoders: they are taken over from its model, and
            from the linear heads beside it, and held; only the others learn.
    """
    report = report if team.main else silent
    with team.as_one():
        card = _card(source, config, base)
    with _alone(folder, team), _within_memory(config, team.device):
        if team.agree(lambda: _open(folder, card)):
            text = f"{folder}: this fit is finished already; nothing is done again"
            report(Progress("data", text))
        elif team.main:
            facts = {**environment(team.device, cache.root, config), "processes": team.size}
            write_json(folder / ENVIRONMENT_NAME, facts)
        beside = folder / BASELINES_NAME / "linear"
        if config.baseline and config.method not in BASELINES:
            heads = None if base is None else base.beside("linear")
            _fit_one(cache, source, baseline_of(config), beside, team, memory_bytes, report, heads)
        _fit_one(cache, source, config, folder, team, memory_bytes, report, base)
        team.agree(lambda: None if (folder / CURVES_NAME).exists() else draw_run(folder, beside))
    with team.as_one():
        return Run.load(folder, team.device)


@contextmanager
def _alone(folder: Path, team: Team) -> Iterator[None]:
    """The sole right to fit into a folder; it ends with the main process, however that ends.

    Raises:
        RunError: If another fit has it.
    """
    claim = team.agree(partial(_claimed, folder))
    try:
        yield
    finally:
        if claim is not None and team.main:
            claim.release()


@contextmanager
def _within_memory(config: FitConfig, device: torch.device) -> Iterator[None]:
    """One line with the way out, where a GPU's memory does not do.

    Raises:
        InputError: As said.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        chunk = max(1, (config.chunk_size or config.batch_size) // 4)
        raise InputError(
            f"the memory of {device} is full; fit in chunks (--set chunk_size={chunk}: the same "
            "gradients in less memory), or in smaller batches (--batch-size), with another --out"
        ) from error


def _claimed(folder: Path) -> Claim | None:
    """None where nothing can be written: what is finished there can still be read."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        claim = Claim.take(folder / CLAIM_NAME)
    except OSError:
        return None
    if claim is None:
        raise RunError(f"{folder}: another fit is at work in it; wait, or choose another --out")
    return claim


def _memory_of_one(team: Team) -> int | None:
    """What the embeddings may take in each process on this machine; None if nothing is known.

    The windows of what is read from disk follow from it: all processes need the same.
    """
    free = free_memory_bytes()
    return None if free is None else int(MEMORY_SHARE * free) // team.beside


def _card(source: Source, config: FitConfig, base: Run | None) -> dict[str, Any]:
    model = build_model(source.encoders(config.model.layout), config)
    card = run_card(model, config, source)
    return card if base is None else {**card, "extends": base.trace()}


def _open(folder: Path, card: Mapping[str, Any]) -> bool:
    """Begin a run folder, or see that it is the same fit; whether it is finished.

    Raises:
        RunError: If the folder holds something else; names the difference.
    """
    _tidy(folder)
    if not (folder / CONFIG_NAME).exists():
        ours = (PART, CLAIM_NAME)
        if folder.exists() and any(not p.name.endswith(ours) for p in folder.iterdir()):
            raise RunError(f"{folder}: not empty, and no run; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_NAME, card)
        return False
    old = read_card(folder)
    finished = (folder / SUMMARY_NAME).exists()
    there, asked = ({key: table.get(key) for key in COMPARED} for table in (old, card))
    changes = list(differences(there, asked))
    if changes:
        state = "a finished" if finished else "an interrupted"
        shown = "; ".join(changes[:6]) + (f"; and {len(changes) - 6} more" if changes[6:] else "")
        raise RunError(
            f"{folder}: holds {state} fit of another configuration ({shown}); choose another --out"
        )
    return finished


def _tidy(folder: Path) -> None:
    """Remove what a kill left: half-written files, and the checkpoint of a fit that had ended."""
    if not folder.is_dir():
        return
    ended = [folder / CHECKPOINT_NAME] if (folder / SUMMARY_NAME).exists() else []
    with suppress(OSError):  # a folder that can only be read stays as it is
        for path in [*abandoned(folder), *ended]:
            path.unlink(missing_ok=True)


def _fit_one(
    cache: Cache,
    source: Source,
    config: FitConfig,
    folder: Path,
    team: Team,
    memory_bytes: int | None,
    report: Report,
    base: Run | None = None,
) -> None:
    """Fit one model into a folder, unless that is done."""
    if team.agree(lambda: _open(folder, _card(source, config, base))):
        return
    if memory_bytes is None:
        memory_bytes = team.agree(lambda: _as_begun(folder) or _memory_of_one(team))
    with team.as_one():
        data = load_data(cache, source, config, team.device, memory_bytes)
        model = build_model(source.encoders(config.model.layout), config).to(team.device)
        if base is not None:
            model.take_over(base.model, len(base.model.encoders))
            model.hold(len(base.model.encoders))
        for encoder in range(model.held, len(model.encoders)):
            model.measure(encoder, data.train.statistics(encoder))
    if team.main and data.memory_bytes is not None:
        write_json(folder / MEMORY_NAME, {"memory_bytes": data.memory_bytes})
    report(Progress("data", _text(source, config, data, team.device)))
    if isinstance(model, Solved):
        team.agree(partial(solve, model, config, data, folder, report))
    else:
        Loop(model, config, data, folder, report, team).run()


def _as_begun(folder: Path) -> int | None:
    """What a streamed fit took before it was interrupted, if there is still so much."""
    if not (folder / MEMORY_NAME).exists():
        return None
    kept, free = int(read_json(folder / MEMORY_NAME)["memory_bytes"]), free_memory_bytes()
    return kept if free is None or kept <= free else None


def _text(source: Source, config: FitConfig, data: FitData, device: torch.device) -> str:
    train, val = data.train.table, data.val.table
    encoders = " with ".join(stream.encoder for stream in source.train)
    split = "held out" if data.held_out else "of the split val"
    dropped = train.dropped + (0 if data.held_out else val.dropped)
    return (
        f"{config.method}: {encoders} on {source.dataset}, {config.model.layout}; "
        f"{len(train.left):,} left items with {len(train.right):,} pairs to train on, "
        f"{len(val.left):,} {split} to validate on"
        + (f", {dropped:,} pairs left out for items that are not encoded" if dropped else "")
        + (f"; {data.train.told()}" if isinstance(data.train, StreamedPairs) else "")
        + f"; {device}"
    )
