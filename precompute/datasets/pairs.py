"""A user's own pairs: a table of image paths and captions, or of two texts.

Paths are relative to the table's folder and stay in it. A column `split` gives the splits; without
it they are cut 80/10/10 by a hash: of the image's id, or of the group of texts joined by pairs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import InputError
from ..dataset import LeftOut
from ..images import ImageSource
from .captions import Caption, caption_split
from .listing import file_names
from .paths import PathFinder
from .seeded import seeded_pair_splits, splits_with_rest
from .sentences import SentencePair, parted, text_id, usable_pairs
from .source import (
    SPLIT_OF,
    MissingError,
    SourceDataset,
    chosen_splits,
    encodable,
    first_reason,
    slug,
    text_fault,
)
from .tables import ENDINGS, Roles, TableOptions, find_roles, read_table
from .text_files import place

_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
_Rows = Iterator[tuple[int, Mapping[str, Any]]]


def read_pairs(
    home: Path, asked: Sequence[str] | None, options: TableOptions | None = None
) -> SourceDataset:
    """The pairs of a table: `home` is the file, or a folder that holds one such file.

    Raises:
        InputError: If the table cannot be read, or a split that is asked for is not in it.
    """
    path = _table(home)
    left_out: list[LeftOut] = []
    names, rows = read_table(path, left_out)
    options = options or TableOptions()
    roles = find_roles(path, names, options)
    read = _image_text if roles.of_images else _text_text
    return read(path, roles, rows, left_out, asked, options.seed)


def _table(home: Path) -> Path:
    if home.is_file():
        return home
    if not home.is_dir():
        raise MissingError("table of pairs (.csv, .tsv or .jsonl)", home)
    found = sorted(name for name in file_names(home) if name.lower().endswith(ENDINGS))
    if len(found) > 1:
        raise InputError(f"{home}: holds {', '.join(found)[:200]}; name one of them as the root")
    if not found:
        raise MissingError("table of pairs (.csv, .tsv or .jsonl)", home)
    return home / found[0]


@dataclass(slots=True)
class _Image:
    """What the lines of a table say about one image."""

    image_id: str
    split: str
    line: int
    """The first line that names it."""


def _image_text(
    path: Path,
    roles: Roles,
    rows: _Rows,
    left_out: list[LeftOut],
    asked: Sequence[str] | None,
    seed: int,
) -> SourceDataset:
    finder = PathFinder(path.parent)
    images: dict[str, _Image] = {}
    captions: dict[str, dict[str, Caption]] = {}
    for number, row in rows:
        fault, image_path, split = _checked(row, roles)
        if fault:
            left_out.append(LeftOut("text", place(path, number), fault))
            continue
        name = finder.normal(image_path)
        image_id = _id(_cell(row, roles.image_id)) or name
        image = images.setdefault(name, _Image(image_id, split, number))
        if (image.image_id, image.split) != (image_id, split):
            raise InputError(
                f"{path}: line {number}: {name!r} is image {image_id!r} in split {split or '-'}, "
                f"but image {image.image_id!r} in {image.split or '-'} on line {image.line}; "
                f"an image has one id and one split"
            )
        for caption in _captions_of(row, roles, image_id, place(path, number)):
            _add(captions.setdefault(image_id, {}), caption, path, number)
    return _image_splits(path, images, captions, left_out, asked, finder, seed)


def _checked(row: Mapping[str, Any], roles: Roles) -> tuple[str, str, str]:
    """What is wrong with a row (empty if nothing), its image path and its split."""
    image = row.get(roles.left)
    if not isinstance(image, str) or not image.strip() or not encodable(image):
        return "no image path", "", ""
    split, fault = _split_of_row(row, roles)
    return fault, image.strip(), split


def _split_of_row(row: Mapping[str, Any], roles: Roles) -> tuple[str, str]:
    """The split a row names (empty without such a column), and what is wrong with it."""
    if not roles.split:
        return "", ""
    value = str(row.get(roles.split) or "").strip()
    split = SPLIT_OF.get(value.lower(), "")
    return split, "" if split else f"split {value[:40]!r} is none of train, val, test"


def _cell(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column; None where the table has no such column (its name is then empty)."""
    return row.get(name) if name else None


def _id(value: object) -> str:
    text = "" if value is None else str(value).strip()
    return text if encodable(text) else ""


def _captions_of(row: Mapping[str, Any], roles: Roles, image_id: str, at: str) -> Iterator[Caption]:
    value, own_id = row.get(roles.right), _id(_cell(row, roles.item_id))
    if not isinstance(value, list):
        yield Caption(own_id or _caption_id(image_id, value, at), image_id, value)
        return
    for number, text in enumerate(value):
        yield Caption(
            f"{own_id}#{number}" if own_id else _caption_id(image_id, text, at), image_id, text
        )


def _caption_id(image_id: str, text: object, at: str) -> str:
    """By the text, so that the order of lines does not matter; by the line where there is none."""
    if not isinstance(text, str) or not text.strip() or not encodable(text):
        return at
    return f"{image_id}#{hashlib.blake2b(text.strip().encode(), digest_size=8).hexdigest()}"


def _add(captions: dict[str, Caption], caption: Caption, path: Path, number: int) -> None:
    """Take a caption; the same one said twice of an image is one."""
    before = captions.setdefault(caption.item_id, caption)
    if before.text != caption.text and str(before.text).strip() != str(caption.text).strip():
        raise InputError(
            f"{path}: line {number}: caption id {caption.item_id!r} stands twice; make it unique"
        )


def _image_splits(
    path: Path,
    images: Mapping[str, _Image],
    captions: Mapping[str, Mapping[str, Caption]],
    left_out: list[LeftOut],
    asked: Sequence[str] | None,
    finder: PathFinder,
    seed: int,
) -> SourceDataset:
    for image_id, times in Counter(image.image_id for image in images.values()).items():
        if times > 1:
            raise InputError(f"{path}: image_id {image_id!r} is given to {times} images, not one")
    found = {image.image_id: finder.find(name) for name, image in images.items()}
    split_of = {image.image_id: image.split for image in images.values()}
    seeded = not any(split_of.values())
    if seeded:
        usable = {i for i, source in found.items() if _usable(source, captions[i].values())}
        split_of = splits_with_rest(usable, split_of.keys() - usable, _SHARES, seed)
    chosen = _chosen(path, split_of.values(), asked, left_out)
    splits = []
    for name in chosen:
        sources = {i: source for i, source in found.items() if split_of[i] == name}
        taken = [caption for image_id in sources for caption in captions[image_id].values()]
        left = left_out if name == chosen[0] else []
        splits.append(caption_split(name, sources, taken, left, str(path)))
    notes = ["no column 'split': cut 80/10/10 by the hash of the image's id"] if seeded else []
    return SourceDataset(slug(path.stem), "image-text", path, splits, notes)


def _usable(source: ImageSource | str, captions: Iterable[Caption]) -> bool:
    described = any(text_fault(caption.text, "caption") is None for caption in captions)
    return described and not isinstance(source, str)


def _chosen(
    path: Path, there: Iterable[str], asked: Sequence[str] | None, left_out: Sequence[LeftOut]
) -> list[str]:
    names = list(dict.fromkeys(there))
    if not names:
        raise InputError(f"{path}: no usable row; {first_reason(left_out)}")
    return chosen_splits(names, asked, path)


def _text_text(
    path: Path,
    roles: Roles,
    rows: _Rows,
    left_out: list[LeftOut],
    asked: Sequence[str] | None,
    seed: int,
) -> SourceDataset:
    split_at: dict[str, str] = {}

    def pairs() -> Iterator[SentencePair]:
        for number, row in rows:
            at = place(path, number)
            split_at[at], fault = _split_of_row(row, roles)
            if fault:
                left_out.append(LeftOut("text", at, fault))
                continue
            label = _cell(row, roles.label)
            unknown = label is None or label == ""
            yield SentencePair(
                place=at,
                left=row.get(roles.left),
                right=row.get(roles.right),
                label=-1 if unknown else label,
                score=_cell(row, roles.score),
            )

    needs = [key for key in ("label", "score") if getattr(roles, key)]
    taken = usable_pairs(pairs(), left_out, needs)
    splits_of = [split_at[pair.place] for pair in taken]
    if not roles.split:
        ids = [(text_id(str(pair.left)), text_id(str(pair.right))) for pair in taken]
        splits_of = seeded_pair_splits(ids, _SHARES, seed)
    chosen = _chosen(path, splits_of, asked, left_out)
    splits = parted(chosen, taken, splits_of, left_out, str(path))
    note = "no column 'split': texts joined by pairs stay together, 80/10/10 by a hash"
    return SourceDataset(
        slug(path.stem), "sentence-pairs", path, splits, [] if roles.split else [note]
    )
