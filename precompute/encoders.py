"""Frozen encoders through transformers' Auto classes. B batch, L tokens, D width.

Weights come from safetensors only and no remote code is run. Encoders are in eval mode; each is
described by everything that changes its numbers (`FrozenEncoder.made_of`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..cache.errors import InputError
from ..cache.files import value_digest
from .pooling import POOLS, pool_grid, pool_image, pool_text, split_image_tokens
from .scenes import DEMO_ENCODERS as SHIPPED
from .scenes import demo_encoder

DEFAULT_ENCODERS = {"text": "bert-base-uncased", "image": "google/vit-base-patch16-224"}
"""The paper's encoders."""
DEFAULT_TEXT_PAIR = ("bert-base-uncased", "roberta-base")
"""The paper's two encoders of texts."""
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder is run."""

    pool: str | None = None
    """One of POOLS; None: `mean` for text, `cls+mean` for images where there is a class token."""
    layer: int = -1
    """Which hidden state: -1 the last (after the final norm), 0 the embeddings, k block k."""
    max_length: int = 128
    """Tokens of a text, special ones included; longer texts are cut."""
    layout: str = "pooled"
    """`pooled` (one vector an item) or `tokens` (the sequence, and the vector)."""
    grid: int | None = None
    """Average-pool image patches to grid x grid tokens; None keeps them all."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: str = "auto"
    """Arithmetic inside the encoder: one of PRECISIONS; `auto`: float16 on CUDA, else float32."""

    def __post_init__(self) -> None:
        if self.pool is not None and self.pool not in POOLS:
            raise InputError(f"--pool {self.pool!r} is unknown; choose one of {', '.join(POOLS)}")
        if self.precision not in ("auto", *PRECISIONS):
            raise InputError(f"--precision {self.precision!r} is unknown; {', '.join(PRECISIONS)}")
        if self.max_length < 2:
            raise InputError(f"--max-length must be at least 2, got {self.max_length}")
        if self.grid is not None and self.grid < 1:
            raise InputError(f"--grid must be at least 1, got {self.grid}")
        if self.grid is not None and self.layout == "pooled":
            raise InputError("--grid is about tokens; add --layout tokens, or leave it out")


def with_layer(name: str, options: EncoderOptions) -> tuple[str, EncoderOptions]:
    """The encoder's name and options of `NAME@layer=3`, or of a name alone.

    Raises:
        InputError: If the layer is no number.
    """
    whole, mark, layer = name.rpartition("@layer=")
    if not mark:
        return name, options
    if not whole or not re.fullmatch(r"-?\d+", layer):
        raise InputError(
            f"encoder {name}: expected NAME@layer=NUMBER, as bert-base-uncased@layer=8"
        )
    return whole, replace(options, layer=int(layer))


@dataclass(frozen=True)
class Encoded:
    """What an encoder gives for a batch, float32 on the CPU."""

    pooled: np.ndarray
    """(B, D of the pooled vector)."""
    tokens: list[np.ndarray] | None
    """B arrays (L_i, D) in the tokens layout."""


class FrozenEncoder:
    """A pretrained encoder that only ever runs forwards."""

    def __init__(self, name: str, modality: str, options: EncoderOptions) -> None:
        """Load an encoder.

        Args:
            name: Hub name, local folder, or one of the encoders that ship with the package.
            modality: `text` or `image`.
            options: How to run it.

        Raises:
            InputError: If it cannot be found or loaded, or lacks weights.
        """
        name = str(demo_encoder(name)) if name in SHIPPED else name
        self.name, self.modality, self.options = name, modality, options
        self.short_name = _short_name(name, options.layer) or modality
        self.device = _device(options.device)
        self.precision = _precision(options.precision, self.device)
        self.model, missing = _load_model(name, modality)
        self.has_pooler = not any("pooler" in key for key in missing)
        self.processor = _load_processor(name, modality)
        self.pool = options.pool or self._default_pool()
        self.made_of = self._describe(missing)
        self.model.to(self.device)
        self.width, self.pooled_width, self.image_tokens = self._measure()

    def _default_pool(self) -> str:
        if self.modality == "text":
            return "mean"
        side = getattr(getattr(self.model, "config", None), "patch_size", None)
        names = {name for name, _ in self.model.named_parameters()}
        has_cls = side is not None and any(
            "cls_token" in n or "class_embedding" in n for n in names
        )
        return "cls+mean" if has_cls else "mean"

    def _describe(self, missing: list[str]) -> dict[str, Any]:
        libraries = ["torch", "transformers", "tokenizers" if self.modality == "text" else "pillow"]
        described: dict[str, Any] = {
            "class": type(self.model).__name__,
            "weights": _weights_digest(self.model, missing),
            "processor": _describe_processor(self.processor, self.modality),
            "pool": self.pool,
            "layer": self.options.layer,
            "libraries": {name: int(version(name).split(".")[0]) for name in libraries},
        }
        if self.modality == "text":
            described["max_length"] = self.max_length
        return described

    @property
    def identity(self) -> str:
        """`Stream.identity` of what it encodes."""
        return value_digest(self.made_of)

    @property
    def max_length(self) -> int:
        """Tokens of a text that are kept, within what the model can take."""
        limit = getattr(self.processor, "model_max_length", None) or self.options.max_length
        return min(self.options.max_length, int(min(limit, 10**9)))

    def _measure(self) -> tuple[int, int, int]:
        if self.modality == "text":
            one = self.encode_texts(self.tokenize(["a photo"]))
        else:
            blank = np.zeros((32, 32, 3), np.uint8)
            one = self.encode_images(torch.from_numpy(self.preprocess(blank))[None])
        pooled_width = one.pooled.shape[1]
        if one.tokens is None:
            return pooled_width, pooled_width, 1
        return one.tokens[0].shape[1], pooled_width, len(one.tokens[0])

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to `max_length`."""
        return self.processor(list(texts), truncation=True, max_length=self.max_length)["input_ids"]

    def preprocess(self, picture: Any) -> np.ndarray:
        """One RGB picture as the model takes it, (3, H, W) float32."""
        return np.asarray(
            self.processor(picture, return_tensors="np")["pixel_values"][0], np.float32
        )

    def encode_texts(self, token_ids: list[list[int]]) -> Encoded:
        """Embeddings of a batch of texts.

        Args:
            token_ids: B lists, as `tokenize` gives them; padding and its mask are made here.
        """
        longest = max(map(len, token_ids))
        pad = self.processor.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in token_ids])  # (B, L)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in token_ids])
        ids, mask = ids.to(self.device), mask.to(self.device)
        hidden, pooler = self._forward(input_ids=ids, attention_mask=mask)  # (B, L, D)
        pooled = pool_text(self.pool, hidden, mask, pooler if self.has_pooler else None)
        tokens = None
        if self.options.layout == "tokens":
            cpu = hidden.cpu().numpy()
            tokens = [cpu[i, : len(row)] for i, row in enumerate(token_ids)]
        return Encoded(pooled.cpu().numpy(), tokens)

    def encode_images(self, pixels: Tensor) -> Encoded:
        """Embeddings of a batch of images.

        Args:
            pixels: (B, 3, H, W) float32, as `preprocess` gives them.
        """
        hidden, pooler = self._forward(pixel_values=pixels.to(self.device))
        cls, patches = split_image_tokens(hidden, self.patch_count(pixels))
        pooled = pool_image(self.pool, cls, patches, pooler if self.has_pooler else None)
        tokens = None
        if self.options.layout == "tokens":
            if self.options.grid is not None:
                patches = pool_grid(patches, self.options.grid)
            parts = [patches] if cls is None else [cls[:, None], patches]
            tokens = list(torch.cat(parts, dim=1).cpu().numpy())
        return Encoded(pooled.flatten(1).cpu().numpy(), tokens)

    def patch_count(self, pixels: Tensor) -> int | None:
        """Patches that the encoder cuts an image of (B, 3, H, W) into; None if it does not tell."""
        size = getattr(getattr(self.model, "config", None), "patch_size", None)
        if not isinstance(size, int):
            return None
        return (pixels.shape[-2] // size) * (pixels.shape[-1] // size)

    @torch.inference_mode()
    def _forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        half = self.precision != "float32"
        cast = (
            torch.autocast(self.device.type, getattr(torch, self.precision))
            if half
            else nullcontext()
        )
        inner = self.options.layer != -1
        with cast:
            output = self.model(**inputs, output_hidden_states=inner, return_dict=True)
        if inner:
            states = output.hidden_states
            layer, n = self.options.layer, len(states)
            if not -n <= layer < n:
                raise InputError(f"--layer {layer}: the encoder has {n} states, -{n}..{n - 1}")
            hidden = states[layer]
        else:
            hidden = output.last_hidden_state
        pooler = getattr(output, "pooler_output", None)
        return hidden.float(), None if pooler is None else pooler.float().flatten(1)


def _short_name(name: str, layer: int) -> str:
    """The last part of a name; an inner layer is an encoder of its own in a cache, and says so."""
    last = re.sub(r"[^\w.+-]+", "-", name.rstrip("/").split("/")[-1])
    return last if layer == -1 else f"{last}.layer{layer}"


def _device(wanted: str) -> torch.device:
    if wanted != "auto":
        try:
            device = torch.device(wanted)
        except RuntimeError as error:
            raise InputError(f"--device {wanted!r} is unknown; try auto, cpu or cuda") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"--device {wanted}: no CUDA device is to be seen; use --device cpu")
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto":
        return wanted
    return "float16" if device.type == "cuda" else "float32"


def _load_model(name: str, modality: str) -> tuple[nn.Module, list[str]]:
    """The encoder in float32, frozen, and the names of weights that its checkpoint lacks."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _require_folder(name)
    try:
        model, info = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"encoder {name}: cannot be loaded ({reason})") from error
    missing = sorted(info["missing_keys"])
    lost = [key for key in missing if "pooler" not in key]
    if lost:
        raise InputError(
            f"encoder {name}: the checkpoint lacks {len(lost)} weights, {lost[0]} among them; "
            "they would be random, and so would the embeddings"
        )
    model = _tower(model, modality)
    return model.eval().requires_grad_(False), missing


def _tower(model: Any, modality: str) -> nn.Module:
    """The encoder itself, where a checkpoint holds more: one tower of CLIP, T5 without decoder."""
    tower = getattr(model, "vision_model" if modality == "image" else "text_model", None)
    if isinstance(tower, nn.Module):
        return tower
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model


def _require_folder(name: str) -> None:
    looks_local = name.startswith((".", "/", "~")) or Path(name).is_dir()
    if looks_local and not (Path(name) / "config.json").is_file():
        raise InputError(
            f"encoder {name}: no config.json there; give a folder that save_pretrained wrote, "
            "or a name of the hub"
        )


def _load_processor(name: str, modality: str) -> Any:
    """The tokenizer or image processor; always the Pillow one, so that machines agree."""
    from transformers import AutoImageProcessor, AutoTokenizer

    try:
        processor: Any = (
            AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            if modality == "text"
            else AutoImageProcessor.from_pretrained(name, trust_remote_code=False, backend="pil")
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        kind = "tokenizer" if modality == "text" else "image processor"
        raise InputError(f"encoder {name}: it has no {kind} ({reason})") from error
    if modality == "text" and processor.pad_token is None:
        processor.pad_token = processor.eos_token
    return processor


def _weights_digest(model: nn.Module, missing: list[str]) -> str:
    """SHA-256 over names and float32 values of all weights that the checkpoint gave."""
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in missing:
            whole.update(name.encode())
            whole.update(tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


def _describe_processor(processor: Any, modality: str) -> dict[str, Any]:
    if modality == "text":
        backend = getattr(processor, "backend_tokenizer", None)
        table = backend.to_str() if backend is not None else json.dumps(processor.get_vocab())
        return {
            "class": type(processor).__name__,
            "tokenizer": hashlib.sha256(table.encode()).hexdigest(),
        }
    kept = {
        key: value
        for key, value in json.loads(processor.to_json_string()).items()
        if not key.startswith("_") and key not in ("processor_class",)
    }
    return {"class": type(processor).__name__, **kept}
