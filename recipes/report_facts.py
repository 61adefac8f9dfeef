"""Facts about a run that are no figures: what it is, its embeddings, the machine of its fit."""

from __future__ import annotations

from collections.abc import Iterator

from .. import console
from ..cache.catalog import Cache
from ..cache.errors import CacheError, InputError
from ..cache.files import read_json
from ..evaluate.systems import model_name
from ..train.config import SOLVED
from ..train.history import SUMMARY_NAME, read_summary
from ..train.run import ENVIRONMENT_NAME, Run


def about(run: Run) -> str:
    """What the run is, in a sentence."""
    names = " with ".join(f"{spec.name} ({spec.modality})" for spec in run.model.encoders)
    config = run.config
    text = (
        f"{model_name(run)} brings {names} into one space of {run.model.width} features; "
        f"preset {config.preset}, {run.model.layout}, seed {config.seed}, fitted on {run.dataset}"
    )
    if not (run.folder / SUMMARY_NAME).exists():
        return f"{text}; the fit was interrupted, this is its best epoch until then."
    summary = read_summary(run.folder)
    if config.method in SOLVED:
        return f"{text}, solved in {console.duration(summary['seconds'])}."
    return (
        f"{text} in {summary['epochs']} epochs and {console.duration(summary['seconds'])}, "
        f"of which epoch {summary['best']['epoch']:.0f} is kept."
    )


def streams_of(cache: Cache, run: Run) -> Iterator[tuple[str, ...]]:
    """A line for each stream of the run's data set and encoders: what it is, and how large."""
    own = {spec.identity for spec in run.model.encoders}
    for dataset, split in cache.splits():
        if dataset != run.dataset:
            continue
        for stream in cache.streams(dataset, split):
            if stream.identity not in own:
                continue
            failed = len(stream.manifest.failures)
            grid = "" if stream.grid is None else f" 1+{stream.grid}x{stream.grid}"
            yield (
                f"{split}/{stream.column}",
                stream.encoder,
                f"{len(stream):,}" + (f" ({failed:,} failed)" if failed else ""),
                f"{stream.layout}{grid}, {stream.dtype}",
                console.gib(stream.size_bytes),
                stream.fingerprint[:12],
            )


def environment_of(run: Run) -> dict[str, str]:
    """The machine and the software of the fit, a line each."""
    path = run.folder / ENVIRONMENT_NAME
    if not path.exists():
        raise InputError(f"{path}: no such file")
    facts = read_json(path)
    versions = facts.pop("versions", {})
    if not isinstance(versions, dict):
        raise CacheError(f"{path}: of another form")
    told = ", ".join(f"{name} {number}" for name, number in versions.items())
    return {"versions": told, **{name: str(value) for name, value in facts.items() if value}}
