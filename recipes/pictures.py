"""Pictures of cached items, found again where the data set lies, as small images for a page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from PIL import Image

from ..cache.errors import InputError
from ..cache.items import Column, Items
from ..precompute.datasets.paths import PathFinder
from ..precompute.datasets.registry import DATASETS, existing_home, read_dataset
from ..precompute.images import ImageSource

SIDE, WIDE_SIDE, QUALITY = 144, 288, 72
"""Pixels of a small picture's longer side, of one on a page of few, and the JPEG quality: about 5
and 15 KB."""
TRIED = 20
"""Items of a column that are looked for before a folder is given up."""


class Pictures:
    """The pictures of one column, as far as they are to be had."""

    def __init__(
        self, column: Column, sources: Mapping[str, ImageSource], root: Path | None
    ) -> None:
        """Pictures of `column` by the id of each; `root` is where they were looked for."""
        self._column, self._sources, self._root = column, sources, root
        self.side = SIDE

    @property
    def missing(self) -> str:
        """Why there are none, and what to do; empty if there are some."""
        if self._sources:
            return ""
        if self._root is None:
            return "Without pictures: name the folder of the data set with --root to see them."
        return f"Without pictures: {self._root} has not the images that were encoded; see --root."

    def thumbnail(self, row: int) -> str | None:
        """A small picture as a data URI; None if it is not the one that was encoded, or gone."""
        source = self._sources.get(self._column.ids[row])
        try:
            if source is None or source.digest() != self._column.digests[row].tobytes():
                return None
            return small_picture(source.open(), self.side)
        except (InputError, OSError):
            return None


def small_picture(picture: Image.Image, side: int) -> str:
    """A picture as a data URI, its longer side `side` pixels at most."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def find_pictures(items: Items, column: str, root: Path | None) -> Pictures:
    """The pictures of a column of images; none of them is opened yet.

    They are looked for by their names below the root or a folder in it, then as the data set's
    reader finds them (in archives, say). What is not the content that was encoded is not shown.

    Args:
        items: Of the split.
        column: Its name.
        root: Where the data set lies, or a folder above; None: where stage 1 looks for it.
    """
    of_images = items.column(column)
    name = re.sub(r"-limit\d+$", "", items.dataset)
    home = root or existing_home(name)
    if home is None:
        return Pictures(of_images, {}, None)
    for folder in _folders(home):
        found = _below(folder, of_images)
        if found:
            return Pictures(of_images, found, home)
    return Pictures(of_images, _read(name, items.split, column, home), home)


def _folders(home: Path) -> Iterator[Path]:
    """Where the names of files may begin."""
    base = home if home.is_dir() else home.parent
    yield base
    try:
        yield from sorted(path for path in base.iterdir() if path.is_dir())
    except OSError:
        return


def _below(folder: Path, column: Column) -> dict[str, ImageSource]:
    """The images of a column that lie in a folder under their names; none leads out of it."""
    finder = PathFinder(folder)
    found: dict[str, ImageSource] = {}
    for number, (item_id, name) in enumerate(zip(column.ids, column.values, strict=True)):
        source = finder.find(finder.normal(name))
        if not isinstance(source, str):
            found[item_id] = source
        elif number >= TRIED and not found:
            return {}
    return found


def _read(name: str, split: str, column: str, home: Path) -> dict[str, ImageSource]:
    """The images of a split as the data set's reader finds them; none if it cannot."""
    if name not in DATASETS:
        return {}
    try:
        (read,) = read_dataset(name, home, [split]).splits
    except InputError:
        return {}
    if column not in read.columns or read.columns[column].modality != "image":
        return {}
    found = cast("Sequence[ImageSource]", read.columns[column].values)
    return dict(zip(read.columns[column].ids, found, strict=True))
