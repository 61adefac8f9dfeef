"""An encoder that learns: one of stage 1's, trained, and kept as a folder that stage 1 reads.

B batch, L tokens, D width of the pooled vector.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..cache.errors import InputError
from .encoders import EncoderOptions, FrozenEncoder
from .images import ImageSource
from .pooling import pool_image, pool_text, split_image_tokens


class Tower(nn.Module):
    """A pretrained encoder with its pooling, whose weights get gradients, in float32.

    In evaluation mode its rows are those of a `FrozenEncoder` over the same weights.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, modality: str) -> None:
        """Load an encoder as stage 1 does by default.

        Args:
            name: Hub name, local folder, or one of the encoders that ship with the package.
            modality: `text` or `image`.

        Raises:
            InputError: If it cannot be loaded, or not be saved as a folder of its own.
        """
        super().__init__()
        self.encoder = FrozenEncoder(name, modality, EncoderOptions(device="cpu"))
        _require_whole(self.encoder)
        self.model = self.encoder.model.requires_grad_(True)
        if modality == "image":
            scale, shift = _affine(self.encoder)
            self.register_buffer("scale", scale, persistent=False)
            self.register_buffer("shift", shift, persistent=False)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pooled vectors, (B, D) float32.

        Args:
            values: Token ids (B, L) int64, or images (B, 3, H, W) uint8 as `picture` gives them.
            mask: (B, L), 1 for tokens; texts only.
        """
        pool = self.encoder.pool
        if self.encoder.modality == "text":
            assert mask is not None
            output = self.model(input_ids=values, attention_mask=mask, return_dict=True)
            return pool_text(pool, output.last_hidden_state.float(), mask, None)
        pixels = values * self.scale + self.shift
        output = self.model(pixel_values=pixels, return_dict=True)
        hidden = output.last_hidden_state.float()
        cls, patches = split_image_tokens(hidden, self.encoder.patch_count(pixels))
        return pool_image(pool, cls, patches, None).flatten(1)

    def set_plain_attention(self) -> None:
        """Attention as plain matrix products: the same numbers up to rounding, more memory."""
        model: Any = self.model
        model.set_attn_implementation("eager")

    def picture(self, source: ImageSource) -> np.ndarray:
        """A picture resized and cropped for this encoder, (3, H, W) uint8.

        Raises:
            InputError: If it cannot be decoded.
        """
        return _resized(self.encoder, source.open())

    def save(self, folder: Path) -> None:
        """Write weights, configuration and processor in transformers' layout; whole or not at all.

        Weights that the checkpoint lacked, such as a pooler's, were never used and are left out.
        """
        part = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        weights = {
            name: value.detach().cpu().contiguous()
            for name, value in self.model.state_dict().items()
            if self.encoder.has_pooler or "pooler" not in name
        }
        model: Any = self.model
        model.save_pretrained(part, state_dict=weights)
        self.encoder.processor.save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)


def _require_whole(encoder: FrozenEncoder) -> None:
    """Refuse a part of a model (a tower of CLIP, T5's encoder): saved, it is no encoder by itself.

    Raises:
        InputError: If the saved folder would not be read as this encoder.
    """
    from transformers import MODEL_MAPPING

    config = getattr(encoder.model, "config", None)
    known = MODEL_MAPPING.get(type(config), ()) if config is not None else ()
    if type(encoder.model) not in (known if isinstance(known, tuple) else (known,)):
        raise InputError(
            f"encoder {encoder.name}: {type(encoder.model).__name__} is a part of a larger model "
            "and cannot be saved alone; choose an encoder such as BERT, RoBERTa or ViT"
        )


def _resized(encoder: FrozenEncoder, picture: Any) -> np.ndarray:
    raw = encoder.processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")
    return np.asarray(raw["pixel_values"][0])


def _affine(encoder: FrozenEncoder) -> tuple[Tensor, Tensor]:
    """What the processor does to resized bytes: x * scale + shift, each (3, 1, 1).

    Raises:
        InputError: If it does something else.
    """
    processor = encoder.processor
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    one = torch.ones(3)
    normal = processor.do_normalize
    mean = torch.as_tensor(processor.image_mean) * one if normal else 0 * one
    deviation = torch.as_tensor(processor.image_std) * one if normal else one
    scale, shift = (factor / deviation)[:, None, None], (-mean / deviation)[:, None, None]
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(noise, "RGB")
    raw, wanted = _resized(encoder, picture), encoder.preprocess(picture)
    same = raw.dtype == np.uint8 and raw.shape == wanted.shape
    if (
        not same
        or (torch.from_numpy(raw) * scale + shift - torch.from_numpy(wanted)).abs().max() > 1e-4
    ):
        raise InputError(
            f"encoder {encoder.name}: its image processor {type(processor).__name__} does more "
            "than resize, crop and normalise; choose another image encoder to train"
        )
    return scale, shift
