"""Captions without their images, of which pairs of texts are mined: COCO's and Flickr8k's.

Files of captions and of splits are enough. A split has one column, `text`: all its captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...cache.errors import InputError
from ..dataset import LeftOut, Split
from .captions import Caption, text_split
from .coco import KARPATHY_FILES, caption_files, records
from .flickr8k import CAPTIONS, LISTS, read_captions, split_images
from .karpathy import read_karpathy
from .listing import first_file
from .source import SPLIT_ORDER, MissingError, SourceDataset, chosen_splits, encodable
from .text_files import read_json

KIND = "caption-texts"
_YEARS = ("2017", "2014")


def read_coco_text(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """COCO's captions: Karpathy's splits where his file lies by, else the official ones.

    Raises:
        InputError: If no file of captions is there, or a split that is asked for.
    """
    karpathy = first_file(home, KARPATHY_FILES)
    if karpathy is not None:
        return _karpathy(home, karpathy, asked)
    for year in _YEARS:
        tables = caption_files(home, year)
        if tables:
            chosen = chosen_splits([*tables], asked, home)
            splits = [_official_split(name, tables[name]) for name in chosen]
            return SourceDataset("coco-text", KIND, home, splits, [f"captions of COCO {year}"])
    raise MissingError("annotations/captions_{train,val}{2017,2014}.json", home)


def _official_split(name: str, table: Path) -> Split:
    document = read_json(table)
    entries = records(table, document, "annotations", "id", "image_id", "caption")
    captions = [Caption(item_id, str(image), text) for item_id, image, text in entries]
    images = {caption.image_id for caption in captions if encodable(caption.image_id)}
    return text_split(name, images, captions, [], str(table))


def _karpathy(home: Path, table: Path, asked: Sequence[str] | None) -> SourceDataset:
    entries = [entry for entry in read_karpathy(table) if entry.coco_id]
    if not entries:
        raise InputError(f"{table}: no image has a cocoid; this is not the split file of COCO")
    there = {entry.split for entry in entries}
    splits = []
    for name in chosen_splits([n for n in SPLIT_ORDER if n in there], asked, home):
        of_split = [entry for entry in entries if entry.split == name]
        captions = [Caption(i, e.coco_id, text) for e in of_split for i, text in e.captions]
        images = {entry.coco_id for entry in of_split}
        splits.append(text_split(name, images, captions, [], str(table)))
    note = f"Karpathy's split ({table.name}), train with restval"
    return SourceDataset("coco-text", KIND, home, splits, [note])


def read_flickr8k_text(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """Flickr8k's captions, in its official splits, Karpathy's, or splits by a hash.

    Raises:
        InputError: If no file of captions is there, or a split that is asked for.
    """
    left_out: list[LeftOut] = []
    found = read_captions(home, left_out)
    if found is None:
        raise MissingError(CAPTIONS, home)
    captions, table, karpathy = found
    named = {caption.image_id for caption in captions}
    split_of, notes = split_images(home, captions, karpathy, named)
    there = [name for name in SPLIT_ORDER if name in split_of.values()]
    gaps = {name: f"no {LISTS[name]}" for name in SPLIT_ORDER if name not in there}
    chosen = chosen_splits(there, asked, home, gaps)
    splits = []
    for name in chosen:
        images = {image for image, split in split_of.items() if split == name}
        # Lines that could not be read belong to no split; they are counted once, with the first.
        unread = left_out if name == chosen[0] else []
        splits.append(text_split(name, images, captions, unread, str(table)))
    return SourceDataset("flickr8k-text", KIND, home, splits, notes)
