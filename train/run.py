"""A run folder, opened.

It holds config.json, model.safetensors, history.jsonl, curves.png, environment.json, summary.json,
and the linear heads in baselines/linear.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..cache.errors import InputError, RunError
from ..cache.files import file_digest
from ..cache.stream import Stream
from .aligner import CONFIG_NAME, WEIGHTS_NAME, Aligner, EncoderSpec, read_card
from .asif import ASIF
from .config import BASELINES, FitConfig, LossConfig, ModelConfig
from .convirt import ConVIRT
from .csa import CSA
from .fusemix import FuseMix
from .history import SUMMARY_NAME
from .linear import LinearHeads
from .model import CBMF
from .source import Source
from .step import in_half

ENVIRONMENT_NAME = "environment.json"
BASELINES_NAME = "baselines"
RUNS = Path("runs")
"""Where runs go unless told otherwise."""
MODELS: dict[str, type[Aligner]] = {
    model.method: model for model in (CBMF, LinearHeads, ConVIRT, FuseMix, CSA, ASIF)
}
"""Method -> class."""


def build_model(encoders: Sequence[EncoderSpec], config: FitConfig) -> Aligner:
    """The model before its first step; the same for the same configuration, on every device."""
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        return MODELS[config.method](encoders, config.model)


def default_folder(dataset: str, config: FitConfig) -> Path:
    """`runs/DATASET-PRESET-FUSION-LAYOUT-SEED`; the baselines have no fusion."""
    name = [dataset, config.preset, config.model.fusion, config.model.layout, str(config.seed)]
    if config.method in BASELINES:
        name.pop(2)
    return RUNS / "-".join(name)


def newest_run(parent: Path = RUNS) -> Path:
    """The run folder in `parent` that was written to last.

    Raises:
        RunError: If there is none.
    """
    weights = list(parent.glob(f"*/{WEIGHTS_NAME}"))
    if not weights:
        raise RunError(f"{parent} has no run; make one with cbmf fit, or name one with --run")
    return max(weights, key=lambda path: path.stat().st_mtime_ns).parent


@dataclass
class Run:
    """A run folder, opened."""

    folder: Path
    config: FitConfig
    dataset: str
    """Name of the data set in the cache that the model was fitted on."""
    model: Aligner
    """With its best weights, in evaluation mode."""
    finished: bool
    """False for a fit that was interrupted; the model is then the best until there."""
    baselines: dict[str, LinearHeads] = field(default_factory=dict)
    """Models fitted beside, by name: `linear`. They read the pooled layout (see their `layout`)."""
    held: int = 0
    """How many of the first encoders were taken over from the run that this one extends."""
    measured: tuple[int, ...] | None = None
    """Places of the encoders that are measured; None: all."""
    alone: bool = False
    """Measure the model only, not what stands beside it: faster, where that is known already."""

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Run:
        """Open a run folder.

        Raises:
            RunError: If it is missing or damaged, or of another version.
        """
        folder = Path(folder)
        card = read_card(folder)
        config = config_of(card, folder)
        return cls(
            folder=folder,
            config=config,
            dataset=str(card["dataset"]),
            model=MODELS[config.method].from_pretrained(folder, device),
            finished=(folder / SUMMARY_NAME).exists(),
            held=int(card.get("extends", {}).get("encoders", 0)),
            baselines={
                path.parent.name: LinearHeads.from_pretrained(path.parent, device)
                for path in sorted((folder / BASELINES_NAME).glob(f"*/{WEIGHTS_NAME}"))
            },
        )

    @cached_property
    def untrained(self) -> Aligner:
        """The model as it was before its first step: same seed, same input statistics.

        Of a run that extends another one, only what it has added is untrained.
        """
        model = build_model(self.model.encoders, self.config)
        model.inputs.load_state_dict(self.model.inputs.state_dict())
        if self.held:
            model.take_over(self.model, self.held)
        return model.to(self.model.temperature.log_scale.device).eval()

    def beside(self, name: str) -> Run | None:
        """A model fitted beside, as a run of its own; None if there is none of that name."""
        folder = self.folder / BASELINES_NAME / name
        return (
            Run.load(folder, self.model.temperature.log_scale.device) if folder.exists() else None
        )

    def trace(self) -> dict[str, Any]:
        """What the config.json of a run that extends this one tells of it."""
        return {
            "run": self.folder.resolve().name,
            "encoders": len(self.model.encoders),
            "weights": file_digest(self.folder / WEIGHTS_NAME),
        }


def run_card(model: Aligner, config: FitConfig, source: Source) -> dict[str, Any]:
    """What config.json of a run holds: the model's card, the fit, the data, the versions."""
    streams = {"train": [_trace(stream) for stream in source.train]}
    if source.val is not None:
        streams["val"] = [_trace(stream) for stream in source.val]
    card = describe_run(model, config, source.dataset, streams)
    specs = [stream.manifest.spec for stream in source.train]
    return {**card, "sources": {s.identity: encoder_source(s.source, s.made_of) for s in specs}}


def encoder_source(name: str, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """How to run an encoder again: its hub name or folder, and the options that matter."""
    return {"name": name, **{key: made_of.get(key) for key in ("pool", "layer", "max_length")}}


def describe_run(
    model: Aligner, config: FitConfig, dataset: str, streams: Mapping[str, Any]
) -> dict[str, Any]:
    """What config.json of a run holds, where `streams` tells of the data by split."""
    fit = {key: value for key, value in asdict(config).items() if key != "model"}
    card = {**model.card(), "fit": fit, "dataset": dataset, "streams": streams}
    return json.loads(json.dumps({**card, "versions": versions()}))


def config_of(card: Mapping[str, Any], folder: Path) -> FitConfig:
    """The configuration in a run's config.json.

    Raises:
        RunError: If the folder holds a model alone, or the configuration is of another version.
    """
    path = folder / CONFIG_NAME
    if "fit" not in card or "dataset" not in card:
        raise RunError(f"{path}: describes a model, not a run; it was not written by cbmf fit")
    try:
        fit = dict(card["fit"])
        loss, model = LossConfig(**fit.pop("loss")), ModelConfig(**card["model"])
        return FitConfig(**fit, loss=loss, model=model)
    except (TypeError, KeyError, InputError) as error:
        raise RunError(f"{path}: not a configuration of this version ({error})") from error


def _trace(stream: Stream) -> dict[str, Any]:
    """Enough to find a stream again, and to tell when it is another one."""
    return {
        "folder": stream.path.name,
        "column": stream.column,
        "encoder": stream.encoder,
        "identity": stream.identity,
        "fingerprint": stream.fingerprint,
    }


def versions() -> dict[str, str]:
    """Versions of what makes the numbers."""
    found = {"python": platform.python_version()}
    for name in ("cbmf", "torch", "numpy", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment(device: torch.device, cache_root: Path, config: FitConfig) -> dict[str, Any]:
    """The machine and the software that a fit ran on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": gpu or device.type,
        "precision": "bfloat16 autocast" if in_half(config, device) else "float32",
        "cache": str(cache_root.resolve()),
    }
