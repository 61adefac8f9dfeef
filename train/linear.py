"""Linear heads: the baseline that every fusion has to beat.

B items, L tokens an item, d_in width of an encoder, D shared width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .aligner import Aligner, EncoderSpec
from .model import mean_over_tokens
from .model_config import ModelConfig


class LinearHeads(Aligner):
    """One linear map per encoder into the shared space, and a learned temperature."""

    method = "linear"

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        """Start the heads from torch's global random state.

        Of the configuration only layout, width, the inputs' options and the temperature matter.
        """
        super().__init__(encoders, config)
        self.heads = nn.ModuleList(nn.Linear(spec.width, config.width) for spec in encoders)

    def features(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """What the encoder's head makes of the mean, (B, D) float32; see Aligner.features."""
        mean = mean_over_tokens(self.inputs[encoder](values), mask)  # (B, d_in)
        return self.heads[encoder](mean).float()
