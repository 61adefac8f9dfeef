"""ConVIRT's heads: an MLP for each encoder, and nothing shared between them.

B items, L tokens an item, d_in width of an encoder, D shared width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .aligner import Aligner, EncoderSpec
from .dropout import Dropout
from .model import mean_over_tokens
from .model_config import ModelConfig


class ConVIRT(Aligner):
    """The projections of Zhang et al. (2022), g(h) = W2 relu(W1 h), with a learned temperature.

    Theirs has 512 features inside and outside, a fixed temperature of 0.1, and weighs the loss of
    images 0.75 against 0.25 for texts; here the temperature and the even weights are those of all
    our models, so that only the heads differ.
    """

    method = "convirt"

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        """Start the heads from torch's global random state.

        Of the configuration only layout, width, projection_width, projection_dropout, the inputs'
        options and the temperature matter.
        """
        super().__init__(encoders, config)
        self.heads = nn.ModuleList(_head(spec.width, config) for spec in encoders)

    def features(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """What the encoder's head makes of the mean, (B, D) float32; see Aligner.features."""
        mean = mean_over_tokens(self.inputs[encoder](values), mask)  # (B, d_in)
        return self.heads[encoder](mean).float()


def _head(width: int, config: ModelConfig) -> nn.Sequential:
    """(B, d_in) -> (B, D)."""
    return nn.Sequential(
        nn.Linear(width, config.projection_width),
        nn.ReLU(),
        Dropout(config.projection_dropout),
        nn.Linear(config.projection_width, config.width),
    )
