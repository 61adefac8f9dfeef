"""Flickr8k: a folder of images, five captions each, and the official lists of the splits.

Captions stand in `Flickr8k.token.txt` (the official form), in `captions.txt` (Kaggle's) or in
Karpathy's `dataset_flickr8k.json`. Splits are the official lists; without any, Karpathy's; without
these too, a split by the hash of the image's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...cache.errors import InputError
from ..dataset import LeftOut
from ..images import ImageFile, ImageSource
from .captions import NO_FILE, Caption, caption_split
from .karpathy import read_karpathy
from .listing import file_names, first_file, first_folder
from .seeded import splits_with_rest
from .source import SPLIT_ORDER, MissingError, SourceDataset, chosen_splits
from .text_files import place, read_csv, read_lines

_FOLDERS = ("Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "images")
_TEXT_FOLDERS = ("", "Flickr8k_text/", "text/", "Flickr8k_text/Flickr8k_text/")
LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
"""The official list of each split's images."""
_SHARES = {"train": 0.75, "val": 0.125, "test": 0.125}
_TOKENS = "Flickr8k.token.txt"
_KAGGLE = "captions.txt"
_KARPATHY = "dataset_flickr8k.json"
CAPTIONS = f"captions ({_TOKENS}, {_KAGGLE} or {_KARPATHY})"
"""Files of captions, in words."""


def read_flickr8k(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """Flickr8k; image ids are file names, caption ids `<file name>#<number>`.

    Raises:
        InputError: If images or captions are not there, or a split that is asked for.
    """
    folder = _image_folder(home)
    left_out: list[LeftOut] = []
    found = read_captions(home, left_out)
    if found is None:
        needed = CAPTIONS if folder else f"{_FOLDERS[0]}/ with {CAPTIONS}"
        raise MissingError(needed, home, f"{folder.name}/" if folder else "")
    captions, table, karpathy = found
    if folder is None:
        raise MissingError(f"folder of images ({', '.join(_FOLDERS)})", home, table.name)
    here = file_names(folder)
    split_of, notes = split_images(home, captions, karpathy, here)
    there = [name for name in SPLIT_ORDER if name in split_of.values()]
    gaps = {name: f"no {LISTS[name]}" for name in SPLIT_ORDER if name not in there}
    chosen = chosen_splits(there, asked, home, gaps)
    below = folder.relative_to(home).as_posix()
    images: dict[str, dict[str, ImageSource | str]] = {name: {} for name in chosen}
    for image, name in split_of.items():
        if name in images:
            images[name][image] = ImageFile(home, f"{below}/{image}") if image in here else NO_FILE
    of_split: dict[str, list[Caption]] = defaultdict(list)
    for caption in captions:
        of_split[split_of.get(caption.image_id, "")].append(caption)
    splits = [
        # Lines that could not be read belong to no split; they are counted once, with the first.
        caption_split(n, images[n], of_split[n], left_out if n == chosen[0] else [], str(table))
        for n in chosen
    ]
    return SourceDataset("flickr8k", "image-text", home, splits, notes)


def _image_folder(home: Path) -> Path | None:
    folder = first_folder(home, _FOLDERS)
    return folder and (first_folder(folder, _FOLDERS) or folder)


def read_captions(
    home: Path, left_out: list[LeftOut]
) -> tuple[list[Caption], Path, dict[str, str] | None] | None:
    """All captions, the file they stand in, and Karpathy's split of each image, if any.

    Args:
        home: Where Flickr8k lies.
        left_out: Receives what cannot be read.

    Returns:
        None if there is no file of captions.
    """
    texts = [first_file(home, [f + name for f in _TEXT_FOLDERS]) for name in (_TOKENS, _KAGGLE)]
    splits = first_file(home, [f"{f}{_KARPATHY}" for f in (*_TEXT_FOLDERS, "karpathy/")])
    entries = read_karpathy(splits) if splits else []
    karpathy = {entry.file_name: entry.split for entry in entries} or None
    if texts[0] is not None:
        return _token_captions(texts[0], left_out), texts[0], karpathy
    if texts[1] is not None:
        return _kaggle_captions(texts[1], left_out), texts[1], karpathy
    if splits is not None:
        captions = [
            Caption(f"{entry.file_name}#{number}", entry.file_name, text)
            for entry in entries
            for number, (_, text) in enumerate(entry.captions)
        ]
        return captions, splits, karpathy
    return None


def _token_captions(path: Path, left_out: list[LeftOut]) -> list[Caption]:
    captions: list[Caption] = []
    for number, line in read_lines(path, left_out):
        key, tab, text = line.partition("\t")
        image, sharp, _ = key.strip().rpartition("#")
        if tab and sharp:
            captions.append(Caption(key.strip(), image, text))
        elif line.strip():
            reason = "not '<image>#<number><tab><caption>'"
            left_out.append(LeftOut("text", place(path, number), reason))
    return captions


def _kaggle_captions(path: Path, left_out: list[LeftOut]) -> list[Caption]:
    """Numbered by the order of their texts: this file has no numbers, and lines in any order."""
    rows = read_csv(path, left_out)
    _, header = next(rows, (0, []))
    if [name.strip().lower() for name in header[:2]] != ["image", "caption"]:
        raise InputError(
            f"{path}: expected the header 'image,caption', got {','.join(header)[:200]!r}"
        )
    texts: dict[str, list[str]] = defaultdict(list)
    for _, (image, *parts) in rows:
        texts[image.strip()].append(",".join(parts))
    return [
        Caption(f"{image}#{number}", image, text)
        for image, of_image in texts.items()
        for number, text in enumerate(sorted(of_image))
    ]


def split_images(
    home: Path,
    captions: Iterable[Caption],
    karpathy: Mapping[str, str] | None,
    here: set[str],
) -> tuple[dict[str, str], list[str]]:
    """By image name its split, and what to note about it.

    Args:
        home: Where Flickr8k lies.
        captions: All captions.
        karpathy: Karpathy's split of each image, if his file is there.
        here: Names of the images that are there.
    """
    paths = {n: first_file(home, [f + LISTS[n] for f in _TEXT_FOLDERS]) for n in SPLIT_ORDER}
    if not any(paths.values()):
        if karpathy is not None:
            return dict(karpathy), [f"no official split lists: Karpathy's split ({_KARPATHY})"]
        note = "no official split lists: split 6:1:1 by the hash of the image's name"
        named = {caption.image_id for caption in captions}
        return splits_with_rest(named & here, named - here, _SHARES), [note]
    split_of: dict[str, str] = {}
    for name, path in paths.items():
        for _, line in read_lines(path, []) if path is not None else ():
            image = line.strip()
            if image and split_of.setdefault(image, name) != name:
                raise InputError(
                    f"{path}: {image!r} is listed in {split_of[image]} too; get the lists again"
                )
    notes = [f"split {n} is not read: no {LISTS[n]}" for n, path in paths.items() if path is None]
    return split_of, notes
