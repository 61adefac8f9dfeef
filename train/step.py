"""One step of a fit: from a batch to its loss and new weights.

B left items, C right items of a batch, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

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
from .validation import mean_loss

Encode = Callable[[int, np.ndarray], Tensor]
"""From an encoder and places in its side of a batch to rows, (N, D)."""
Piece = tuple[int, np.ndarray]
"""An encoder, and places in its side of a batch of items that are encoded at once."""


def in_half(config: FitConfig, device: torch.device) -> bool:
    """Whether the model trains in bfloat16 on a device; by itself where a GPU computes in it."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


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
        encode = self._encode(banks, batch, random)
        pieces = [
            (encoder, places)
            for encoder, (bank, items) in enumerate(banks.items(batch.left, batch.right))
            for places in self._pieces(bank, items)
        ]
        if len(pieces) > len(banks.sides) or self.team.size > 1:
            loss = self._backward_apart(encode, pieces, banks.sides, batch)
        else:
            with self._autocast():
                rows = [encode(encoder, places) for encoder, places in pieces]
            loss = self._loss(rows, banks.sides, batch)
            loss.backward()
        self.team.sum_gradients(self.model)
        return loss.detach()

    def _backward_apart(
        self, encode: Encode, pieces: list[Piece], sides: Sequence[int], batch: Batch
    ) -> Tensor:
        """Rows first, then the loss and its gradients for them, then the parameters' from those."""
        chunked = len(pieces) > len(sides)
        state = self._random_state()
        rows = [self._rows(encode, *piece, gradient=not chunked) for piece in pieces]
        counts = len(batch.left), len(batch.right)
        leaves = [
            self._whole(encoder, pieces, rows, counts[side]).requires_grad_()
            for encoder, side in enumerate(sides)
        ]
        loss = self._loss(leaves, sides, batch)
        loss.backward()
        if chunked:
            self._set_random_state(state)
        for (encoder, places), kept in zip(pieces, rows, strict=True):
            if encoder < self.model.held:
                continue  # it learns nothing, and draws no random numbers
            again = self._rows(encode, encoder, places, gradient=True) if chunked else kept
            gradient = leaves[encoder].grad
            assert gradient is not None  # the loss depends on every encoder
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

    def _encode(self, banks: PairedBanks, batch: Batch, random: np.random.Generator) -> Encode:
        """What gives the rows of a batch; mixed are all its items, whichever are encoded here."""
        found = banks.items(batch.left, batch.right)
        if not self.config.mixup:
            return lambda encoder, places: encode_items(
                self.model, encoder, found[encoder][0], found[encoder][1][places]
            )
        left, right, *rest = (self._gather(bank, items) for bank, items in found)  # (B or C, 1, d)
        more = list(zip(banks.sides[2:], rest, strict=True))
        mixup, each = self.config.mixup, self.config.mixup_each
        mixed = mix(left, right, batch, mixup, random, more, each)

        def encode(encoder: int, places: np.ndarray) -> Tensor:
            values = mixed[encoder]
            if len(places) < len(values):
                values = values[torch.from_numpy(places).to(self.device)]
            one = torch.ones(1, 1, dtype=torch.bool, device=self.device)
            return self.model.encode(encoder, values, one.expand(len(values), 1))

        return encode

    def _rows(
        self,
        encode: Encode,
        encoder: int,
        places: np.ndarray,
        gradient: bool,
    ) -> Tensor:
        # A block of autocast for each: within one, weights are cast once, and what was cast without
        # gradient, or was freed with the chunk before, would be taken again.
        with torch.set_grad_enabled(gradient), self._autocast():
            return encode(encoder, places)

    def _whole(self, encoder: int, pieces: list[Piece], rows: list[Tensor], count: int) -> Tensor:
        """All rows by an encoder, those of other processes too, without gradient."""
        own = [
            (places, part) for (of, places), part in zip(pieces, rows, strict=True) if of == encoder
        ]
        back = torch.from_numpy(np.argsort(np.concatenate([places for places, _ in own])))
        return self.team.gather(torch.cat([part for _, part in own])[back.to(self.device)], count)

    def _loss(self, rows: list[Tensor], sides: Sequence[int], batch: Batch) -> Tensor:
        model = self.model
        return mean_loss(
            rows, sides, model.held, batch, model.temperature.scale(), self.config.loss
        )

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
