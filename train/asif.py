"""ASIF: items are compared by what they are similar to, among pairs that both sides know.

B items, L tokens an item, N anchors, d_in width of an encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .aligner import EncoderSpec
from .config import FitConfig
from .model_config import ModelConfig
from .paired import PairedBanks
from .solved import Solved
from .streaming import StreamedPairs

SHARES = (1.0, 0.25, 0.0625, 0.015625)
"""Of the anchors, how many an item keeps: those that validation chooses among."""
POWERS = (1.0, 2.0, 4.0, 8.0)
"""Likewise of the similarities. (The paper has 8, and 800 of 1.6 million anchors.)"""


class ASIF(Solved):
    """Relative representations over coupled anchors (Norelli et al., NeurIPS 2023).

    An item's row is its cosines to all anchors of its own modality, of which the highest k are
    kept, raised to a power, and brought to unit length; anchors are pairs, so rows of both
    modalities compare.
    """

    method = "asif"
    anchors_0: Tensor
    anchors_1: Tensor
    nearest: Tensor
    power: Tensor

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        """Without anchors yet: D is 0.

        Of the configuration layout, anchors, nearest, power, standardise and the temperature
        matter. D is N.
        """
        super().__init__(encoders, config)
        for encoder, spec in enumerate(encoders):
            self.register_buffer(f"anchors_{encoder}", torch.zeros(0, spec.width))  # (N, d_in)
        self.register_buffer("nearest", torch.ones((), dtype=torch.int64))
        self.register_buffer("power", torch.ones(()))
        self.width = 0

    def features(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """The sparse relative representation, up to a factor, (B, D) float32."""
        x = F.normalize(self.mean(encoder, values, mask), dim=1)
        similar = x @ self.get_buffer(f"anchors_{encoder}").T  # (B, N)
        kept = min(int(self.nearest), similar.shape[1])
        lowest = similar.topk(kept, dim=1).values[:, -1:]  # (B, 1)
        similar = similar.masked_fill(similar < lowest, 0)
        # By the highest one: of small numbers a high power is no number any more.
        similar = similar / similar.abs().amax(1, keepdim=True).clamp(min=1e-12)
        return similar.sign() * similar.abs() ** self.power

    def take(self, left: Tensor, right: Tensor) -> None:
        """Take over the vectors of N pairs as anchors, (N, d) and (N, e)."""
        self._grow(len(left))
        for encoder, vectors in enumerate((left, right)):
            self.get_buffer(f"anchors_{encoder}").copy_(F.normalize(vectors.float(), dim=1))

    def solutions(
        self, train: PairedBanks | StreamedPairs, config: FitConfig
    ) -> Iterator[dict[str, float]]:
        """Take the anchors, then each number and power that is to be tried."""
        self.take(*self._drawn(train, config))
        asked = config.model
        shares = [max(1, round(share * self.width)) for share in SHARES]
        for nearest in dict.fromkeys(shares if asked.nearest is None else [asked.nearest]):
            for power in POWERS if asked.power is None else (asked.power,):
                self.nearest.fill_(nearest)
                self.power.fill_(power)
                yield {"nearest": float(nearest), "power": power}

    @torch.no_grad()
    def _drawn(
        self, train: PairedBanks | StreamedPairs, config: FitConfig
    ) -> tuple[Tensor, Tensor]:
        """The first pairs of a shuffled epoch, (N, d) and (N, e)."""
        left, right, count = [], [], 0
        for banks, batch in train.batches(config, epoch=0):
            owner = torch.from_numpy(batch.owner).to(self.power.device)
            left.append(self.means(0, banks.left, batch.left)[owner])
            right.append(self.means(1, banks.right, batch.right))
            count += len(owner)
            if count >= config.model.anchors:
                break
        most = config.model.anchors
        return torch.cat(left)[:most], torch.cat(right)[:most]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's, with as many anchors as are there."""
        anchors = state_dict.get("anchors_0")
        if isinstance(anchors, Tensor) and anchors.ndim == 2:
            self._grow(len(anchors))
        return super().load_state_dict(state_dict, strict, assign)

    def _grow(self, count: int) -> None:
        """Make room for so many anchors."""
        for encoder, spec in enumerate(self.encoders):
            shape = (count, spec.width)
            self.register_buffer(f"anchors_{encoder}", torch.zeros(shape, device=self.power.device))
        self.width = count
