"""The generated data set: a stand-in for COCO and for a labelled set, drawn where it is missing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .datasets.registry import DATA_VARIABLE, read_dataset
from .datasets.source import SourceDataset
from .scenes import write_demo

DEMO = "demo"
DEMO_LABELLED = "demo-scenes10"
DEMO_SENTENCES = {"qqp": "demo-paraphrase", "stsb": "demo-similarity"}
"""Name in the cache of the drawn sentence pairs, by the data set whose layout they have."""
DEMO_ENCODERS = {"image": "demo-vit", "text": "demo-bert"}
"""Encoders that ship with the package, by modality."""


def read_demo(root: Path | None = None) -> list[SourceDataset]:
    """The demo's captioned and labelled pictures and its sentence pairs, drawn if need be.

    All are read from disk like any data set: COCO's layout with Karpathy's split, class folders,
    GLUE's QQP, the STS benchmark.

    Args:
        root: Folder of the demo's data; None: `$CBMF_DATA/demo`, else `./data/demo`.
    """
    root = root or Path(os.environ.get(DATA_VARIABLE) or "data") / DEMO
    write_demo(root)
    captioned = read_dataset("coco", root / "coco")
    labelled = read_dataset("imagefolder", root / "scenes10")
    pairs = [
        replace(read_dataset(kind, root / name.removeprefix("demo-")), name=name)
        for kind, name in DEMO_SENTENCES.items()
    ]
    return [replace(captioned, name=DEMO), replace(labelled, name=DEMO_LABELLED), *pairs]
