"""How a model and its loss are built. Plain Python: imports neither torch nor numpy."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..cache.errors import InputError

CLIP_LOG_SCALE = math.log(1 / 0.07)
"""Log of the factor on cosines at the start, as in CLIP: a temperature of 0.07."""
ATTENTION_FUSIONS = ("dot", "additive", "general")
FUSIONS = ("add", "mul", "concat", *ATTENTION_FUSIONS, "none")
LAYOUTS = ("pooled", "tokens")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. D: width of the shared space."""

    layout: str = "pooled"
    """What is eaten: `pooled` (one vector an item) or `tokens` (a sequence an item)."""
    width: int = 256
    """D, features."""
    standardise: bool = True
    """Bring every input feature to mean 0 and deviation 1, measured on the training items."""
    input_dropout: float = 0.3
    """Share of an item's input features set to zero while training, 0 to below 1."""
    input_noise: float = 0.0
    """Deviation of the Gaussian noise on inputs while training, in deviations of a feature."""
    token_dropout: float = 0.0
    """Share of an image's tokens, its first one apart, left out while training, 0 to below 1."""
    class_token: str = "among"
    """An image's first token (CLS) stands `among` the others, or `beside` each of them (features
    side by side: twice the encoder's width)."""
    projection_width: int = 512
    """Hidden features of each projection's MLP."""
    projection_skip: bool = True
    """Add a linear map beside the projection's MLP: Wx + MLP(x); the MLP starts at zero."""
    projection_norm: bool = False
    """End each projection with a LayerNorm."""
    projection_dropout: float = 0.2
    """Share of the projection's MLP outputs set to zero while training."""
    fusion: str = "add"
    """How the context enters: add, mul, concat, dot, additive, general, or none."""
    learn_context: bool = True
    """Whether contexts and their MLP are learned; False leaves them as they start, at random (an
    ablation)."""
    shared_projection: bool = False
    """One projection for all encoders, narrower inputs filled up with zeros (an ablation)."""
    attention_residual: bool = True
    """Attention fusions: x + attention (the released code) rather than attention alone (Eq. 2)."""
    null_key: bool = False
    """Attention fusions: attend to one more, learned key and value, so that one token is enough."""
    dfe: bool = True
    """False leaves the deep fusion encoder out (an ablation): tokens are averaged as fused."""
    heads: int = 4
    """Heads of the transformer block; must divide D."""
    ffn_width: int = 512
    """Hidden features of the block's feed-forward part."""
    activation: str = "relu"
    """Of the feed-forward part: `relu` or `gelu`."""
    norm: str = "pre"
    """Where the block's LayerNorms stand: `post` (after each residual sum) or `pre`."""
    block_dropout: float = 0.2
    """Share of activations set to zero inside the block while training."""
    zero_start: bool = True
    """Start the block's two output maps at zero, so that the DFE begins near the identity."""
    gate: float | None = None
    """Start of a learned factor per feature on the block's output (LayerScale), 0 for a DFE that
    begins as the identity; None: no factor."""
    pool: str = "mean"
    """Over an item's tokens: `mean`, or `mean_unmasked` (padding takes part, as released)."""
    blocks: int = 4
    """Residual blocks of each of FuseMix's MLPs."""
    anchors: int = 8192
    """Pairs that ASIF compares items with, at most; D of its rows."""
    nearest: int | None = None
    """Anchors of an item that ASIF keeps; None: as many as validate best."""
    power: float | None = None
    """What ASIF raises similarities to; None: what validates best."""
    log_scale: float = CLIP_LOG_SCALE
    """Log of the factor on cosines at the start; minus the log of the temperature."""
    log_scale_min: float = 0.0
    """Lower end that the log of the factor is clamped to."""
    log_scale_max: float = math.log(100)
    """Upper end that the log of the factor is clamped to."""
    learn_scale: bool = True
    """Whether the factor is learned."""

    def __post_init__(self) -> None:
        one_of(self, "layout", LAYOUTS)
        one_of(self, "fusion", FUSIONS)
        one_of(self, "activation", ("relu", "gelu"))
        one_of(self, "norm", ("pre", "post"))
        one_of(self, "pool", ("mean", "mean_unmasked"))
        for name in ("width", "projection_width", "heads", "ffn_width", "blocks", "anchors"):
            at_least(self, name, 1)
        if self.nearest is not None:
            at_least(self, "nearest", 1)
        if self.power is not None and not 0 < self.power < math.inf:
            raise InputError(f"power must be above 0 and finite; got {self.power}")
        one_of(self, "class_token", ("among", "beside"))
        for name in ("input_dropout", "token_dropout", "projection_dropout", "block_dropout"):
            share(self, name)
        at_least(self, "input_noise", 0)
        if self.width % self.heads:
            raise InputError(f"width ({self.width}) must be divisible by heads ({self.heads})")
        if not self.log_scale_min <= self.log_scale <= self.log_scale_max:
            raise InputError(
                f"log_scale ({self.log_scale:g}) must lie between log_scale_min "
                f"({self.log_scale_min:g}) and log_scale_max ({self.log_scale_max:g})"
            )


@dataclass(frozen=True)
class LossConfig:
    """The symmetric contrastive loss (Eq. 3-6) and its readings."""

    targets: str = "hard"
    """`soft`: Eq. 5; `hard`: 1 for the partner."""
    soft_scale: str = "divide"
    """How Eq. 5 reads "/ 2 * tau": `divide` by 2 tau, or halve and `multiply` by tau."""
    detach_targets: bool = True
    """No gradient through soft targets; with it, making everything alike lowers the loss."""
    renormalise_targets: bool = True
    """Make each row of the transposed soft targets of Eq. 6 sum to 1."""
    same_image: str = "positives"
    """Other pairs of the same image in a batch: `positives`, or `masked` (no candidates at all);
    never negatives."""
    label_smoothing: float = 0.0
    """Share of a hard target that is spread over all candidates, 0 to below 1."""

    def __post_init__(self) -> None:
        one_of(self, "targets", ("hard", "soft"))
        one_of(self, "soft_scale", ("divide", "multiply"))
        one_of(self, "same_image", ("positives", "masked"))
        share(self, "label_smoothing")
        if self.targets == "soft" and self.label_smoothing:
            raise InputError("label_smoothing is for hard targets; soft targets are smooth already")


def one_of(config: Any, name: str, allowed: Collection[str]) -> None:
    """Refuse a field of another value than those allowed."""
    if getattr(config, name) not in allowed:
        raise InputError(
            f"{name} must be one of {', '.join(allowed)}; got {getattr(config, name)!r}"
        )


def at_least(config: Any, name: str, least: float) -> None:
    """Refuse a field below `least`, or not a number."""
    if not getattr(config, name) >= least:
        raise InputError(f"{name} must be at least {least}; got {getattr(config, name)}")


def share(config: Any, name: str) -> None:
    """Refuse a field outside 0 to below 1."""
    if not 0 <= getattr(config, name) < 1:
        raise InputError(f"{name} must lie in 0 to below 1; got {getattr(config, name)}")
