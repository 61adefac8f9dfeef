"""From raw texts and images to rows of a run's shared space: its frozen encoders, then its model.

N items, B of a batch, L tokens, D width of the shared space.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from ..cache.errors import InputError
from ..cache.manifest import differences
from ..precompute.encoded import Encoded
from ..precompute.encoders import EncoderOptions, FrozenEncoder
from ..precompute.images import decode
from ..train.aligner import EncoderSpec, read_card
from ..train.run import Run
from .hub import run_folder

Picture = Path | str | Image
"""A file, or an opened picture."""
BATCH = {"image": 16, "text": 64}
"""Items encoded at once."""


def load_pipeline(
    run: Run | Path | str,
    *,
    encoders: Mapping[str, str] | None = None,
    device: str = "auto",
) -> Pipeline:
    """A run with its frozen encoders, for raw texts and images.

    Args:
        run: A run, its folder, or the name of one that was pushed to the hub.
        encoders: Hub name or folder of encoders by their short name, where they have moved since
            the run was fitted.
        device: Where encoders and model work: `auto`, `cpu`, `cuda`.

    Raises:
        RunError: If the run is missing or damaged.
    """
    found = run if isinstance(run, Run) else Run.load(run_folder(run))
    return Pipeline(found, encoders or {}, device)


class Pipeline:
    """A fitted model and the encoders that it was fitted on; each is loaded when first used."""

    def __init__(self, run: Run, encoders: Mapping[str, str], device: str) -> None:
        self.run, self.model = run, run.model
        self._named, self._device = dict(encoders), device
        self._sources: dict[str, Any] = read_card(run.folder).get("sources", {})
        self._loaded: dict[str, FrozenEncoder] = {}

    @property
    def encoders(self) -> dict[str, str]:
        """Modality of each encoder by its name, in the model's order."""
        return {spec.name: spec.modality for spec in self.model.encoders}

    def embed_texts(self, texts: Sequence[str], encoder: str | None = None) -> np.ndarray:
        """Unit rows of texts, (N, D) float32.

        Args:
            texts: N texts.
            encoder: Name of one of the model's text encoders; None: the only one.

        Raises:
            InputError: If a text encoder is missing, or not the one that the run was fitted on.
        """
        frozen = self.encoder(self._choose("text", encoder))
        return self._rows(
            frozen,
            (
                frozen.encode_texts(frozen.tokenize(texts[at : at + BATCH["text"]]))
                for at in range(0, len(texts), BATCH["text"])
            ),
        )

    def embed_images(self, images: Sequence[Picture], encoder: str | None = None) -> np.ndarray:
        """Unit rows of images, (N, D) float32; arguments and errors as of `embed_texts`."""
        frozen = self.encoder(self._choose("image", encoder))

        def encoded() -> Iterator[Encoded]:
            for at in range(0, len(images), BATCH["image"]):
                pixels = [frozen.preprocess(opened(p)) for p in images[at : at + BATCH["image"]]]
                yield frozen.encode_images(torch.from_numpy(np.stack(pixels)))

        return self._rows(frozen, encoded())

    def similarity(self, images: Sequence[Picture], texts: Sequence[str]) -> np.ndarray:
        """Cosine of each image with each text, (N, M) float32."""
        cosines: np.ndarray = self.embed_images(images) @ self.embed_texts(texts).T
        return cosines

    def encoder(self, name: str) -> FrozenEncoder:
        """One of the model's encoders, loaded and proved to be the one of the fit.

        Raises:
            InputError: If it cannot be found, or is another.
        """
        if name not in self._loaded:
            spec = self.model.encoders[self.model.index(name)]
            self._loaded[name] = self._load(spec)
        return self._loaded[name]

    def _load(self, spec: EncoderSpec) -> FrozenEncoder:
        source = dict(self._sources.get(spec.identity, {}))
        where = self._named.get(spec.name) or source.get("name")
        if not where:
            raise InputError(
                f"{self.run.folder}: does not know where its encoder {spec.name} comes from; "
                "name its folder or hub name"
            )
        tokens = self.model.layout == "tokens"
        named = ("pool", "layer", "max_length")
        given = {key: source[key] for key in named if source.get(key) is not None}
        options = replace(
            EncoderOptions(layout=self.model.layout, device=self._device, precision="float32"),
            grid=spec.grid if tokens else None,
            **given,
        )
        encoder = FrozenEncoder(where, spec.modality, options)
        if encoder.identity != spec.identity:
            kept = {"pool": source.get("pool"), "layer": source.get("layer")}
            now = {"pool": encoder.pool, "layer": encoder.options.layer}
            changed = "; ".join(differences(kept, now)) or "its weights, processor or libraries"
            raise InputError(
                f"encoder {where}: not the {spec.name} that {self.run.folder} was fitted on "
                f"(different: {changed})"
            )
        return encoder

    def _choose(self, modality: str, name: str | None) -> str:
        names = [own for own, kind in self.encoders.items() if kind == modality]
        if name is None and len(names) == 1:
            return names[0]
        if name not in names:
            asked = f"no {modality} encoder {name!r}" if name else f"several {modality} encoders"
            have = ", ".join(names) or "none"
            raise InputError(f"{self.run.folder}: {asked if names else 'no'}; it has {have}")
        return name

    @torch.inference_mode()
    def _rows(self, encoder: FrozenEncoder, batches: Iterator[Encoded]) -> np.ndarray:
        name = next(own for own, loaded in self._loaded.items() if loaded is encoder)
        model = self.model.to(encoder.device).eval()
        rows = [np.empty((0, model.width), np.float32)]
        for batch in batches:
            values, mask = _padded(batch, model.layout)
            rows.append(
                model.encode(name, values.to(encoder.device), mask.to(encoder.device)).cpu().numpy()
            )
        return np.concatenate(rows)


def _padded(batch: Encoded, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (B, L, d) float32 and mask (B, L)."""
    if layout == "pooled" or batch.tokens is None:
        values = torch.from_numpy(batch.pooled)[:, None]
        return values, torch.ones(values.shape[:2], dtype=torch.bool)
    lengths = torch.tensor([len(tokens) for tokens in batch.tokens])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    values = torch.zeros(*mask.shape, batch.tokens[0].shape[1])
    values[mask] = torch.from_numpy(np.concatenate(batch.tokens))
    return values, mask


def opened(picture: Picture) -> Image:
    """A picture, RGB.

    Raises:
        InputError: If a file cannot be read, or is no image.
    """
    if not isinstance(picture, str | Path):
        return picture.convert("RGB")
    try:
        return decode(io.BytesIO(Path(picture).read_bytes()))
    except (OSError, InputError) as error:
        raise InputError(f"{picture}: {getattr(error, 'strerror', None) or error}") from error
