"""The commands that make a run again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cache.catalog import Cache
from ..precompute.datasets.registry import DATASETS
from ..precompute.demo import DEMO
from ..precompute.encoders import EncoderOptions
from ..precompute.pipeline import PrecomputeOptions
from ..train.aligner import read_card
from ..train.config import BASELINES, END_TO_END, FitConfig, preset
from ..train.run import Run

NAMED = ("method", "fusion", "layout", "left", "right", "epochs", "batch_size", "lr", "seed")
"""Options of a fit that have a flag of their own."""
USUAL_POOLS = {"text": "mean", "image": "cls+mean"}
"""What `cbmf precompute` takes by itself, by modality."""


def rebuild_commands(run: Run, store: Cache, root: Path | None) -> list[str]:
    """A line for each stage, as it is typed.

    Args:
        run: What is to be made again.
        store: Where its embeddings lie.
        root: Where the data lie, if that is known.
    """
    cache = ("--cache", str(store.root))
    lines = list(_precompute(run, [*_dtype(run, store), *cache], root))
    extends = read_card(run.folder).get("extends")
    if run.config.preset == END_TO_END:
        lines.insert(0, _line("convirt", run.dataset, "--out", str(run.folder.parent)))
    elif extends:
        old = run.folder.parent / str(extends.get("run"))
        added = ("--add", run.model.encoders[-1].name)
        lines.append(_line("fit", *cache, "--extend", str(old), *added, "--out", str(run.folder)))
    else:
        flags = list(_fit_flags(run.config))
        lines.append(
            _line("fit", *cache, "--dataset", run.dataset, *flags, "--out", str(run.folder))
        )
    lines.append(_line("evaluate", "all", "--run", str(run.folder), *cache))
    return lines


def _line(*words: str) -> str:
    return shlex.join(["cbmf", *words])


def _precompute(run: Run, cache: Iterable[str], root: Path | None) -> Iterable[str]:
    """A command for each set of options that the run's encoders were run with."""
    sources: Mapping[str, Any] = read_card(run.folder).get("sources", {})
    model = run.model
    name, mark, limit = run.dataset.rpartition("-limit")
    if not (mark and limit.isdigit()):
        name, limit = run.dataset, ""
    known = name if name in (*DATASETS, DEMO) else "pairs"
    where = ["--root", str(root)] if root is not None else []
    where = where or (["--root", "YOUR-TABLE"] if known == "pairs" else [])
    layout = ["--layout", "tokens"] if model.layout == "tokens" else []
    grids = {spec.grid for spec in model.encoders if spec.grid is not None}
    layout += [word for grid in grids for word in ("--grid", str(grid))]
    groups: dict[tuple[str, ...], list[str]] = {}
    for spec in sorted(model.encoders, key=lambda spec: spec.modality, reverse=True):  # texts first
        source = sources.get(spec.identity, {})
        layer = source.get("layer", -1)
        inner = "" if layer in (-1, None) else f"@layer={layer}"
        own = [f"--{spec.modality}", f"{source.get('name') or spec.name}{inner}"]
        flags = tuple(_encoder_flags(spec.modality, source))
        if spec.modality == "image" and not flags and groups:
            flags = next(iter(groups))  # what texts are run with is no matter to images
            flags = flags if "--pool" not in flags else ()
        groups.setdefault(flags, []).extend(own)
    for flags, encoders in groups.items():
        limited = ["--limit", limit] if limit else []
        yield _line("precompute", known, *where, *encoders, *layout, *flags, *limited, *cache)


def _dtype(run: Run, store: Cache) -> Iterable[str]:
    """The flag of the stored numbers' type, where it is not the usual one."""
    own = {spec.identity for spec in run.model.encoders}
    for dataset, split in store.splits():
        if dataset == run.dataset:
            for stream in store.streams(dataset, split):
                if stream.identity in own and stream.dtype != PrecomputeOptions().dtype:
                    return ("--dtype", stream.dtype)
    return ()


def _encoder_flags(modality: str, source: Mapping[str, Any]) -> Iterable[str]:
    pool, length = source.get("pool"), source.get("max_length")
    if pool and pool != USUAL_POOLS[modality]:
        yield from ("--pool", str(pool))
    if length and length != EncoderOptions().max_length:
        yield from ("--max-length", str(length))


def _fit_flags(config: FitConfig) -> Iterable[str]:
    """What differs from the preset, as flags."""
    fixed = {"layout": config.model.layout}
    if config.method in BASELINES:
        fixed["method"] = config.method
    yield from () if config.preset in BASELINES else ("--preset", config.preset)
    began, now = _flat(preset(config.preset, **fixed)), _flat(config)
    told = {name: value for name, value in now.items() if value != began[name]} | fixed
    for name in NAMED:
        value = told.get(name)
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None:
                yield from (f"--{name.replace('_', '-')}", _typed(each))
    for name, value in told.items():
        if name not in NAMED and name != "preset":
            yield from ("--set", f"{name}={_typed(value)}")


def _flat(config: FitConfig) -> dict[str, Any]:
    whole = asdict(config)
    return {**whole.pop("model"), **whole.pop("loss"), **whole}


def _typed(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
