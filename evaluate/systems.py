"""What is measured side by side: the fitted model, what was fitted beside it, and the floors.

n items of a side, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache.catalog import Cache, is_over
from ..cache.items import Items
from ..cache.stream import Stream
from ..train.aligner import Aligner
from ..train.bank import positions_of
from ..train.config import END_TO_END, SOLVED
from ..train.run import Run
from .projections import projected

_BESIDE = {
    "linear": "linear heads",
    "convirt": "ConVIRT, frozen",
    "fusemix": "FuseMix",
    "csa": "CSA",
    "asif": "ASIF",
}
_TRAINED = "ConVIRT"
"""Name of the runs whose encoders were trained too."""


@dataclass(frozen=True)
class Side:
    """The items of one column that take part, and the stream that has them."""

    stream: Stream
    encoder: int
    """Place of the stream's encoder in the model."""
    rows: np.ndarray
    """(n,) int64: rows in the column of items.h5, ascending, all of them in the stream."""


@dataclass(frozen=True)
class System:
    """One way to turn two sides into comparable unit rows."""

    name: str
    kind: str
    """As in `results.Row`."""
    model: Aligner | None
    """None: the encoder's own pooled vectors."""
    left: Side
    right: Side
    run: Run
    """Its folder keeps what the model makes of the sides."""

    def embed(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Unit rows of the items of both sides, each (n, D) float32, on a device."""
        return self._embed(self.left, device), self._embed(self.right, device)

    def _embed(self, side: Side, device: torch.device) -> Tensor:
        if self.model is None:
            whole = F.normalize(torch.from_numpy(side.stream.pooled()), dim=1).to(device)
        else:
            whole = projected(self.run, self.model, side.encoder, side.stream)
        place = positions_of(side.stream.rows, side.rows)
        return whole[torch.from_numpy(place).to(device)]


def systems_of(cache: Cache, items: Items, run: Run, left: Side, right: Side) -> list[System]:
    """Everything to measure on two sides: model, linear heads, untrained model, raw floors.

    There is a raw floor for each encoder that the cache has both sides of: elsewhere, as between an
    image and a text encoder, the vectors cannot be compared.
    """
    found = [System(name, kind, model, left, right, run) for name, kind, model in models_of(run)]
    if run.alone:
        return found
    for stream in {side.stream.identity: side.stream for side in (left, right)}.values():
        one = _same_encoder(cache, items, stream, left)
        two = _same_encoder(cache, items, stream, right)
        if one is not None and two is not None:
            found.append(System(f"raw {stream.encoder}", "raw", None, one, two, run))
    return found


def models_of(run: Run) -> list[tuple[str, str, Aligner]]:
    """Name, kind (as in `results.Row`) and model: fitted, fitted beside, before its first step.

    Of a run that is measured alone only the first; before it is solved a closed form is nothing.
    Encoders that were taken over from another run had no first step.
    """
    name = model_name(run)
    found = [(name, "model", run.model)]
    if run.alone:
        return found
    beside = run.baselines.items()
    found += [(_BESIDE.get(key, key), "baseline", model) for key, model in beside]
    taken_over = run.measured is not None and max(run.measured) < run.held
    if run.config.method not in SOLVED and not taken_over:
        found.append((f"{name}, untrained", "untrained", run.untrained))
    return found


def model_name(run: Run) -> str:
    """Name of the fitted model, for tables: `cbmf-add`, or `linear heads`."""
    method = run.config.method
    if run.config.preset == END_TO_END:
        return _TRAINED
    return _BESIDE.get(method, f"{method}-{run.config.model.fusion}")


def _same_encoder(cache: Cache, items: Items, stream: Stream, side: Side) -> Side | None:
    """The side as the encoder of `stream` sees it, if the cache has all of its items."""
    for other in [stream, *cache.streams(items.dataset, items.split, side.stream.column)]:
        if (
            (other.column, other.identity) == (side.stream.column, stream.identity)
            and other.complete
            and is_over(other, items)
            and (positions_of(other.rows, side.rows) >= 0).all()
        ):
            return replace(side, stream=other)
    return None
