"""Karpathy's split files, `dataset_coco.json` and `dataset_flickr8k.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import InputError
from .source import SPLIT_OF, encodable
from .text_files import read_json

WHERE = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"


@dataclass(frozen=True, slots=True)
class KarpathyImage:
    """One image with its captions."""

    folder: str
    """`train2014`, `val2014`, or empty."""
    file_name: str
    coco_id: str
    """Id at COCO; empty elsewhere."""
    split: str
    """train (with restval), val or test."""
    captions: list[tuple[str, object]]
    """Id (`sentid`) and text of each."""


def read_karpathy(path: Path) -> list[KarpathyImage]:
    """All images of such a file.

    Raises:
        InputError: If it is not of this form.
    """
    document = read_json(path)
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        raise InputError(f"{path}: not a split file of Karpathy's (no list 'images')")
    return [_image(path, number, entry) for number, entry in enumerate(images)]


def _image(path: Path, number: int, entry: Any) -> KarpathyImage:
    try:
        image = KarpathyImage(
            folder=str(entry.get("filepath", "")),
            file_name=str(entry["filename"]),
            coco_id=str(entry.get("cocoid", "")),
            split=SPLIT_OF[entry["split"]],
            captions=[(str(s["sentid"]), s["raw"]) for s in entry["sentences"]],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: images[{number}] is not as in a split file of Karpathy's "
            f"(filename, split, sentences with sentid and raw): {error}"
        ) from error
    if not (encodable(image.file_name) and encodable(image.coco_id)):
        raise InputError(f"{path}: images[{number}] has a name that is not valid Unicode")
    return image
