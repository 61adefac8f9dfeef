"""CBMF: projections, context, fusion, deep fusion encoder, mean over tokens, unit length (Eq. 1).

B items, L tokens an item, d_in width of an encoder, D shared width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .aligner import Aligner, EncoderSpec
from .dfe import DeepFusionEncoder
from .fusion import Context, build_fusion
from .model_config import ModelConfig
from .projection import Inputs, Projection

__all__ = ["CBMF", "EncoderSpec"]


class CBMF(Aligner):
    """Context-based multimodal fusion of two or more frozen encoders."""

    method = "cbmf"

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        """Start a model from torch's global random state.

        Raises:
            InputError: If names repeat, or an attention fusion would meet one token an item.
        """
        super().__init__(encoders, config)
        widths = [spec.width * (2 if self._beside(spec) else 1) for spec in encoders]
        self.projection = Projection(max(widths), config) if config.shared_projection else None
        own = [] if config.shared_projection else widths
        self.projections = nn.ModuleList(Projection(width, config) for width in own)
        self.fusion = build_fusion(config)
        self.context = None if self.fusion is None else Context(len(encoders), config)
        if self.context is not None and not config.learn_context:
            self.context.requires_grad_(False)
        self.dfe = DeepFusionEncoder(config) if config.dfe else None

    def hold(self, count: int) -> None:
        """Let the first encoders be, and all that is shared; see Aligner.hold."""
        super().hold(count)
        if self.context is not None and self.config.learn_context:
            self.context.hold(count)

    def _beside(self, spec: EncoderSpec) -> bool:
        """Whether an image's first token is set beside each of its others."""
        tokens = self.config.layout == "tokens" and spec.modality == "image"
        return tokens and self.config.class_token == "beside"

    def _projected(self, encoder: int, x: Tensor) -> Tensor:
        """(B, L, d_in) -> (B, L, D)."""
        if self.projection is None:
            return self.projections[encoder](x)
        return self.projection(F.pad(x, (0, self.projection.hidden.in_features - x.shape[-1])))

    def features(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """Means over tokens of what the DFE gives, (B, D) float32; see Aligner.features."""
        if self.config.pool == "mean_unmasked":
            longest = self.get_buffer(f"inputs.{encoder}.longest")
            values, mask = _padded(values, mask, int(longest))
        inputs = self.inputs[encoder]
        assert isinstance(inputs, Inputs)
        x = inputs.standardised(values)  # (B, L, d_in)
        if self._beside(self.encoders[encoder]):
            first = x[:, :1].expand(-1, x.shape[1] - 1, -1)
            x, mask = torch.cat([first, x[:, 1:]], dim=-1), mask[:, 1:]  # (B, L - 1, 2 d_in)
        x = self._projected(encoder, inputs.disturbed(x))  # (B, L, D)
        if self.fusion is not None and self.context is not None:
            x, mask = self.fusion(x, mask, self.context(encoder))
        z = (x if self.dfe is None else self.dfe(x, mask)).float()  # (B, L, D)
        return mean_over_tokens(z, mask)


def mean_over_tokens(z: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real tokens of each item: (B, L, D), (B, L) bool -> (B, D)."""
    if z.shape[1] == 1:
        return z[:, 0]
    weight = mask[..., None].to(z.dtype)  # (B, L, 1)
    return (z * weight).sum(1) / weight.sum(1).clamp(min=1)


def _padded(values: Tensor, mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Let zeros stand for real tokens up to the longest training item, as the released code pads.

    An item gets the same whatever the batch it is in.
    """
    length = mask.sum(1).clamp(min=longest)  # (B,)
    step = torch.arange(max(longest, values.shape[1]), device=mask.device)
    values = values.masked_fill(~mask[..., None], 0)
    values = F.pad(values, (0, 0, 0, len(step) - values.shape[1]))
    return values, step < length[:, None]
