"""What a measurement is made on: the options of the command line, and the data that they name.

Without data and encoders named, the demo's drawn scenes and its small encoders stand in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cbmf.cache.catalog import Cache
from cbmf.precompute.dataset import Split, limited
from cbmf.precompute.datasets.registry import read_dataset
from cbmf.precompute.encode import encode_stream
from cbmf.precompute.encoders import EncoderOptions, FrozenEncoder
from cbmf.precompute.pipeline import PrecomputeOptions, Progress, plan, prepare
from cbmf.precompute.scenes import write_demo

DEMO_SETS = {"coco": "coco", "imagefolder": "scenes10", "qqp": "paraphrase", "stsb": "similarity"}
"""The demo's data sets: name of the reader, and folder."""
SMALL_DEMO = {
    "train": 96, "val": 32, "test": 32, "labelled_train": 8, "labelled_test": 4, "sentences": 40,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Options of a measurement."""

    work: Path
    """Where files may be made; empty, and removed afterwards."""
    repeats: int = 5
    """Rounds that count."""
    small: bool = False
    """Little of everything: to see that it runs, not how fast."""
    cache: Path | None = None
    """Embeddings of image-text pairs; None: the demo's, made here."""
    dataset: str | None = None
    """Name in the cache, and of the data set under `root`."""
    root: Path | None = None
    """Where the data lie that are encoded; None: the demo's, drawn here."""
    text: str = "demo-bert"
    image: str = "demo-vit"
    fine_tune_epochs: int = 100

    def folder(self, name: str) -> Path:
        """A new folder to work in."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))

    @property
    def real(self) -> bool:
        """Whether the encoders are others than the demo's."""
        return not (self.text.startswith("demo-") and self.image.startswith("demo-"))

    @cached_property
    def drawn(self) -> Path:
        """Folder of the demo's data."""
        folder = self.folder("demo")
        write_demo(folder, **(SMALL_DEMO if self.small else {}))
        return folder

    def encoders(self, layout: str = "pooled") -> tuple[FrozenEncoder, FrozenEncoder]:
        """The image and the text encoder."""
        tokens = layout == "tokens"
        image = EncoderOptions(layout=layout, grid=(7 if self.real else 4) if tokens else None)
        return (
            FrozenEncoder(self.image, "image", image),
            FrozenEncoder(self.text, "text", EncoderOptions(layout=layout)),
        )

    def source(self, images: int) -> Split:
        """About so many training images to encode, with their captions."""
        name, root = self.dataset, self.root
        if name is None or root is None:
            name, root = "coco", self.drawn / "coco"
        splits = {split.name: split for split in read_dataset(name, root, ("train",)).splits}
        return limited(splits["train"], images)

    def embeddings(self) -> tuple[Cache, str]:
        """The cache to fit on, with tokens where they are, and the data set's name in it."""
        if self.cache is not None:
            from cbmf.train.source import choose_dataset

            cache = Cache(self.cache)
            return cache, choose_dataset(cache, self.dataset)
        return self.demo_embeddings, "demo"

    @cached_property
    def demo_embeddings(self) -> Cache:
        """The demo's data sets, encoded as tokens by its small encoders."""
        cache = Cache(self.folder("embeddings"))
        encoders = Settings(self.work).encoders("tokens")
        for name, folder in DEMO_SETS.items():
            source = read_dataset(name, self.drawn / folder)
            for split in source.splits:
                encode("demo" if name == "coco" else folder, split, encoders, cache)
        return cache


def encode(
    name: str,
    split: Split,
    encoders: Sequence[FrozenEncoder],
    cache: Cache,
    options: PrecomputeOptions | None = None,
) -> None:
    """Precompute a split."""
    options = options or PrecomputeOptions()
    planned = plan(name, split, encoders, cache, options)
    prepare([planned], cache)
    for stream in planned.streams:
        encode_stream(stream, options, quiet)


def quiet(progress: Progress) -> None:
    """Report nothing."""


def cbmf(*words: object, cwd: Path | None = None, code: str = "") -> subprocess.Popen[str]:
    """The command `cbmf` in a process of its own, started; `code` is run before it there."""
    start = f"{code}\nfrom cbmf.cli import main\nmain()"
    return subprocess.Popen(
        [sys.executable, "-c", start, *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What a process printed, once it has ended.

    Raises:
        RuntimeError: If it failed; with its output.
    """
    printed, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(printed.split())[-500:]}")
    return printed
