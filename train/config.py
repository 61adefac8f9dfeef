"""How a model is fitted, and the presets. Plain Python: imports neither torch nor numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..cache.errors import InputError
from .model_config import (
    ATTENTION_FUSIONS,
    CLIP_LOG_SCALE,
    FUSIONS,
    LAYOUTS,
    LossConfig,
    ModelConfig,
    at_least,
    one_of,
    share,
)

__all__ = [
    "ATTENTION_FUSIONS",
    "BASELINES",
    "END_TO_END",
    "FUSIONS",
    "LAYOUTS",
    "METHODS",
    "PRESETS",
    "SOLVED",
    "FitConfig",
    "LossConfig",
    "ModelConfig",
    "baseline_of",
    "override",
    "parse_settings",
    "preset",
]
SOLVED = ("csa", "asif")
"""Methods that are solved at once: no epochs."""
BASELINES = ("linear", "convirt", "fusemix", *SOLVED)
"""Methods that have a preset of their own, taken whatever preset is named with them."""
METHODS = ("cbmf", *BASELINES)
END_TO_END = "convirt-end-to-end"
"""What stands for a preset in the runs of `cbmf convirt`, whose encoders were trained too."""


@dataclass(frozen=True)
class FitConfig:
    """How to fit a model."""

    preset: str = "best"
    """The preset that this began as; for reports."""
    method: str = "cbmf"
    """`cbmf`, or a peer on the same vectors: `linear` (linear heads), `convirt` (ConVIRT's heads),
    `fusemix`, `csa`, `asif`."""
    left: str | None = None
    """Encoder of the left column (`image` of an image-text set), or several, commas between, that
    share the model; None: the only one there is."""
    right: str | None = None
    """Encoder of the right column, likewise."""
    baseline: bool = True
    """Fit linear heads beside the model, on the same data."""
    seed: int = 0
    """Of everything random: start, data order, dropout, mixing, hold-out."""
    epochs: int = 60
    """Passes over the training data, at most."""
    batch_size: int = 512
    """Items a step, in `batch_unit`."""
    batch_unit: str = "images"
    """What batch_size counts: `images` (left items, each once a pass) or `pairs`."""
    chunk_size: int = 0
    """Items encoded at once with gradient, against memory that runs out; 0: all of a batch. The
    loss is still over the whole batch (GradCache), its gradients are the same."""
    captions_per_image: int = 1
    """Right partners of each left item in a batch, drawn anew each epoch; 0: all. With `images`."""
    mixup: float = 1.0
    """Both parameters of the Beta distribution that mixes the inputs of two pairs with one weight
    for both modalities (FuseMix); 0: none. Pooled layout only."""
    mixup_each: bool = True
    """Draw that weight for each pair of a batch; False: one for all of them, as FuseMix has it."""
    lr: float = 2e-3
    """Highest learning rate of AdamW."""
    weight_decay: float = 0.1
    """Of AdamW."""
    decay: str = "matrices"
    """What decays: `matrices` (weights of 2 axes, not contexts), or `all`, temperature included."""
    schedule: str = "cosine"
    """Of the learning rate after warm-up: `cosine` to 0, `plateau`, or `constant`."""
    warmup: float = 0.1
    """Share of all steps in which the learning rate rises to its highest, 0 to below 1."""
    plateau_patience: int = 5
    """Epochs without a lower validation loss that `plateau` bears."""
    plateau_factor: float = 0.8
    """What `plateau` multiplies the learning rate with then, above 0 to below 1."""
    clip: float = 1.0
    """Largest norm of the gradient; longer ones are shortened. 0: no limit."""
    ema: float = 0.0
    """Decay a step of the running average of weights that is validated and kept; 0: none."""
    precision: str = "auto"
    """Arithmetic of the model while it trains: `float32`, `bfloat16` (autocast; weights, loss and
    validation stay float32), or `auto`: bfloat16 on a GPU that computes in it (Ampere and later),
    else float32."""
    stop_on: str = "val_recall"
    """What chooses the best epoch: `val_recall` (mean of R@1, 5, 10 both ways) or `val_loss`."""
    patience: int | None = None
    """Epochs without a better one after which fitting stops; None: never."""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        one_of(self, "method", METHODS)
        one_of(self, "batch_unit", ("images", "pairs"))
        one_of(self, "decay", ("matrices", "all"))
        one_of(self, "schedule", ("cosine", "plateau", "constant"))
        one_of(self, "stop_on", ("val_recall", "val_loss"))
        one_of(self, "precision", ("auto", "float32", "bfloat16"))
        lowest = {"epochs": 1, "batch_size": 2, "chunk_size": 0, "captions_per_image": 0, "seed": 0}
        for name, least in lowest.items():
            at_least(self, name, least)
        for name in ("mixup", "weight_decay", "plateau_patience", "clip"):
            at_least(self, name, 0)
        for name in ("warmup", "ema", "plateau_factor"):
            share(self, name)
        if not 0 < self.lr < math.inf or self.plateau_factor == 0:
            raise InputError(
                "lr must be above 0 and finite, plateau_factor above 0; "
                f"got {self.lr} and {self.plateau_factor}"
            )
        if self.patience is not None:
            at_least(self, "patience", 1)
        if self.mixup and self.model.layout == "tokens":
            raise InputError("mixup mixes pooled vectors; set mixup=0 with layout tokens")


PRESETS = ("best", "paper", "released", *BASELINES)
"""`best`: what measures best on real data. `paper`: the text of the paper. `released`: the code
that its author released. `linear`: linear heads. `convirt`: ConVIRT's heads, encoders frozen.
`fusemix`, `csa`, `asif`: what their papers say, for as few pairs as we have."""

_PLAIN: dict[str, Any] = {
    "standardise": False,
    "input_dropout": 0.0,
    "input_noise": 0.0,
    "token_dropout": 0.0,
    "class_token": "among",
    "mixup": 0.0,
    "clip": 0.0,
    "ema": 0.0,
    "captions_per_image": 1,
    "lr": 1e-3,
}
"""What the recipes that are not ours do without."""
_RELEASED: dict[str, Any] = {
    **_PLAIN,
    "projection_width": 256,
    "projection_skip": False,
    "projection_norm": True,
    "projection_dropout": 0.1,
    "heads": 4,
    "ffn_width": 2048,
    "activation": "relu",
    "norm": "post",
    "block_dropout": 0.1,
    "zero_start": False,
    "gate": None,
    "log_scale": 0.07,
    "log_scale_min": 0.01,
    "log_scale_max": 20.0,
    "epochs": 100,
    "batch_size": 64,
    "batch_unit": "pairs",
    "weight_decay": 1e-3,
    "decay": "all",
    "schedule": "plateau",
    "warmup": 0.0,
    "stop_on": "val_loss",
    "patience": 5,
}
_HEADS: dict[str, Any] = {
    **_PLAIN,
    "baseline": False,
    "epochs": 40,
    "batch_size": 1024,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "warmup": 0.05,
}
_SOLVED: dict[str, Any] = {**_PLAIN, "baseline": False, "epochs": 1, "learn_scale": False}
_CHANGES: dict[str, dict[str, Any]] = {
    "best": {},
    "released": _RELEASED,
    # Where it is silent, the released code speaks. Of the temperature it says what CLIP does:
    # from the released 0.93 soft targets are all but even, and nothing is learned.
    "paper": {
        **_RELEASED,
        "epochs": 500,
        "targets": "soft",
        "attention_residual": False,
        "log_scale": CLIP_LOG_SCALE,
        "log_scale_min": 0.0,
        "log_scale_max": math.log(100),
    },
    "linear": {**_HEADS, "method": "linear"},
    "convirt": {
        **_HEADS,
        "method": "convirt",
        "width": 512,
        "projection_width": 512,
        "projection_dropout": 0.0,
        # Without these two, a hidden layer learns the 6,000 images of Flickr8k by heart.
        "standardise": True,
        "input_dropout": 0.3,
    },
    "fusemix": {
        **_HEADS,
        "method": "fusemix",
        # Of 1 and 2 blocks, batches of 512 and 1,024, what validates best on Flickr8k.
        "blocks": 1,
        "batch_size": 512,
        "width": 512,
        "projection_dropout": 0.6,
        "mixup": 1.0,
        "mixup_each": False,
        "log_scale_min": math.log(1 / 0.5),
        "log_scale_max": math.log(1 / 0.001),
    },
    "csa": {
        **_SOLVED,
        "method": "csa",
        "standardise": True,  # changes nothing but the condition of the covariances
        "width": 1024,
        "captions_per_image": 0,
    },
    "asif": {**_SOLVED, "method": "asif"},
}
_BEST_ON_TOKENS: dict[str, Any] = {
    "mixup": 0.0,
    "token_dropout": 0.75,
    "class_token": "beside",
    "input_dropout": 0.3,
    "projection_width": 256,
    "ffn_width": 256,
    "epochs": 40,
}


def preset(name: str, **overrides: Any) -> FitConfig:
    """The configuration of that name, with some fields set otherwise.

    Args:
        name: One of `PRESETS`.
        **overrides: Fields of FitConfig, ModelConfig or LossConfig by name. A `method` of BASELINES
            takes its own recipe, whatever the name; `best` depends on the layout.

    Raises:
        InputError: If the name or a field is unknown, or a value is out of range.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown; there are {', '.join(PRESETS)}")
    method = overrides.get("method")
    recipe = method if method in BASELINES else name
    changes = _CHANGES[recipe]
    if recipe == "best" and overrides.get("layout") == "tokens":
        changes = _BEST_ON_TOKENS
    return override(FitConfig(), {"preset": recipe, **changes, **overrides})


def override(config: FitConfig, changes: Mapping[str, Any]) -> FitConfig:
    """The configuration with fields of it, of its model or of its loss set otherwise.

    Raises:
        InputError: If a field is unknown, or a value is out of range.
    """
    known = {f.name: part for part in (config.model, config.loss, config) for f in fields(part)}
    unknown = [name for name in changes if name not in known or name in ("model", "loss")]
    if unknown:
        raise InputError(f"no such option: {', '.join(unknown)}; there are {', '.join(known)}")

    def of(part: Any) -> dict[str, Any]:
        return {name: value for name, value in changes.items() if known[name] is part}

    model, loss = replace(config.model, **of(config.model)), replace(config.loss, **of(config.loss))
    return replace(config, model=model, loss=loss, **of(config))


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Options written as NAME=VALUE, each value as what its field holds.

    Args:
        settings: Such as `lr=0.01`, `standardise=false`, `patience=none`.

    Raises:
        InputError: If there is no such option, or it does not hold such a value.
    """
    parts = (ModelConfig, LossConfig, FitConfig)
    kinds = {f.name: str(f.type) for part in parts for f in fields(part)}
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in kinds or name in ("model", "loss"):
            raise InputError(f"{setting!r} is no NAME=VALUE with NAME one of {', '.join(kinds)}")
        parsed[name] = _parse(name, text, kinds[name])
    return parsed


def _parse(name: str, text: str, kind: str) -> Any:
    kind, _, rest = kind.partition(" | ")
    if rest == "None" and text.lower() == "none":
        return None
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return {"int": int, "float": float, "str": str}[kind](text)
    except (KeyError, ValueError) as error:
        kind = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
        or_none = ", or none" if rest else ""
        raise InputError(f"{name}={text}: {name} must be {kind}{or_none}") from error


def baseline_of(config: FitConfig) -> FitConfig:
    """The recipe of the linear heads that are fitted beside a model: same encoders, seed and D.

    They read the pooled vectors, whatever the model reads.
    """
    same = {"left": config.left, "right": config.right, "seed": config.seed}
    return preset("linear", width=config.model.width, heads=1, **same)
