import hashlib
from pathlib import Path

import numpy as np
import pytest

from cbmf.cache.items import Column, Items, Pairs, write_items
from cbmf.cache.manifest import StreamSpec
from cbmf.cache.writer import StreamWriter


def column(modality: str, ids: list[str]) -> Column:
    digests = [list(hashlib.sha256(i.encode()).digest()) for i in ids]
    return Column(modality, ids, [f"value of {i}" for i in ids], np.array(digests, np.uint8))


class Toy:
    """A small cache of random embeddings: 700 images, each with one caption."""

    count = 700

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parent = root / "toy" / "train"
        ids = [f"item {k}, ünïcode" for k in range(self.count)]
        rows = np.stack([np.arange(self.count)] * 2, axis=1)
        columns = {"image": column("image", ids), "text": column("text", ids)}
        self.items = Items("toy", "train", columns, Pairs("image", "text", rows))
        rng = np.random.default_rng(0)
        self.pooled = rng.normal(size=(self.count, 16)).astype(np.float32)
        lengths = rng.integers(1, 5, self.count)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.values = rng.normal(size=(self.offsets[-1], 8)).astype(np.float32)

    def write_items(self) -> None:
        write_items(self.parent, self.items)

    def spec(self, name: str = "image", **changes: object) -> StreamSpec:
        table = {
            "dataset": "toy",
            "split": "train",
            "column": name,
            "modality": name,
            "encoder": "enc",
            "made_of": {"class": "Toy", "weights": name * 16, "max_length": 64},
            "items_digest": self.items.columns[name].digest(),
            "count": self.count,
            "width": 8,
            "pooled_width": 16,
            "layout": "tokens",
        }
        return StreamSpec(**{**table, **changes})  # type: ignore[arg-type]

    def writer(self, spec: StreamSpec) -> StreamWriter:
        return StreamWriter(self.parent, spec, 256)

    def write_shard(self, writer: StreamWriter, number: int) -> None:
        first, last = writer.manifest.range(number)
        tokens = {}
        if writer.spec.layout == "tokens":
            start, end = self.offsets[first], self.offsets[last]
            tokens = {
                "values": self.values[start:end],
                "offsets": self.offsets[first : last + 1] - start,
            }
        writer.write(number, np.arange(first, last), self.pooled[first:last], **tokens)

    def fill(self, spec: StreamSpec) -> Path:
        writer = self.writer(spec)
        for number in writer.missing():
            self.write_shard(writer, number)
        return writer.folder


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    toy = Toy(tmp_path / "embeddings")
    toy.write_items()
    return toy
