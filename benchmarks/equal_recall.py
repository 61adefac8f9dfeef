"""How long until the product and the author's loop find partners equally well."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from cbmf.train.data import PairedBanks
from cbmf.train.validation import recall

from .ours import Ours
from .rivals import (
    ReleasedModel,
    RepeatedPairs,
    indexed_batches,
    released_epoch,
    released_optimizer,
)
from .settings import Settings
from .timing import Row

BATCH = 64
"""Pairs a step of the author's loop."""
EPOCHS = 25
"""Of the author's loop, on the way to its best recall."""


def equal_recall_row(settings: Settings, ours: Ours) -> Row:
    """(b2): seconds of training until both have the mean recall in validation that both reach."""
    ours = ours.again()
    count = len(ours.data.table.right)
    left, right = ours.pairs(count)
    ready = RepeatedPairs(left, right)
    torch.manual_seed(0)
    model = ReleasedModel(left.shape[-1], right.shape[-1]).to(left.device)
    optimizer = released_optimizer(model)
    epochs = 2 if settings.small else EPOCHS
    theirs = _curve(
        lambda: released_epoch(model, optimizer, indexed_batches(ready, BATCH)),
        lambda: _recall_of(model, ours.val),
        epochs,
    )
    own = _curve(ours.train_epoch, ours.recall, 2 if settings.small else ours.config.epochs)
    best_own, best_theirs = (max(found for _, found in curve) for curve in (own, theirs))
    target = min(best_own, best_theirs)
    note = (
        f"{target:.1%}, which both reach; best: cbmf {best_own:.1%} of {len(own)} epochs, "
        f"author's loop (batches of {BATCH} at once) {best_theirs:.1%} of {epochs}; one run"
    )
    return Row(
        "time to equal recall in validation, pooled", "s", [_reached(own, target)],
        [_reached(theirs, target)], against="author's loop", asked=">= 3",
        fewer_is_better=True, note=note,
    )  # fmt: skip


def _curve(
    train: Callable[[], object], recalled: Callable[[], float], epochs: int
) -> list[tuple[float, float]]:
    """Seconds of training so far, and recall, after each epoch."""
    spent, curve = 0.0, []
    for _ in range(epochs):
        began = time.perf_counter()
        train()
        spent += time.perf_counter() - began
        curve.append((spent, recalled()))
    return curve


def _reached(curve: list[tuple[float, float]], target: float) -> float:
    return next(seconds for seconds, found in curve if found >= target)


@torch.inference_mode()
def _recall_of(model: ReleasedModel, data: PairedBanks) -> float:
    """Mean recall in validation of the author's model, by our measure."""
    model.eval()
    table = data.table
    rights, place = np.unique(table.right, return_inverse=True)
    kind = np.empty(len(rights), np.int64)
    kind[place] = table.group[table.owner]
    device = model.temperature.device
    rows = []
    for side, (bank, positions) in enumerate(((data.left, table.left), (data.right, rights))):
        values, _ = bank.gather(torch.from_numpy(positions).to(bank.device))
        rows.append(model.encode(side, values.to(device)))
    groups = [torch.from_numpy(group).to(device) for group in (table.group, kind)]
    found = recall(rows[0], rows[1], groups[0], groups[1])
    return sum(found.values()) / len(found)
