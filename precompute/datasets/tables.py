"""A user's own table, CSV, TSV or JSON lines, and which of its columns is what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...cache.errors import InputError
from ..dataset import LeftOut
from .text_files import place, read_csv, read_fields, read_lines

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")
IMAGE_NAMES = (
    "image image_path imagepath img img_path image_file image_filename image_name filename "
    "file_name filepath file_path file path"
).split()
CAPTION_NAMES = "caption captions text sentence description alt_text alt title comment".split()
TEXT_PAIR_NAMES = (
    ("question1", "question2"),
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("caption1", "caption2"),
    ("premise", "hypothesis"),
    ("anchor", "positive"),
    ("query", "document"),
    ("source", "target"),
    ("left", "right"),
)
LABEL_NAMES = "label is_duplicate duplicate is_paraphrase paraphrase quality".split()
SCORE_NAMES = "score similarity similarity_score relatedness_score".split()
ID_NAMES = "id caption_id".split()


@dataclass(frozen=True)
class Roles:
    """Names of the columns, as the file writes them; empty where there is none."""

    left: str
    """Path of the image, or the first text."""
    right: str
    """Caption, or the second text."""
    of_images: bool
    label: str
    score: str
    item_id: str
    image_id: str
    split: str


@dataclass(frozen=True)
class TableOptions:
    """How a user's own table is to be read, where its names do not say it."""

    image: str | None = None
    """Column of the image paths; None: found by its name."""
    caption: str | None = None
    """Column of the captions, likewise."""
    seed: int = 0
    """Of the splits, where the table has no column of them."""


def find_roles(path: Path, names: Sequence[str], options: TableOptions) -> Roles:
    """Which column is what, by its name.

    Raises:
        InputError: If there is neither an image with a caption nor a pair of texts, or no column
            of a name that is given.
    """
    written = {_plain(name): name for name in reversed(names)}
    for given, usual in ((options.image, IMAGE_NAMES[0]), (options.caption, CAPTION_NAMES[0])):
        if given is None:
            continue
        if given not in names:
            raise InputError(
                f"{path}: no column {given!r}; it has {', '.join(map(repr, names))[:200]}"
            )
        written = {key: name for key, name in written.items() if name != given} | {usual: given}

    def first(wanted: Sequence[str]) -> str:
        return next((written[name] for name in wanted if name in written), "")

    left, right = first(IMAGE_NAMES), first(CAPTION_NAMES)
    of_images = bool(left and right)
    if not of_images:
        pairs = [pair for pair in TEXT_PAIR_NAMES if pair[0] in written and pair[1] in written]
        if not pairs:
            raise InputError(
                f"{path}: columns {', '.join(map(repr, names))[:200]} hold neither an image with "
                f"a caption nor two texts; rename them to image and caption, or text1 and text2"
            )
        left, right = (written[name] for name in pairs[0])
    return Roles(
        left=left,
        right=right,
        of_images=of_images,
        label="" if of_images else first(LABEL_NAMES),
        score="" if of_images else first(SCORE_NAMES),
        item_id=first(ID_NAMES) if of_images else "",
        image_id=first(["image_id"]) if of_images else "",
        split=first(["split"]),
    )


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def read_table(
    path: Path, left_out: list[LeftOut]
) -> tuple[list[str], Iterator[tuple[int, Mapping[str, Any]]]]:
    """The names of the columns, and number and content of each row; by the ending of the name.

    Raises:
        InputError: If the ending is unknown, or there is no row.
    """
    ending = path.suffix.lower()
    if ending in (".jsonl", ".ndjson"):
        names = dict.fromkeys(key for _, row in _json_rows(path, []) for key in row)
        if not names:
            raise InputError(f"{path}: no line is a JSON object with columns; write one a line")
        return sorted(names), _json_rows(path, left_out)
    if ending not in ENDINGS:
        raise InputError(f"{path}: ends with {ending!r}; expected {', '.join(ENDINGS)}")
    rows = read_csv(path, left_out) if ending == ".csv" else read_fields(path, left_out)
    _, header = next(rows, (0, None))
    if header is None:
        raise InputError(f"{path}: is empty; expected a header and rows below it")
    return header, _field_rows(path, header, rows, left_out)


def _field_rows(
    path: Path,
    header: Sequence[str],
    rows: Iterator[tuple[int, list[str]]],
    left_out: list[LeftOut],
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, fields in rows:
        if len(fields) == len(header):
            yield number, dict(zip(header, fields, strict=True))
        else:
            reason = f"{len(fields)} columns, the header has {len(header)}"
            left_out.append(LeftOut("text", place(path, number), reason))


def _json_rows(path: Path, left_out: list[LeftOut]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in read_lines(path, left_out):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield number, row
        else:
            left_out.append(LeftOut("text", place(path, number), "not a JSON object"))
