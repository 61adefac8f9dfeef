"""Methods that are solved at once: no epochs, but choices that the validation pairs make.

What they leave in a run folder is what a fit leaves there; a line of history.jsonl is a choice.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..cache.errors import InputError, RunError
from .aligner import Aligner, EncoderSpec
from .bank import Bank
from .config import FitConfig
from .data import FitData
from .history import write_history, write_summary
from .loop import Progress, Report
from .model import mean_over_tokens
from .model_config import ModelConfig
from .paired import PairedBanks
from .projection import Inputs
from .streaming import StreamedPairs
from .validation import validate

SOLVED = "solved"
"""What the summary says of how such a fit ended."""
TRAINING_ITEMS = 200
"""Left items over which the training loss is told, at most."""


class Solved(Aligner):
    """Base of the methods that follow from the training pairs in closed form."""

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        super().__init__(encoders, config)
        if len(encoders) != 2:
            raise InputError(f"{self.method} aligns two encoders, got {len(encoders)}")

    @abstractmethod
    def solutions(
        self, train: PairedBanks | StreamedPairs, config: FitConfig
    ) -> Iterator[dict[str, float]]:
        """Take over one solution after another, as often as there is something to choose.

        Args:
            train: The training pairs; those of `batches` are gone through once.
            config: How.

        Yields:
            What the solution that the model now has was made with, by name.
        """

    def means(self, encoder: int, bank: Bank, positions: np.ndarray) -> Tensor:
        """The vectors of some items, averaged over their tokens: (N, d_in) float32."""
        values, mask = bank.gather(torch.from_numpy(positions).to(bank.device))
        device = self.temperature.log_scale.device
        return self.mean(encoder, values.to(device), mask.to(device))

    def mean(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """(B, L, d_in), (B, L) bool -> (B, d_in), standardised if the model is configured so."""
        inputs = self.inputs[encoder]
        assert isinstance(inputs, Inputs)
        return mean_over_tokens(inputs.standardised(values), mask)


def solve(model: Solved, config: FitConfig, data: FitData, folder: Path, report: Report) -> None:
    """Solve a model; afterwards the folder has the best solution, a history and a summary.

    Args:
        model: Its inputs measured; where it shall compute.
        config: How, and what chooses.
        data: Pairs to solve for, and to choose on.
        folder: The run's folder.
        report: Called after every choice.

    Raises:
        RunError: If a solution is not finite.
    """
    history: list[dict[str, float]] = []
    best, started = 0, time.perf_counter()
    sign = 1 if config.stop_on == "val_recall" else -1
    for choice in model.solutions(data.train, config):
        line = {"epoch": len(history) + 1, **_measured(model, config, data), **choice}
        seconds = time.perf_counter() - started - sum(past["seconds"] for past in history)
        line |= {"seconds": seconds, "pairs_per_s": len(data.train.table.right) / seconds}
        if not math.isfinite(line["val_loss"]):
            raise RunError(f"{folder}: {model.method} has no finite solution for these pairs")
        history.append(line)
        if len(history) == 1 or sign * line[config.stop_on] > sign * history[best][config.stop_on]:
            best = len(history) - 1
            model.save_weights(folder)
        done = len(history)
        report(Progress(model.method, _text(line, choice), done, done, line))
    write_history(folder, history)
    write_summary(
        folder,
        {
            "epochs": len(history),
            "stopped": SOLVED,
            "seconds": sum(line["seconds"] for line in history),
            "best": history[best],
        },
    )


def _measured(model: Solved, config: FitConfig, data: FitData) -> dict[str, float]:
    """Losses and recalls, as an epoch's line has them."""
    train = data.train
    few = np.arange(min(TRAINING_ITEMS, len(train.table.left)))
    table = train.table.take(few).closed()
    some = train.take(table) if isinstance(train, StreamedPairs) else replace(train, table=table)
    trained = validate(model, some, config)["val_loss"]
    temperature = 1 / model.temperature.scale().item()
    return {"train_loss": trained, **validate(model, data.val, config), "temperature": temperature}


def _text(line: dict[str, float], choice: dict[str, float]) -> str:
    chosen = ", ".join(f"{name} {value:g}" for name, value in choice.items())
    return (
        f"{chosen}: val loss {line['val_loss']:.4f}, val R@1 {line['left_to_right_r1']:.1%} / "
        f"{line['right_to_left_r1']:.1%}, mean recall {line['val_recall']:.1%}"
    )
