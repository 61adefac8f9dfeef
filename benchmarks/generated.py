"""Streams of random vectors, written by the cache's own writer: any size, no encoder.

N items, D width. An image and its captions share a hidden cause, so that a fit finds something.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbmf.cache.catalog import Cache
from cbmf.cache.items import Column, Items, Pairs, write_items
from cbmf.cache.manifest import StreamSpec
from cbmf.cache.stream import Stream
from cbmf.cache.writer import StreamWriter, plan_shard_rows

HIDDEN = 32
"""Width of the hidden cause."""


@dataclass(frozen=True)
class Size:
    """How much is generated."""

    images: int
    captions: float = 5.0
    """Captions an image, on average."""
    width: int = 768
    """D of both sides."""
    image_tokens: int = 0
    """Tokens an image; 0 for the pooled layout, on both sides."""
    text_tokens: int = 13
    """Tokens a caption, about: from half to one and a half of it."""


def write_cache(
    root: Path, size: Size, splits: dict[str, float], dataset: str = "generated"
) -> Cache:
    """A cache with a data set of image-text pairs.

    Args:
        root: Where it goes.
        size: Of a whole split.
        splits: Share of `size` that each split has, by name.
        dataset: Its name.
    """
    for split, share in splits.items():
        images = max(2, round(size.images * share))
        texts = max(images, round(images * size.captions))
        owner = np.sort(np.arange(texts) % images)
        columns = {"image": column("image", images), "text": column("text", texts)}
        pairs = Pairs("image", "text", np.stack([owner, np.arange(texts)], axis=1))
        items = Items(dataset, split, columns, pairs)
        write_items(root / dataset / split, items)
        cause = np.random.default_rng([1, images]).standard_normal((images, HIDDEN), np.float32)
        fixed = size.image_tokens
        lengths = np.full(images, fixed) if fixed else None
        write_stream(root, items, "image", size.width, cause, lengths)
        if fixed:
            low, high = max(1, size.text_tokens // 2), size.text_tokens * 3 // 2
            lengths = np.random.default_rng(2).integers(low, high + 1, texts)
        write_stream(root, items, "text", size.width, cause[owner], lengths)
    return Cache(root)


def column(modality: str, count: int) -> Column:
    """A column of items that exist as names alone."""
    ids = [f"{modality}{i:08d}" for i in range(count)]
    digests = np.zeros((count, 32), np.uint8)
    digests[:, :8] = np.arange(count, dtype=np.int64).view(np.uint8).reshape(count, 8)
    return Column(modality, ids, ids, digests)


def spec_of(items: Items, name: str, width: int, layout: str, **made_of: str) -> StreamSpec:
    """What a generated stream over a column says of itself."""
    of = items.columns[name]
    return StreamSpec(
        dataset=items.dataset,
        split=items.split,
        column=name,
        modality=of.modality,
        encoder=f"generated-{name}",
        made_of={"class": "generated", "column": name, "width": width, **made_of},
        items_digest=of.digest(),
        count=len(of.ids),
        width=width,
        pooled_width=width,
        layout=layout,
    )


def write_stream(
    root: Path, items: Items, name: str, width: int, cause: np.ndarray, lengths: np.ndarray | None
) -> Stream:
    """A stream over a column: the cause (N, HIDDEN) seen through a fixed map, with noise.

    A shard is generated at a time. `lengths` (N,) are the tokens of each item; None: pooled.
    """
    layout = "pooled" if lengths is None else "tokens"
    spec = spec_of(items, name, width, layout)
    mean_length = 0.0 if lengths is None else float(lengths.mean())
    rows = plan_shard_rows(spec.row_bytes(mean_length))
    writer = StreamWriter(root / items.dataset / items.split, spec, rows)
    sees = np.random.default_rng([3, width, len(name)]).standard_normal((HIDDEN, width), np.float32)
    for shard in writer.missing():
        random = np.random.default_rng([4, shard])
        which = np.arange(*writer.manifest.range(shard))
        vectors = cause[which] @ sees / np.float32(HIDDEN**0.5)  # (rows, D)
        pooled = vectors + random.standard_normal(vectors.shape, np.float32)
        if lengths is None:
            writer.write(shard, which, pooled)
            continue
        counts = lengths[which]
        tokens = np.repeat(vectors, counts, axis=0)
        tokens += random.standard_normal(tokens.shape, np.float32)
        writer.write(shard, which, pooled, tokens, np.concatenate([[0], np.cumsum(counts)]))
    return Stream(writer.folder)
