"""Frozen encoders through transformers' Auto classes. B batch, L tokens, D width.

Weights come from safetensors only and no remote code is run. Encoders are in eval mode; each is
described by everything that changes its numbers (`FrozenEncoder.made_of`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.errors import InputError
from ..cache.files import value_digest
from .checkpoint import describe_processor, load_model, load_processor, weights_digest
from .device import choose_device, choose_precision
from .encoded import Encoded, Inputs, Launched
from .pixels import pixel_maker
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
    """Arithmetic inside the encoder: one of PRECISIONS; `auto`: float16 on a GPU, else float32."""

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


class FrozenEncoder:
    """A pretrained encoder that only ever runs forwards."""

    def __init__(self, name: str, modality: str, options: EncoderOptions) -> None:
        """Load an encoder.

        Args:
            name: Hub name, local folder, or one of the encoders that ship with the package.
            modality: `text` or `image`.
            options: How to run it.

        Raises:
            InputError: If it cannot be found or loaded, lacks weights, or a GPU's memory is full.
        """
        local = name in SHIPPED or not Path(name).is_dir()
        self.source = name if local else str(Path(name).resolve())
        name = str(demo_encoder(name)) if name in SHIPPED else name
        self.name, self.modality, self.options = name, modality, options
        self.short_name = short_name(name, options.layer) or modality
        self.device = choose_device(options.device)
        self.precision = choose_precision(options.precision, self.device)
        self.model, missing = load_model(name, modality)
        self.has_pooler = not any("pooler" in key for key in missing)
        self.processor = load_processor(name, modality)
        self._pixels = pixel_maker(self.processor) if modality == "image" else None
        self.pool = options.pool or self._default_pool()
        self.made_of = self._describe(missing)
        self._fits: int | None = None  # items that fit the memory, where a batch did not
        try:
            self.model.to(self.device)
            self.width, self.pooled_width, self.image_tokens = self._measure()
        except torch.OutOfMemoryError as error:
            raise self._no_room() from error

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
            "weights": weights_digest(self.model, missing),
            "processor": describe_processor(self.processor, self.modality),
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

    @torch.inference_mode()
    def _measure(self) -> tuple[int, int, int]:
        """Widths of tokens and of the pooled vector, and the tokens of an image."""
        if self.modality == "text":
            one = self.encode_texts(self.tokenize(["a photo"]))
        else:
            blank = np.zeros((32, 32, 3), np.uint8)
            pixels = torch.from_numpy(self.preprocess(blank))[None]
            one = self.encode_images(pixels)
            hidden, _ = self._forward(pixel_values=pixels.to(self.device))
            if split_image_tokens(hidden, self.patch_count(pixels))[0] is None:
                self.made_of["first_token"] = "mean"
        pooled_width = one.pooled.shape[1]
        if one.tokens is None:
            return pooled_width, pooled_width, 1
        return one.tokens[0].shape[1], pooled_width, len(one.tokens[0])

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to `max_length`."""
        return self.processor(list(texts), truncation=True, max_length=self.max_length)["input_ids"]

    def preprocess(self, picture: Any) -> np.ndarray:
        """One RGB picture as the model takes it, (3, H, W) float32."""
        if self._pixels is None:
            raise TypeError(f"encoder {self.name} takes texts, not pictures")
        return self._pixels(picture)

    def text_inputs(self, token_ids: Sequence[Sequence[int]]) -> Inputs:
        """A batch of texts as the model takes it, on the CPU.

        Args:
            token_ids: B lists, as `tokenize` gives them; padding and its mask are made here.
        """
        lengths = np.fromiter(map(len, token_ids), np.int64)
        mask = np.arange(lengths.max()) < lengths[:, None]  # (B, L)
        ids = np.full(mask.shape, self.processor.pad_token_id or 0, np.int64)
        ids[mask] = np.fromiter(chain.from_iterable(token_ids), np.int64, int(lengths.sum()))
        return self._pinned(input_ids=ids, attention_mask=mask.astype(np.int64))

    def image_inputs(self, pixels: np.ndarray) -> Inputs:
        """A batch of images as the model takes it, on the CPU.

        Args:
            pixels: (B, 3, H, W) float32, as `preprocess` gives them.
        """
        return self._pinned(pixel_values=pixels)

    def _pinned(self, **arrays: np.ndarray) -> Inputs:
        """As tensors; of a GPU's in memory from which they are copied while it works."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.device.type != "cuda":
            return tensors
        return {name: tensor.pin_memory() for name, tensor in tensors.items()}

    def encode_texts(self, token_ids: Sequence[Sequence[int]]) -> Encoded:
        """Embeddings of a batch of texts: B lists, as `tokenize` gives them."""
        return self.launch(self.text_inputs(token_ids)).collect()

    def encode_images(self, pixels: Tensor) -> Encoded:
        """Embeddings of a batch of images: (B, 3, H, W) float32, as `preprocess` gives them."""
        return self.launch({"pixel_values": pixels}).collect()

    def launch_fitting(self, inputs: Inputs) -> list[Launched]:
        """Begin to encode a batch, in as many parts as a GPU's memory asks for.

        What did not fit once is not tried again.

        Raises:
            InputError: If not even one item fits.
        """
        count = len(next(iter(inputs.values())))
        if self._fits is None or count <= self._fits:
            try:
                return [self.launch(inputs)]
            except torch.OutOfMemoryError as error:
                if count == 1:
                    raise self._no_room() from error
            self._fits = count // 2  # from here on, what failed has been let go
        begun: list[Launched] = []
        for start in range(0, count, step := self._fits):
            part = {name: tensor[start : start + step] for name, tensor in inputs.items()}
            begun += self.launch_fitting(part)
        return begun

    def _no_room(self) -> InputError:
        return InputError(
            f"encoder {self.name}: the memory of {self.device} does not hold it and one item; "
            "free some of it, or choose --device cpu"
        )

    @torch.inference_mode()
    def launch(self, inputs: Inputs) -> Launched:
        """Begin to encode a batch. A GPU works on it while the caller goes on."""
        at_once = self.device.type == "cuda"
        moved = {name: t.to(self.device, non_blocking=at_once) for name, t in inputs.items()}
        hidden, pooler = self._forward(**moved)  # (B, L, D)
        pooler = pooler if self.has_pooler else None
        lengths = None
        if self.modality == "text":
            pooled = pool_text(self.pool, hidden, moved["attention_mask"], pooler)
            tokens, lengths = hidden, inputs["attention_mask"].sum(1).tolist()
        else:
            cls, patches = split_image_tokens(hidden, self.patch_count(inputs["pixel_values"]))
            pooled = pool_image(self.pool, cls, patches, pooler).flatten(1)
            tokens = self._image_tokens(cls, patches)
        whole = tokens if self.options.layout == "tokens" else None
        return Launched(pooled, whole, lengths)

    def _image_tokens(self, cls: Tensor | None, patches: Tensor) -> Tensor:
        """What stands for the whole image, then its patches, (B, L, D).

        Where an encoder has no class token, as convolutional ones, the mean of the patches takes
        its place: all image tokens of a cache are read alike.
        """
        if self.options.layout != "tokens":
            return patches
        first = patches.mean(1) if cls is None else cls
        if self.options.grid is not None:
            patches = pool_grid(patches, self.options.grid)
        return torch.cat([first[:, None], patches], dim=1)

    def patch_count(self, pixels: Tensor) -> int | None:
        """Patches that the encoder cuts an image of (B, 3, H, W) into; None if it does not tell."""
        size = getattr(getattr(self.model, "config", None), "patch_size", None)
        if not isinstance(size, int):
            return None
        return (pixels.shape[-2] // size) * (pixels.shape[-1] // size)

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


def short_name(name: str, layer: int) -> str:
    """The last part of a name; an inner layer is an encoder of its own in a cache, and says so."""
    last = re.sub(r"[^\w.+-]+", "-", name.rstrip("/").split("/")[-1])
    return last if layer == -1 else f"{last}.layer{layer}"
