"""One step of a fit: from a batch to its loss and new weights.

B left items, C right items of a batch, D width.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from .aligner import Aligner
from .bank import Bank
from .batches import Batch
from .config import FitConfig
from .data import PairedBanks
from .encoding import encode_items
from .mixing import mix
from .schedule import Schedule, build_optimizer
from .validation import batch_loss


def in_half(config: FitConfig, device: torch.device) -> bool:
    """Whether the model trains in bfloat16 on a device."""
    return config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")


class Step:
    """What a step changes: the weights, their running average, and the optimizer's moments."""

    def __init__(self, model: Aligner, config: FitConfig, steps: int) -> None:
        """Before the first step.

        Args:
            model: What is trained, in place.
            config: How.
            steps: Of the whole fit, for the schedule.
        """
        self.model, self.config = model, config
        self.device = model.temperature.log_scale.device
        self.average = copy.deepcopy(model).eval() if config.ema else None
        self.optimizer = build_optimizer(model, config)
        self.schedule = Schedule(config, steps)
        self.done = 0

    @property
    def rate(self) -> float:
        """Learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def take(self, banks: PairedBanks, batch: Batch, random: np.random.Generator) -> Tensor:
        """Learn from a batch.

        Args:
            banks: Where its items are.
            batch: Positions in these banks.
            random: Of the mixing. Dropout and noise draw from torch's global state.

        Returns:
            The loss before the step, a scalar in nats without gradient.
        """
        loss = self._loss(banks, batch, random)
        self._update(loss)
        return loss.detach()

    def _loss(self, banks: PairedBanks, batch: Batch, random: np.random.Generator) -> Tensor:
        half = in_half(self.config, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, half):
            if self.config.mixup:
                left = self._gather(banks.left, batch.left)  # (B, 1, d_left)
                right = self._gather(banks.right, batch.right)  # (C, 1, d_right)
                left, right = mix(left, right, batch, self.config.mixup, random)
                one = torch.ones(1, 1, dtype=torch.bool, device=self.device)
                rows = self.model.encode(0, left, one.expand(len(left), 1))  # (B, D)
                partners = self.model.encode(1, right, one.expand(len(right), 1))  # (C, D)
            else:
                rows = encode_items(self.model, 0, banks.left, batch.left)
                partners = encode_items(self.model, 1, banks.right, batch.right)
        scale = self.model.temperature.scale()
        return batch_loss(rows, partners, batch, scale, self.config.loss)

    def _gather(self, bank: Bank, positions: np.ndarray) -> Tensor:
        values, _ = bank.gather(torch.from_numpy(positions).to(bank.device))
        return values.to(self.device)

    def _update(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.done)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.model.temperature.clamp()
        self.done += 1
        if self.average is not None:
            decay = min(self.config.ema, (1 + self.done) / (10 + self.done))
            with torch.no_grad():
                for kept, new in zip(
                    self.average.parameters(), self.model.parameters(), strict=True
                ):
                    kept.lerp_(new, 1 - decay)
