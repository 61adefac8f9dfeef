"""Small real caches and runs. Both encoders see one latent vector, each its own way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cbmf.cache.catalog import Cache
from cbmf.cache.items import Column, Items, Pairs, write_items
from cbmf.cache.manifest import StreamSpec
from cbmf.cache.shard import Failure
from cbmf.cache.stream import Stream
from cbmf.cache.writer import StreamWriter
from cbmf.train.aligner import EncoderSpec
from cbmf.train.config import FitConfig, preset
from cbmf.train.linear import LinearHeads
from cbmf.train.model import CBMF
from cbmf.train.run import Run

WIDTHS = {"image": 12, "text": 10}
TEMPLATES = ["{}", "a photo of a {}.", "a blurry photo of a {}."]


def column(modality: str, ids: Sequence[str], **more: Any) -> Column:
    digests = np.zeros((len(ids), 32), np.uint8)
    digests[:, 0] = [len(item_id) % 251 for item_id in ids]
    return Column(modality, list(ids), list(ids), digests, **more)


@dataclass
class Maker:
    """Writes splits and streams into a cache."""

    root: Path
    shard_rows: int = 256
    items: dict[tuple[str, str], Items] = field(default_factory=dict)

    @property
    def cache(self) -> Cache:
        return Cache(self.root)

    def put(self, items: Items) -> Items:
        write_items(self.root / items.dataset / items.split, items)
        self.items[items.dataset, items.split] = items
        return items

    def captions(self, dataset: str, split: str, images: int, each: int = 5) -> Items:
        image = column("image", [f"{split}{i}" for i in range(images)])
        text = column("text", [f"{split}{i}.{c}" for i in range(images) for c in range(each)])
        rows = np.array([(n // each, n) for n in range(images * each)], np.int64)
        pairs = Pairs("image", "text", rows)
        return self.put(Items(dataset, split, {"image": image, "text": text}, pairs))

    def labelled(
        self, dataset: str, split: str, labels: Sequence[int], classes: Sequence[str]
    ) -> Items:
        image = column(
            "image", [f"{split}{i}" for i in range(len(labels))], labels=np.array(labels, np.int64)
        )
        count = len(TEMPLATES)
        prompt = column(
            "text",
            [f"{name}/{t}" for name in classes for t in range(count)],
            labels=np.repeat(np.arange(len(classes)), count),
            templates=np.tile(np.arange(count), len(classes)),
        )
        columns = {"image": image, "prompt": prompt}
        return self.put(Items(dataset, split, columns, classes=list(classes), templates=TEMPLATES))

    def sentences(
        self,
        dataset: str,
        split: str,
        pairs: Sequence[tuple[int, int]],
        *,
        labels: Sequence[int] | None = None,
        scores: Sequence[float] | None = None,
    ) -> Items:
        """Pairs of sentences of one column, as rows of it."""
        count = max(max(pair) for pair in pairs) + 1
        return self.put(
            Items(
                dataset,
                split,
                {"text": column("text", [f"{split}{i}" for i in range(count)])},
                Pairs(
                    "text",
                    "text",
                    np.array(pairs, np.int64),
                    None if labels is None else np.array(labels, np.int64),
                    None if scores is None else np.array(scores, np.float64),
                ),
            )
        )

    def stream(
        self,
        items: Items,
        name: str,
        vectors: np.ndarray,
        *,
        encoder: str,
        pool: str | None = None,
        lengths: Sequence[int] | np.ndarray | None = None,
        missing: Sequence[int] = (),
        grid: int | None = None,
        dtype: str = "float32",
        finish: bool = True,
    ) -> Stream:
        """A stream over a column: `vectors` (N, d) pooled, or the tokens of all items in a row."""
        owner = items.column(name)
        tokens = lengths is not None
        spec = StreamSpec(
            dataset=items.dataset,
            split=items.split,
            column=name,
            modality=owner.modality,
            encoder=encoder.partition("#")[0],
            made_of=made_of(encoder, pool),
            items_digest=owner.digest(),
            count=len(owner.ids),
            width=vectors.shape[1],
            pooled_width=vectors.shape[1],
            layout="tokens" if tokens else "pooled",
            grid=grid,
            dtype=dtype,
        )
        writer = StreamWriter(self.root / items.dataset / items.split, spec, self.shard_rows)
        ends = np.cumsum(lengths) if lengths is not None else np.arange(1, spec.count + 1)
        parts = np.split(vectors.astype(np.float32), ends[:-1])
        for number in writer.missing()[: None if finish else -1]:
            first, last = writer.manifest.range(number)
            rows = np.array([r for r in range(first, last) if r not in missing], np.int64)
            gone = tuple(
                Failure(r, owner.ids[r], "cut") for r in range(first, last) if r in missing
            )
            kept = [parts[row] for row in rows]
            pooled = np.array([part.mean(0) for part in kept], np.float32)
            offsets = np.concatenate([[0], np.cumsum([len(part) for part in kept])])
            if tokens:
                writer.write(
                    number, rows, pooled, np.concatenate(kept), offsets.astype(np.int64), gone
                )
            else:
                writer.write(number, rows, pooled, failures=gone)
        return Stream(writer.folder)


def made_of(encoder: str, pool: str | None = None) -> dict[str, str]:
    """What a stream by this encoder is made of."""
    return {"weights": encoder} if pool is None else {"weights": encoder, "pool": pool}


def latent_vectors(latent: np.ndarray, modality: str, noise: float, seed: int) -> np.ndarray:
    """(N, d): what the modality's encoder makes of latent vectors (N, 6)."""
    turn = np.random.default_rng(99 + WIDTHS[modality]).normal(size=(6, WIDTHS[modality]))
    blur = np.random.default_rng(seed).normal(size=(len(latent), WIDTHS[modality]))
    return (latent @ turn + noise * blur).astype(np.float32)


def caption_set(maker: Maker, dataset: str, split: str, images: int, seed: int = 0) -> Items:
    """An image-text split with both streams, learnable but not easy."""
    items = maker.captions(dataset, split, images)
    latent = np.random.default_rng([seed, images]).normal(size=(images, 6))
    texts = latent[items.pairs.rows[:, 0]] if items.pairs else latent
    image, text = (latent_vectors(z, m, 0.7, seed) for z, m in ((latent, "image"), (texts, "text")))
    maker.stream(items, "image", image, encoder="eye")
    maker.stream(items, "text", text, encoder="tongue")
    return items


def labelled_set(maker: Maker, dataset: str, split: str, images: int, seed: int = 0) -> Items:
    """A labelled split of 4 classes with both streams."""
    labels = np.random.default_rng(seed).integers(0, 4, images)
    items = maker.labelled(dataset, split, labels.tolist(), ["cat", "dog", "cow", "owl"])
    centre = np.random.default_rng(seed + 7).normal(size=(4, 6))
    prompts = np.repeat(centre, len(TEMPLATES), axis=0)
    image = latent_vectors(centre[labels], "image", 1.0, seed)
    maker.stream(items, "image", image, encoder="eye")
    maker.stream(items, "prompt", latent_vectors(prompts, "text", 0.5, seed), encoder="tongue")
    return items


def identity_of(encoder: str, pool: str | None = None) -> str:
    """What `Stream.identity` of a stream by this encoder is."""
    probe = StreamSpec("d", "s", "c", "text", "e", made_of(encoder, pool), "digest", 1, 1, 1)
    return probe.identity


def spec_of(encoder: str, column_name: str, modality: str, grid: int | None = None) -> EncoderSpec:
    name = encoder.partition("#")[0]
    width = WIDTHS[modality]
    return EncoderSpec(name, column_name, modality, identity_of(encoder), width, grid)


EYE, TONGUE = spec_of("eye", "image", "image"), spec_of("tongue", "text", "text")


def run_of(
    folder: Path,
    encoders: Sequence[EncoderSpec] = (EYE, TONGUE),
    dataset: str = "toy",
    **overrides: Any,
) -> Run:
    """A run as if fitted: random weights, linear heads beside it. Its folder has no config.json."""
    config: FitConfig = preset("best", **{"width": 8, "heads": 2, "ffn_width": 16, **overrides})
    torch.manual_seed(5)
    model = CBMF(encoders, config.model).eval()
    linear = LinearHeads(encoders, preset("linear", width=8, heads=2).model).eval()
    return Run(folder, config, dataset, model, True, {"linear": linear})


def class_set(
    maker: Maker,
    dataset: str,
    split: str,
    *,
    per_class: int,
    noise: float = 0.3,
    seed: int = 0,
    shuffled: bool = False,
    encoder: str = "eye",
    tokens: int | None = None,
    missing: Sequence[int] = (),
) -> Items:
    """Labelled images of 6 classes, the same ones in every split, with the image stream alone.

    `shuffled` parts labels from vectors; `tokens` noisy copies of a vector make a token stream.
    """
    classes = ["cat", "dog", "cow", "owl", "fox", "bee"]
    random = np.random.default_rng(seed)
    true = np.repeat(np.arange(len(classes)), per_class)
    labels = random.permutation(true) if shuffled else true
    items = maker.labelled(dataset, split, labels.tolist(), classes)
    centre = np.random.default_rng(3).normal(size=(len(classes), WIDTHS["image"]))
    each = np.repeat(true, tokens or 1)
    vectors = centre[each] + noise * random.normal(size=(len(each), WIDTHS["image"]))
    lengths = None if tokens is None else np.full(len(true), tokens)
    maker.stream(
        items, "image", vectors, encoder=encoder, lengths=lengths, missing=missing, grid=None
    )
    return items
