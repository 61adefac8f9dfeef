"""Unit rows that are kept in a run's folder, so that no stream is projected twice.

RUN/projections/<models>/<key>.safetensors holds the rows of one stream by one model. <models> is a
digest of the run's weights: rows of other weights go when new ones are kept. The folder may be
removed at any time, what is missing is made anew. n items of a stream, D width.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from ..cache.errors import RunError
from ..cache.files import value_digest
from ..cache.stream import Stream
from ..train.aligner import Aligner
from ..train.run import Run
from ..train.weights import read_tensors, tensors_digest, write_tensors
from .projection import project

PROJECTIONS_NAME = "projections"
VERSION = 1
"""Of the arithmetic in `project`: another one makes all rows anew."""
LARGEST_BYTES = 2 * 2**30
"""Rows that take more are not kept: two million items at 256 features."""
WIDEST = 4096
"""Features of a row that is kept, at most: wider ones, as ASIF's, are sooner made than read."""
ROWS = "rows"


def projected(run: Run, model: Aligner, encoder: int, stream: Stream) -> Tensor:
    """What `project` gives, (n, D) float32 on the model's device; from the run's folder if kept.

    Kept rows are a function of model, stream, device type and torch's version, and found by a
    digest of these. Where the folder cannot be written, or the disk is full, they are not kept.

    Args:
        run: Whose folder keeps them.
        model: The run's own, one fitted beside it, or the untrained one.
        encoder: Which of `model.encoders` the stream is of.
        stream: Complete, of the model's layout and width.

    Raises:
        InputError: As `project`.
        StreamError: If the stream is incomplete.
    """
    stream.require_complete()
    shape = (len(stream), model.width)
    if shape[0] * shape[1] * 4 > LARGEST_BYTES or model.width > WIDEST:
        return project(model, encoder, stream)
    device = model.temperature.log_scale.device
    path = rows_path(run, model, encoder, stream)
    kept = _read(path, shape)
    if kept is not None:
        return kept.to(device)
    rows = project(model, encoder, stream)
    keep(path, {ROWS: rows})
    return rows


def rows_path(run: Run, model: Aligner, encoder: int, stream: Stream) -> Path:
    """Where the rows of a stream lie if they are kept."""
    own = [_model_digest(each) for each in (run.model, *run.baselines.values())]
    key = {
        "version": VERSION,
        "torch": torch.__version__,
        "device": model.temperature.log_scale.device.type,
        "model": _model_digest(model),
        "encoder": encoder,
        "stream": stream.fingerprint,
        "shards": [entry.sha256 for _, entry in sorted(stream.manifest.shards.items())],
    }
    folder = run.folder / PROJECTIONS_NAME / value_digest(own)[:12]
    return folder / f"{value_digest(key)[:24]}.safetensors"


def _model_digest(model: Aligner) -> str:
    """SHA-256 over what a model is and its weights, whether they are on disk or not."""
    return value_digest([model.card(), tensors_digest(model.state_dict())])


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The rows in a file; None if it is absent or damaged."""
    try:
        rows = read_tensors(path)[0].get(ROWS)
    except RunError:
        return None
    whole = rows is not None and rows.shape == shape and rows.dtype == torch.float32
    return rows if whole else None


def keep(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write what was made of rows to a file, atomically, and remove what is of other weights.

    Where that cannot be, nothing is kept: it is a convenience, the work goes on without.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in _others(path.parent):
            shutil.rmtree(old, ignore_errors=True)
        write_tensors(path, tensors)


def _others(folder: Path) -> Iterator[Path]:
    """The folders beside one."""
    return (path for path in folder.parent.iterdir() if path.is_dir() and path != folder)
