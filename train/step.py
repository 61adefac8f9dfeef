"""One step of a fit: from a batch to its loss and new weights.

B left items, C right items of a batch, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .aligner import Aligner
from .bank import Bank
from .batches import Batch
from .config import FitConfig
from .distributed import Team
from .encoding import encode_items
from .mixing import mix
from .paired import PairedBanks
from .schedule import Schedule, build_optimizer
from .validation import batch_loss

Encode = Callable[[int, np.ndarray], Tensor]
"""From a side of a batch (0 is left) and places in it to rows, (N, D)."""
Piece = tuple[int, np.ndarray]
"""A side of a batch, and places in it of items that are encoded at once."""


def in_half(config: FitConfig, device: torch.device) -> bool:
    """Whether the model trains in bfloat16 on a device."""
    return config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")


class Step:
    """What a step changes: the weights, their running average, and the optimizer's moments."""

    def __init__(
        self, model: Aligner, config: FitConfig, steps: int, team: Team | None = None
    ) -> None:
        """Before the first step.

        Args:
            model: What is trained, in place.
            config: How.
            steps: Of the whole fit, for the schedule.
            team: The processes that take each step together; None: this one alone.
        """
        self.model, self.config = model, config
        self.device = model.temperature.log_scale.device
        self.team = team or Team(self.device)
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
            batch: Positions in these banks; the same in all processes.
            random: Of the mixing, the same in all processes. Dropout and noise draw from torch's
                global state, which should not be.

        Returns:
            The loss before the step, a scalar in nats without gradient.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.backward(banks, batch, random)
        self._update()
        return loss

    def backward(self, banks: PairedBanks, batch: Batch, random: np.random.Generator) -> Tensor:
        """Add the gradients of a batch's loss to those of the parameters; arguments as of `take`.

        In chunks, and where others encode a part, the loss is taken apart (GradCache, Gao et al.
        2021): all rows without gradient, the loss's gradient for each row, then each chunk once
        more, with gradient and the same random numbers. What has to be kept for the gradient is
        then that of one chunk.

        Returns:
            The loss, a scalar in nats without gradient.
        """
        encode = self._encoder(banks, batch, random)
        pieces = [
            (side, places)
            for side, (bank, items) in enumerate(_sides(banks, batch))
            for places in self._pieces(bank, items)
        ]
        if len(pieces) > 2 or self.team.size > 1:
            loss = self._backward_apart(encode, pieces, batch)
        else:
            with self._autocast():
                left, right = (encode(side, places) for side, places in pieces)
            loss = self._loss(left, right, batch)
            loss.backward()
        self.team.sum_gradients(self.model)
        return loss.detach()

    def _backward_apart(self, encode: Encode, pieces: list[Piece], batch: Batch) -> Tensor:
        """Rows first, then the loss and its gradients for them, then the parameters' from those."""
        chunked = len(pieces) > 2
        state = self._random_state()
        rows = [self._rows(encode, *piece, gradient=not chunked) for piece in pieces]
        leaves = [
            self._whole(side, pieces, rows, len(items)).requires_grad_()
            for side, items in enumerate((batch.left, batch.right))
        ]
        loss = self._loss(leaves[0], leaves[1], batch)
        loss.backward()
        if chunked:
            self._set_random_state(state)
        for (side, places), kept in zip(pieces, rows, strict=True):
            again = self._rows(encode, side, places, gradient=True) if chunked else kept
            gradient = leaves[side].grad
            assert gradient is not None  # the loss depends on both sides
            again.backward(gradient[torch.from_numpy(places).to(self.device)])
        return loss

    def _pieces(self, bank: Bank, items: np.ndarray) -> list[np.ndarray]:
        """Places in the batch of the items that are encoded at once; of this process only.

        Chunks hold items of about one length.
        """
        places, size = self.team.share(len(items)), self.config.chunk_size
        if not 0 < size < len(places):
            return [places]
        lengths = bank.lengths(torch.from_numpy(items[places]).to(bank.device)).cpu().numpy()
        ordered = places[np.argsort(lengths, kind="stable")]
        return np.array_split(ordered, -(-len(ordered) // size))

    def _encoder(self, banks: PairedBanks, batch: Batch, random: np.random.Generator) -> Encode:
        """What gives the rows of a batch; mixed are all its items, whichever are encoded here."""
        sides = _sides(banks, batch)
        if not self.config.mixup:
            return lambda side, places: encode_items(
                self.model, side, sides[side][0], sides[side][1][places]
            )
        left, right = (self._gather(bank, items) for bank, items in sides)  # (B or C, 1, d)
        mixed = mix(left, right, batch, self.config.mixup, random)

        def encode(side: int, places: np.ndarray) -> Tensor:
            values = mixed[side]
            if len(places) < len(values):
                values = values[torch.from_numpy(places).to(self.device)]
            one = torch.ones(1, 1, dtype=torch.bool, device=self.device)
            return self.model.encode(side, values, one.expand(len(values), 1))

        return encode

    def _rows(
        self,
        encode: Encode,
        side: int,
        places: np.ndarray,
        gradient: bool,
    ) -> Tensor:
        # A block of autocast for each: within one, weights are cast once, and what was cast without
        # gradient, or was freed with the chunk before, would be taken again.
        with torch.set_grad_enabled(gradient), self._autocast():
            return encode(side, places)

    def _whole(self, side: int, pieces: list[Piece], rows: list[Tensor], count: int) -> Tensor:
        """All rows of a side, those of other processes too, without gradient."""
        own = [
            (places, part) for (of, places), part in zip(pieces, rows, strict=True) if of == side
        ]
        back = torch.from_numpy(np.argsort(np.concatenate([places for places, _ in own])))
        return self.team.gather(torch.cat([part for _, part in own])[back.to(self.device)], count)

    def _loss(self, left: Tensor, right: Tensor, batch: Batch) -> Tensor:
        return batch_loss(left, right, batch, self.model.temperature.scale(), self.config.loss)

    def _autocast(self) -> torch.autocast:
        half = in_half(self.config, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, half)

    def _random_state(self) -> tuple[Tensor, Tensor | None]:
        cuda = self.device.type == "cuda"
        return torch.get_rng_state(), torch.cuda.get_rng_state(self.device) if cuda else None

    def _set_random_state(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self.device)

    def _gather(self, bank: Bank, positions: np.ndarray) -> Tensor:
        values, _ = bank.gather(torch.from_numpy(positions).to(bank.device))
        return values.to(self.device)

    def _update(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.done)
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


def _sides(banks: PairedBanks, batch: Batch) -> tuple[tuple[Bank, np.ndarray], ...]:
    return (banks.left, batch.left), (banks.right, batch.right)
