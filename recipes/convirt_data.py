"""What end-to-end ConVIRT reads: every picture decoded once, every caption tokenised, their pairs.

n pictures, m captions, H x W pixels of a picture as the image encoder takes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..cache.errors import InputError
from ..cache.files import require_room
from ..cache.items import Items
from ..precompute.contents import build_items
from ..precompute.dataset import SourceColumn, Split, limited
from ..precompute.datasets.registry import read_dataset
from ..precompute.datasets.source import SourceDataset
from ..precompute.demo import DEMO, read_demo
from ..precompute.images import ImageSource
from ..precompute.tower import Tower
from ..train.bank import MEMORY_SHARE, Bank, free_memory_bytes
from ..train.pairs import VALIDATION_ITEMS, PairTable, hold_out, join

TRAIN, VAL, TEST = "train", "val", "test"
READ_AT_ONCE, READS_TOLD = 500, 5000
"""Pictures that are read side by side, and between two reports."""
Report = Callable[[str], None]


@dataclass(frozen=True)
class Couples:
    """Pictures and captions, and which belong together."""

    pictures: np.ndarray
    """(n, 3, H, W) uint8; in a file where they do not fit the memory."""
    captions: list[list[int]]
    """m lists of token ids, special ones included."""
    table: PairTable
    """Positions in `pictures` (left) and in `captions` (right)."""

    def only(self, table: PairTable) -> Couples:
        """What a part of the table names and nothing else, captions in order of their length."""
        left, right = np.unique(table.left), np.unique(table.right)
        length = np.array([len(self.captions[position]) for position in right])
        place = np.empty(len(self.captions), np.int64)
        right = right[np.argsort(length, kind="stable")]
        place[right] = np.arange(len(right))
        table = replace(table, left=np.searchsorted(left, table.left), right=place[table.right])
        return Couples(self.pictures[left], [self.captions[at] for at in right], table)

    def images(self, positions: np.ndarray) -> Tensor:
        """Some pictures, (B, 3, H, W) uint8."""
        return torch.from_numpy(self.pictures[positions])

    def texts(self, positions: np.ndarray, pad: int) -> tuple[Tensor, Tensor]:
        """Some captions padded to the longest: token ids and mask, each (B, L) int64."""
        rows = [torch.tensor(self.captions[position]) for position in positions]
        mask = [torch.ones_like(row) for row in rows]
        batch = torch.nn.utils.rnn.pad_sequence
        return batch(rows, True, pad), batch(mask, True, 0)


@dataclass(frozen=True)
class ConvirtData:
    """What is trained on and what is validated on."""

    dataset: str
    """Its name in a cache."""
    train: Couples
    val: Couples
    held_out: bool
    """Whether `val` is a part of the training split."""
    unreadable: int
    """Pictures that could not be decoded."""


def read_splits(
    dataset: str, root: Path | None, limit: int | None
) -> tuple[str, dict[str, tuple[Items, Split]]]:
    """Name and splits of an image-text data set: `train`, and `val` if there is a `test` besides.

    Args:
        dataset: Name of the data set, as `cbmf precompute` takes it.
        root: Where it lies; None for the usual places.
        limit: Only so many images of each split; the name says so then.

    Raises:
        InputError: If it cannot be read, or has no pairs of images and texts to train on.
    """
    source = read_demo(root)[0] if dataset == DEMO else read_dataset(dataset, root)
    _require_pairs(source)
    name = f"{source.name}-limit{limit}" if limit else source.name
    there = {split.name: split for split in source.splits}
    wanted = (TRAIN, VAL) if {VAL, TEST} <= there.keys() else (TRAIN,)
    chosen = {key: limited(there[key], limit) if limit else there[key] for key in wanted}
    return name, {key: build_items(name, split, None) for key, split in chosen.items()}


def _require_pairs(source: SourceDataset) -> None:
    train = next((split for split in source.splits if split.name == TRAIN), None)
    pairs = train.pairs if train is not None else None
    if pairs is None or (pairs.left, pairs.right) != ("image", "text"):
        raise InputError(
            f"{source.name} has no training pairs of images and texts; train on such a data set, "
            "as coco, flickr8k, pairs or demo"
        )


def load_couples(
    name: str,
    splits: dict[str, tuple[Items, Split]],
    image: Tower,
    text: Tower,
    scratch: Path,
    seed: int,
    report: Report,
) -> ConvirtData:
    """Decode every picture and tokenise every caption, once for all epochs.

    Args:
        name: Of the data set.
        splits: As `read_splits` gave them.
        image: Says how pictures are resized.
        text: Says how captions are tokenised.
        scratch: Folder for pictures that do not fit the memory.
        seed: Of the hold-out, where there is no split to validate on.
        report: Hears how many are read.

    Raises:
        InputError: If too few pairs are left.
        DiskFullError: If pictures fit neither the memory nor the disk.
    """
    couples: dict[str, Couples] = {}
    unreadable = 0
    for key, (items, split) in splits.items():
        pictures, rows = _decoded(split.columns["image"], key, image, scratch, report)
        captions = _tokenised(cast("Sequence[str]", split.columns["text"].values), text)
        unreadable += len(split.columns["image"].ids) - len(rows)
        # Only positions are asked of these banks; there are no vectors yet.
        left = Bank(rows, torch.empty(len(rows), 0), None)
        right = Bank(np.arange(len(captions)), torch.empty(len(captions), 0), None)
        couples[key] = Couples(pictures, captions, join(items, left, right))
    train, held_out = couples[TRAIN], VAL not in couples
    if held_out:
        rest, held = hold_out(train.table, seed)
        train, val = replace(train, table=rest), train.only(held)
    else:
        first = np.arange(min(VALIDATION_ITEMS, len(couples[VAL].table.left)))
        val = couples[VAL].only(couples[VAL].table.take(first))
    if min(len(train.table.left), len(val.table.left)) < 2:
        raise InputError(f"{name}: two images to train on and two to validate on are the least")
    return ConvirtData(name, train, val, held_out, unreadable)


def _decoded(
    column: SourceColumn, split: str, image: Tower, scratch: Path, report: Report
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 3, H, W) uint8, and the row in the column of each, (n,) int64 ascending."""
    sources = cast("Sequence[ImageSource]", column.values)

    def read(source: ImageSource) -> np.ndarray | None:
        try:
            return image.picture(source)
        except InputError:
            return None

    pictures, rows = np.empty((0, 3, 0, 0), np.uint8), list[int]()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as readers:
        for first in range(0, len(sources), READ_AT_ONCE):
            block = readers.map(read, sources[first : first + READ_AT_ONCE])
            for row, picture in enumerate(block, first):
                if picture is None:
                    continue
                if not rows:
                    shape = (len(sources), *picture.shape)
                    pictures = _room(shape, scratch / f"pictures-{split}.npy")
                pictures[len(rows)] = picture
                rows.append(row)
            done = min(first + READ_AT_ONCE, len(sources))
            if done % READS_TOLD < READ_AT_ONCE or done == len(sources):
                report(f"{split}: {done:,} of {len(sources):,} pictures read")
    return pictures[: len(rows)], np.array(rows, np.int64)


def _room(shape: tuple[int, ...], path: Path) -> np.ndarray:
    """Room for uint8 numbers: in memory if a good part of it stays free, else in a file."""
    size_bytes, free = int(np.prod(shape)), free_memory_bytes()
    if free is None or size_bytes < MEMORY_SHARE / 2 * free:
        return np.empty(shape, np.uint8)
    require_room(path.parent, size_bytes)
    return np.lib.format.open_memmap(path, "w+", np.uint8, shape)


def _tokenised(texts: Sequence[str], text: Tower) -> list[list[int]]:
    """Token ids of every text, in blocks: a tokeniser's own lists take much room."""
    blocks = (texts[first : first + 10_000] for first in range(0, len(texts), 10_000))
    return [ids for block in blocks for ids in text.encoder.tokenize(block)]
