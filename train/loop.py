"""The fit of one model: epochs, validation, the best weights, and going on after a break."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from ..cache.errors import RunError
from ..cache.files import full_disk_is_one_line
from .aligner import Aligner
from .batches import generator
from .checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from .config import FitConfig
from .data import FitData
from .distributed import Team
from .history import HISTORY_NAME, write_history, write_summary
from .step import Step
from .validation import validate


@dataclass(frozen=True)
class Progress:
    """What a fit tells while it runs."""

    stage: str
    """`data`, or the method of the model that is being fitted: `linear` or `cbmf`."""
    text: str
    """One plain line, ready to be shown."""
    epoch: int = 0
    """Epochs done; 0 before the first."""
    epochs: int = 0
    """Epochs at most."""
    values: dict[str, float] = field(default_factory=dict)
    """The epoch's line of history.jsonl."""


Report = Callable[[Progress], None]


class Loop:
    """One model being fitted, and all that changes meanwhile."""

    def __init__(
        self,
        model: Aligner,
        config: FitConfig,
        data: FitData,
        folder: Path,
        report: Report,
        team: Team | None = None,
    ) -> None:
        """Begin in `folder`, or go on from the checkpoint that lies there.

        Of a team, all processes do this, and all go through every epoch; only the main one
        validates and writes.

        Raises:
            RunError: If the checkpoint is damaged.
        """
        self.model, self.config, self.data = model, config, data
        self.folder, self.report = folder, report
        self.device = model.temperature.log_scale.device
        self.team = team or Team(self.device)
        self.step = Step(model, config, data.train.steps(config), self.team)
        self.epoch, self.best_epoch = 0, 0
        self.history: list[dict[str, float]] = []
        if self.team.agree(self.checkpoint.exists):
            with self.team.as_one():
                self._restore()
        elif self.team.main:  # a kill before the first checkpoint may have left a line
            (folder / HISTORY_NAME).unlink(missing_ok=True)

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept until the fit is finished."""
        return self.folder / CHECKPOINT_NAME

    def run(self) -> None:
        """Fit to the end; afterwards the folder has the best weights and a summary.

        Raises:
            RunError: If the loss becomes infinite or no number.
        """
        while not self._stops():
            started = time.perf_counter()
            trained = self._train_epoch()
            trained_s = time.perf_counter() - started
            trained["pairs_per_s"] = self._pairs_an_epoch() / trained_s
            trained["waiting"] /= trained_s
            self.epoch += 1
            line = self.team.agree(partial(self._measure, trained, started))
            self._note(line)
        if self.team.main:
            self._finish()

    def _measure(self, trained: dict[str, float], started: float) -> dict[str, float]:
        """The epoch's line of history.jsonl."""
        line: dict[str, float] = {"epoch": self.epoch, "train_loss": trained.pop("train_loss")}
        line |= validate(self.step.average or self.model, self.data.val, self.config)
        self._check_finite(line)
        line |= {"temperature": 1 / self.model.temperature.scale().item()}
        line |= {"seconds": time.perf_counter() - started, **trained}
        return line if self.team.size == 1 else {**line, "processes": self.team.size}

    def _check_finite(self, line: dict[str, float]) -> None:
        for name in ("train_loss", "val_loss"):
            if not math.isfinite(line[name]):
                raise RunError(
                    f"{self.folder}: {name.replace('_', ' ')} is {line[name]} in epoch "
                    f"{self.epoch}; fit with a learning rate below {self.config.lr:g} (--lr) "
                    "into another folder"
                )

    def _stops(self) -> bool:
        patience = self.config.patience
        waited = self.epoch - self.best_epoch
        return self.epoch >= self.config.epochs or (patience is not None and waited >= patience)

    def _pairs_an_epoch(self) -> int:
        counts = self.data.train.table.counts
        limit = self.config.captions_per_image
        if limit and self.config.batch_unit == "images":
            counts = counts.clip(max=limit)
        return int(counts.sum())

    def _train_epoch(self) -> dict[str, float]:
        """Mean loss of the epoch's pairs, its last learning rate, seconds without a batch."""
        random = generator(self.config.seed, self.epoch, purpose=2)
        total, pairs, waiting = torch.zeros((), device=self.device), 0, 0.0
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            # Of dropout and noise; other processes draw other ones.
            torch.manual_seed(int(random.integers(2**62)) + self.team.rank)
            self.model.train()
            coming = self.data.train.batches(self.config, self.epoch)
            while True:
                asked = time.perf_counter()
                found = next(coming, None)
                waiting += time.perf_counter() - asked
                if found is None:
                    break
                banks, batch = found
                total += self.step.take(banks, batch, random) * len(batch.owner)
                pairs += len(batch.owner)
        return {
            "train_loss": total.item() / pairs,
            "lr": self.step.rate,
            "waiting": waiting,
        }

    def _note(self, line: dict[str, float]) -> None:
        """Take note of an epoch; the main process keeps it and tells."""
        self.history.append(line)
        self.step.schedule.observe(line["val_loss"])
        name, sign = self.config.stop_on, 1 if self.config.stop_on == "val_recall" else -1
        best = self.history[self.best_epoch - 1][name] if self.best_epoch else -sign * math.inf
        if sign * line[name] > sign * best:
            self.best_epoch = self.epoch
        if self.team.main:
            self._keep(line)
            text, epochs = _text(line), self.config.epochs
            self.report(Progress(self.model.method, text, self.epoch, epochs, line))

    def _keep(self, line: dict[str, float]) -> None:
        """The best weights, a line of history, the checkpoint."""
        if self.best_epoch == self.epoch:
            (self.step.average or self.model).save_weights(self.folder)
        path = self.folder / HISTORY_NAME
        with full_disk_is_one_line(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        state = {
            "epoch": self.epoch,
            "step": self.step.done,
            "best_epoch": self.best_epoch,
            "schedule": self.step.schedule.state(),
            "history": self.history,
        }
        write_checkpoint(self.checkpoint, self._modules(), self.step.optimizer, state)

    def _modules(self) -> dict[str, torch.nn.Module]:
        modules: dict[str, torch.nn.Module] = {"model": self.model}
        average = self.step.average
        return modules if average is None else {**modules, "average": average}

    def _restore(self) -> None:
        state = read_checkpoint(self.checkpoint, self._modules(), self.step.optimizer)
        self.epoch, self.step.done = state["epoch"], state["step"]
        self.best_epoch, self.history = state["best_epoch"], state["history"]
        self.step.schedule.restore(state["schedule"])
        if not self.team.main:
            return
        write_history(self.folder, self.history)  # a kill may have left a line too many
        text = f"goes on after epoch {self.epoch}"
        self.report(Progress(self.model.method, text, self.epoch, self.config.epochs))

    def _finish(self) -> None:
        best = self.history[self.best_epoch - 1]
        stopped = "epochs" if self.epoch >= self.config.epochs else "patience"
        seconds = sum(line["seconds"] for line in self.history)
        summary = {"epochs": self.epoch, "stopped": stopped, "seconds": seconds, "best": best}
        write_summary(self.folder, summary)
        self.checkpoint.unlink()


def _text(line: dict[str, float]) -> str:
    return (
        f"epoch {line['epoch']:.0f}: train loss {line['train_loss']:.4f}, val loss "
        f"{line['val_loss']:.4f}, val R@1 {line['left_to_right_r1']:.1%} / "
        f"{line['right_to_left_r1']:.1%}, mean recall {line['val_recall']:.1%}, "
        f"{line['pairs_per_s']:,.0f} pairs/s"
    )
