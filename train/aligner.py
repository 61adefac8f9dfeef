"""What every model here is: unit rows in one space, saved as config.json and model.safetensors.

B items, L tokens an item, d_in width of an encoder, D shared width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cache.errors import CacheError, InputError, RunError
from ..cache.files import read_json, write_json
from .bank import Statistics
from .loss import Temperature
from .model_config import ModelConfig
from .projection import Inputs
from .weights import read_tensors, write_tensors

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
MODEL_FORMAT = "cbmf-model"
MODEL_VERSION = 1
CONTEXTS = "context.vectors"
"""Name of the one parameter that has a row for each encoder."""


@dataclass(frozen=True)
class EncoderSpec:
    """What a model knows of a frozen encoder."""

    name: str
    """Short name, unique in the model."""
    column: str
    """`image` or `text`: the column that the model was fitted on."""
    modality: str
    """`image` or `text`."""
    identity: str
    """`Stream.identity`: streams of another identity are not this encoder's."""
    width: int
    """d_in, of what the model eats."""
    grid: int | None = None
    """Image tokens are grid x grid averages of patches; None: the patches themselves."""


class Aligner(nn.Module):
    """Base of the models that bring vectors of frozen encoders into one space.

    Its children that are lists (`inputs`, `projections`, `heads`) have a part for each encoder; all
    else, contexts apart, is shared.
    """

    method: ClassVar[str]
    layout: str
    held: int = 0
    """Encoders, the first ones, that do not learn while the others do."""

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        super().__init__()
        if len(encoders) < 2 or len({spec.name for spec in encoders}) < len(encoders):
            names = ", ".join(spec.name for spec in encoders)
            raise InputError(f"a model aligns two or more encoders of different names; got {names}")
        self.encoders, self.config = tuple(encoders), config
        self.layout, self.width = config.layout, config.width
        self.inputs = nn.ModuleList(Inputs(spec.width, config) for spec in encoders)
        self.temperature = Temperature(config)

    @abstractmethod
    def features(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """Rows of the shared space before they are brought to unit length, (B, D) float32.

        Args:
            encoder: Which of `encoders` the values come from.
            values: (B, L, d_in), as the encoder gave them; L = 1 in the pooled layout.
            mask: (B, L) bool, true where there is a token.
        """

    def encode(self, encoder: int | str, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Unit rows of the shared space, (B, D) float32.

        Args:
            encoder: Which of `encoders` the values come from: its number, or its name.
            values: (B, L, d_in), as the encoder gave them, or (B, d_in), one vector an item.
            mask: (B, L) bool, true where there is a token; None: everywhere.

        Raises:
            InputError: If there is no encoder of that name.
        """
        which = self.index(encoder) if isinstance(encoder, str) else encoder
        if values.ndim == 2:
            values = values[:, None]
        if mask is None:
            mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return F.normalize(self.features(which, values, mask), dim=-1)

    @torch.no_grad()
    def measure(self, encoder: int, statistics: Statistics) -> None:
        """Take over what was measured of an encoder's vectors on the training items."""
        inputs = self.inputs[encoder]
        assert isinstance(inputs, Inputs)
        inputs.longest.fill_(statistics.longest)
        if self.config.standardise:
            inputs.mean.copy_(statistics.mean)
            inputs.deviation.copy_(statistics.deviation)

    def take_over(self, base: Aligner, count: int) -> None:
        """Be a model of the same shape as regards its first encoders and all that is shared.

        Args:
            base: With at least `count` encoders of the same widths.
            count: How many of them, at least 1.
        """
        own = self.state_dict()  # views of the parameters themselves
        for name, value in base.state_of(count).items():
            own[name][: len(value)].copy_(value) if name == CONTEXTS else own[name].copy_(value)

    def state_of(self, count: int) -> dict[str, Tensor]:
        """What a model with the first `count` encoders alone would have, as its `state_dict`."""
        lists = [name for name, child in self.named_children() if isinstance(child, nn.ModuleList)]
        kept = {}
        for name, value in self.state_dict().items():
            part, _, rest = name.partition(".")
            if part not in lists or int(rest.partition(".")[0]) < count:
                kept[name] = value[:count] if name == CONTEXTS else value
        return kept

    def hold(self, count: int) -> None:
        """Let the first `count` encoders be as they are, and all that is shared.

        What belongs to the others alone still learns. Held parts are in evaluation mode even while
        the model is trained.
        """
        self.held = count
        self.requires_grad_(False)
        for part in self._learning():
            part.requires_grad_(True)

    def learns(self, encoder: int) -> bool:
        """Whether an encoder's part is being trained."""
        return self.training and encoder >= self.held

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode, which held parts are always in."""
        super().train(mode)
        if mode and self.held:
            for child in self.children():
                child.eval()
            for part in self._learning():
                part.train()
        return self

    def _learning(self) -> list[nn.Module]:
        """The parts of the encoders that are not held."""
        lists = [child for child in self.children() if isinstance(child, nn.ModuleList)]
        return [part for each in lists for part in each[self.held :]]

    def index(self, name: str) -> int:
        """Position of the encoder of that name.

        Raises:
            InputError: If the model has none; says which it has.
        """
        names = [spec.name for spec in self.encoders]
        if name not in names:
            raise InputError(f"the model has no encoder {name!r}; it has {', '.join(names)}")
        return names.index(name)

    def card(self) -> dict[str, Any]:
        """What is needed to build the model again, as config.json holds it."""
        return {
            "format": MODEL_FORMAT,
            "version": MODEL_VERSION,
            "method": self.method,
            "encoders": [asdict(spec) for spec in self.encoders],
            "model": asdict(self.config),
        }

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors: trainables and input statistics, no encoder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG_NAME, self.card())
        self.save_weights(folder)

    def save_weights(self, folder: Path) -> None:
        """Write model.safetensors, atomically."""
        write_tensors(folder / WEIGHTS_NAME, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> Self:
        """Build the model of a folder that `save_pretrained` or a fit wrote, ready for use.

        Raises:
            RunError: If the folder is missing, damaged, or holds a model of another kind.
        """
        folder = Path(folder)
        card = read_card(folder)
        if card["method"] != cls.method:
            raise RunError(f"{folder}: holds a {card['method']!r} model, not {cls.method!r}")
        model = cls.from_card(card, folder)
        model.load_weights(folder)
        return model.to(device).eval()

    @classmethod
    def from_card(cls, card: Mapping[str, Any], folder: Path) -> Self:
        """The model that a config.json describes, freshly started.

        Raises:
            RunError: If the description does not fit this version.
        """
        try:
            encoders = [EncoderSpec(**spec) for spec in card["encoders"]]
            with torch.random.fork_rng([]):  # the start is overwritten; nothing else shall notice
                return cls(encoders, ModelConfig(**card["model"]))
        except (TypeError, KeyError, InputError) as error:
            raise RunError(
                f"{folder / CONFIG_NAME}: does not describe a model of this version ({error})"
            ) from error

    def load_weights(self, folder: Path) -> None:
        """Read model.safetensors into this model.

        Raises:
            RunError: If the file is missing, damaged, or of a model of another shape.
        """
        path = folder / WEIGHTS_NAME
        if not path.is_file():
            raise RunError(f"{path}: no such file; the fit has not finished its first epoch")
        tensors, _ = read_tensors(path)
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"{path}: not of this model ({reason})") from error


def read_card(folder: Path) -> dict[str, Any]:
    """The config.json of a model's folder.

    Raises:
        RunError: If it is missing, damaged, or of another format version.
    """
    path = folder / CONFIG_NAME
    try:
        card = read_json(path, MODEL_VERSION)
    except (CacheError, OSError) as error:
        raise RunError(f"{folder}: not a run or a model ({error})") from error
    found = (card.get("format"), card.get("version"))
    if found != (MODEL_FORMAT, MODEL_VERSION):
        raise RunError(
            f"{path}: expected {MODEL_FORMAT} version {MODEL_VERSION}, got {found[0]} version "
            f"{found[1]}; read it with the release that wrote it, or fit again"
        )
    if not {"method", "encoders", "model"} <= card.keys():
        raise RunError(f"{path}: damaged, method, encoders or model is missing")
    return card
