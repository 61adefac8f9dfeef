"""Both encoders with ConVIRT's heads, as one module, and the optimizer of its weights.

B pairs, L tokens, d_in width of an encoder's pooled vector, D shared width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..cache.files import value_digest
from ..precompute.encoders import FrozenEncoder
from ..precompute.tower import Tower
from ..train.aligner import EncoderSpec
from ..train.config import FitConfig
from ..train.convirt import ConVIRT


class DualEncoder(nn.Module):
    """Two encoders and ConVIRT's heads on their pooled vectors."""

    def __init__(self, image: Tower, text: Tower, heads: ConVIRT) -> None:
        super().__init__()
        self.image, self.text, self.heads = image, text, heads

    def forward(self, pictures: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Unit rows of B pictures and of B captions, each (B, D) float32.

        Args:
            pictures: (B, 3, H, W) uint8.
            ids: Token ids, (B, L) int64.
            mask: (B, L), 1 for tokens.
        """
        image, text = self.image(pictures), self.text(ids, mask)  # (B, d_in) each
        one = torch.ones(len(image), 1, dtype=torch.bool, device=image.device)
        rows = self.heads.encode(0, image[:, None], one)
        return rows, self.heads.encode(1, text[:, None], one)


def encoder_spec(encoder: FrozenEncoder) -> EncoderSpec:
    """What the heads have to know of an encoder, its identity as streams of it have it."""
    return EncoderSpec(
        name=encoder.short_name,
        column=encoder.modality,
        modality=encoder.modality,
        identity=value_digest(encoder.made_of),
        width=encoder.pooled_width,
    )


def build_optimizer(model: DualEncoder, config: FitConfig, encoder_lr: float) -> torch.optim.AdamW:
    """AdamW with a rate for the encoders and one for the rest; only matrices decay."""
    groups = []
    for parts, rate in (((model.image, model.text), encoder_lr), ((model.heads,), config.lr)):
        weights = [weight for part in parts for weight in part.parameters()]
        for matrices, decay in ((True, config.weight_decay), (False, 0.0)):
            chosen = [weight for weight in weights if (weight.ndim >= 2) == matrices]
            groups.append({"params": chosen, "highest": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)
