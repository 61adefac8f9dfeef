"""The optimizer and what changes its learning rate."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass

import torch
from torch import nn

from .aligner import CONTEXTS, Aligner
from .config import FitConfig

PLATEAU_THRESHOLD = 1e-4
"""Share by which a validation loss must fall to count as lower, as in torch's ReduceLROnPlateau."""


class AdamW(torch.optim.AdamW):
    """torch's own, without the wrappers that load its compiler before the first step.

    That takes as long as loading all the rest of torch, and nothing here compiles an optimizer.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def build_optimizer(model: Aligner, config: FitConfig) -> torch.optim.AdamW:
    """AdamW over all that learns.

    With `matrices`, only weights of two axes decay, contexts and temperature do not. Contexts never
    do where some are held: without a gradient, decay would still change them.
    """
    decaying: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        contexts = name == CONTEXTS
        decays = config.decay == "all" or (parameter.ndim >= 2 and not contexts)
        (decaying if decays and not (contexts and model.held) else free).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    kinds = {parameter.device.type for parameter in model.parameters()}
    fused = kinds <= {"cpu", "cuda"}
    return AdamW([g for g in groups if g["params"]], lr=config.lr, fused=fused)


@dataclass
class Schedule:
    """The learning rate: warm-up, then cosine, plateau or constant."""

    config: FitConfig
    steps: int
    """Of the whole fit."""
    factor: float = 1.0
    """What plateaus have made of the learning rate."""
    lowest: float = math.inf
    """Validation loss that the next one is compared with."""
    bad_epochs: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        config = self.config
        warmup = int(config.warmup * self.steps)
        if step < warmup:
            return config.lr * (step + 1) / warmup
        if config.schedule == "cosine":
            done = (step - warmup) / max(1, self.steps - warmup)
            return config.lr * (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return config.lr * self.factor

    def observe(self, val_loss: float) -> None:
        """Take note of an epoch's validation loss; `plateau` lowers the rate after bad ones."""
        if val_loss < self.lowest * (1 - PLATEAU_THRESHOLD):
            self.lowest, self.bad_epochs = val_loss, 0
        else:
            self.bad_epochs += 1
        if self.config.schedule == "plateau" and self.bad_epochs > self.config.plateau_patience:
            self.factor, self.bad_epochs = self.factor * self.config.plateau_factor, 0

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"factor": self.factor, "lowest": self.lowest, "bad_epochs": self.bad_epochs}

    def restore(self, state: dict[str, float]) -> None:
        """Take over what a checkpoint kept."""
        self.factor, self.lowest = state["factor"], state["lowest"]
        self.bad_epochs = int(state["bad_epochs"])
