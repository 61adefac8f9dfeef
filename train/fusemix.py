"""FuseMix's adapters: an MLP of residual blocks for each encoder, and nothing shared between them.

B items, L tokens an item, d_in width of an encoder, D shared width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .aligner import Aligner, EncoderSpec
from .dropout import Dropout
from .model import mean_over_tokens
from .model_config import ModelConfig

EXPANSION = 4
"""Hidden features of a block, times its width."""


class FuseMix(Aligner):
    """The fusion adapters of Vouitsis et al. (2024): inverted bottlenecks, then a projection.

    What makes them FuseMix is the data: `mixup` with one weight for a whole batch and both
    modalities (see `mixing`). Theirs mixes one half of a batch with the other, here a batch with a
    permutation of itself, which leaves as many pairs as there were.
    """

    method = "fusemix"

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        """Start the adapters from torch's global random state.

        Of the configuration only layout, width, blocks, projection_dropout, the inputs' options and
        the temperature matter.
        """
        super().__init__(encoders, config)
        self.heads = nn.ModuleList(_adapter(spec.width, config) for spec in encoders)

    def features(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """What the encoder's adapter makes of the mean, (B, D) float32; see Aligner.features."""
        mean = mean_over_tokens(self.inputs[encoder](values), mask)  # (B, d_in)
        return self.heads[encoder](mean).float()


class Bottleneck(nn.Module):
    """x + MLP(LayerNorm(x)), the MLP four times as wide inside."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, EXPANSION * width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(EXPANSION * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, d_in) -> (B, d_in)."""
        return x + self.layers(x)


def _adapter(width: int, config: ModelConfig) -> nn.Sequential:
    """(B, d_in) -> (B, D)."""
    return nn.Sequential(
        *(Bottleneck(width, config.projection_dropout) for _ in range(config.blocks)),
        nn.LayerNorm(width),
        nn.Linear(width, config.width),
    )
