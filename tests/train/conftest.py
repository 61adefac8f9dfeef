"""Small real caches, written by the cache's writer: pairs whose vectors share a hidden cause."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cbmf.cache.catalog import Cache
from cbmf.cache.files import value_digest
from cbmf.cache.items import Column, Items, Pairs, write_items
from cbmf.cache.manifest import StreamSpec
from cbmf.cache.shard import Failure
from cbmf.cache.writer import StreamWriter

HIDDEN = 6


def column(name, modality, count, labels=None):
    ids = [f"{name}{i:04d}" for i in range(count)]
    digests = [np.frombuffer(hashlib.sha256(i.encode()).digest(), np.uint8) for i in ids]
    return Column(modality, ids, ids, np.stack(digests), labels)


def write_stream(
    folder,
    items,
    name,
    vectors,
    *,
    encoder,
    layout="pooled",
    grid=None,
    dtype="float16",
    failed=(),
    shards=None,
    setup="",
    lengths=None,
):
    """A stream over a column; `lengths[i]` noisy copies of vector i are its tokens."""
    of = items.columns[name]
    spec = StreamSpec(
        dataset=items.dataset,
        split=items.split,
        column=name,
        modality=of.modality,
        encoder=encoder,
        made_of={"encoder": encoder, "setup": setup},
        items_digest=of.digest(),
        count=len(of.ids),
        width=vectors.shape[1],
        pooled_width=vectors.shape[1],
        layout=layout,
        grid=grid,
        dtype=dtype,
    )
    writer = StreamWriter(folder, spec, shard_rows=-(-len(of.ids) // 3))
    random = np.random.default_rng(5)
    for number in writer.missing()[:shards]:
        whole = np.arange(*writer.manifest.range(number))
        rows = whole[~np.isin(whole, failed)]
        failures = tuple(Failure(int(r), of.ids[r], "broken") for r in whole if r in failed)
        pooled = vectors[rows]
        if layout == "pooled":
            writer.write(number, rows, pooled, failures=failures)
            continue
        assert lengths is not None
        counts = lengths[rows]
        noise = 0.1 * random.standard_normal((counts.sum(), vectors.shape[1]))
        tokens = np.repeat(pooled, counts, axis=0) + noise
        offsets = np.concatenate([[0], np.cumsum(counts)])
        writer.write(number, rows, pooled, tokens.astype(np.float32), offsets, failures)
    return spec


class SmallCache:
    """Writes data sets of pairs into a cache under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cache = Cache(root)

    def image_text(
        self, dataset="small", split="train", images=60, captions=3, seed=0, labels=None, **stream
    ):
        """Images (12 wide) with 1 to `captions` captions each (10 wide)."""
        random = np.random.default_rng([seed, len(split), ord(split[1])])
        counts = 1 + np.arange(images) % captions
        owner = np.repeat(np.arange(images), counts)
        items = Items(
            dataset,
            split,
            {
                "image": column(f"{split}-i", "image", images),
                "text": column(f"{split}-t", "text", len(owner)),
            },
            Pairs("image", "text", np.stack([owner, np.arange(len(owner))], axis=1), labels),
        )
        folder = self.root / dataset / split
        write_items(folder, items)
        cause = random.standard_normal((images, HIDDEN))
        maps = np.random.default_rng(1)
        sees, says = maps.standard_normal((2, HIDDEN, 12))
        image = cause @ sees + 0.1 * random.standard_normal((images, 12)) + 2
        text = cause[owner] @ says[:, :10] + 0.1 * random.standard_normal((len(owner), 10))
        for name, vectors, encoder in (("image", image, "tiny-vit"), ("text", text, "tiny-bert")):
            ragged = random.integers(1, 6, len(vectors))
            lengths = ragged if name == "text" else np.full(len(vectors), 5)
            common = {k: v for k, v in stream.items() if k not in ("image", "text")}
            options = {"encoder": encoder, "lengths": lengths, **common, **stream.get(name, {})}
            write_stream(folder, items, name, vectors.astype(np.float32), **options)
        return items

    def wide(self, images, width, dataset="small", split="train"):
        """Images with one caption each, random vectors of some width."""
        items = self.image_text(dataset, split, images=images, captions=1)
        random = np.random.default_rng(0)
        for stream in self.cache.streams(dataset, split):
            shutil.rmtree(stream.path)
            vectors = random.standard_normal((images, width), dtype=np.float32)
            folder, encoder = stream.path.parent, f"wide-{stream.column}"
            write_stream(folder, items, stream.column, vectors, encoder=encoder)

    def text_text(self, dataset="sentences", split="train", topics=40, seed=0, labels=None):
        """Three sentences a topic, every ordered pair of them, each read by two encoders."""
        random = np.random.default_rng(seed)
        count = 3 * topics
        rows = [
            (3 * t + a, 3 * t + b)
            for t in range(topics)
            for a in range(3)
            for b in range(3)
            if a != b
        ]
        texts = column(f"{split}-s", "text", count)
        items = Items(
            dataset, split, {"text": texts}, Pairs("text", "text", np.array(rows), labels)
        )
        folder = self.root / dataset / split
        write_items(folder, items)
        cause = np.repeat(random.standard_normal((topics, HIDDEN)), 3, axis=0)
        for encoder, width in (("bert-tiny", 12), ("roberta-tiny", 10)):
            vectors = cause @ random.standard_normal((HIDDEN, width))
            vectors = vectors + 0.1 * random.standard_normal(vectors.shape)
            vectors = vectors.astype(np.float32)
            write_stream(folder, items, "text", vectors, encoder=encoder)
        return items

    def captions(self, dataset="coco-text", split="train", images=40, seed=0, layout="tokens"):
        """Three captions an image, mined pairs; two encoders in `layout`, the miner pooled."""
        random = np.random.default_rng([seed, len(split)])
        groups = np.repeat(np.arange(images), 3)
        rows = [(3 * t + a, 3 * t + b) for t in range(images) for a in range(3) for b in range(a)]
        rows = np.unique(np.sort(rows, axis=1), axis=0)
        texts = replace(column(f"{split}-c", "text", len(groups)), groups=groups)
        miner = value_digest({"encoder": "mini", "setup": ""})
        record = json.dumps({"miner": "mini", "miner_identity": miner})
        items = Items(dataset, split, {"text": texts}, Pairs("text", "text", rows, mined=record))
        folder = self.root / dataset / split
        write_items(folder, items)
        cause = random.standard_normal((images, HIDDEN))[groups]
        lengths = random.integers(2, 6, len(groups))
        for encoder, width, own in (
            ("bert-tiny", 12, layout), ("mini", 8, "pooled"), ("roberta-tiny", 10, layout),
        ):  # fmt: skip
            maps = np.random.default_rng(width).standard_normal((HIDDEN, width))
            vectors = cause @ maps + 0.1 * random.standard_normal((len(groups), width))
            vectors = vectors.astype(np.float32)
            options = {"encoder": encoder, "layout": own, "lengths": lengths}
            write_stream(folder, items, "text", vectors, **options)
        return items

    def encoder(self, name, column="image", width=9, noise=0.1, **stream):
        """One more encoder over a column of every split, which sees what its first one sees."""
        for dataset, split in self.cache.splits():
            items = self.cache.items(dataset, split)
            first = self.cache.streams(dataset, split, column)[0]
            seen = np.zeros((len(items.columns[column].ids), first.pooled_width), np.float32)
            seen[first.rows] = first.pooled()
            random = np.random.default_rng([width, len(split)])
            turn = np.random.default_rng(width).standard_normal((seen.shape[1], width))
            vectors = seen @ turn + noise * random.standard_normal((len(seen), width))
            lengths = random.integers(2, 6, len(seen))
            options = {"layout": first.layout, "grid": first.grid, "lengths": lengths, **stream}
            vectors = vectors.astype(np.float32)
            write_stream(first.path.parent, items, column, vectors, encoder=name, **options)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(tmp_path):
    return SmallCache(tmp_path / "cache")


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the drawing of curves out: it takes longer than a small fit."""
    monkeypatch.setattr("cbmf.train.fit.draw_run", lambda run, floor: (run / "curves.png").touch())
