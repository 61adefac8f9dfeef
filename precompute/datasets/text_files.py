"""Text files as people have them: byte order marks, stray bytes, tables with and without quotes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...cache.errors import InputError
from ..dataset import LeftOut

JSON_LIMIT = 4 * 1024**3
"""Bytes of a JSON file; a larger one is refused, for it is read whole."""
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: If it is over 4 GiB, cannot be read or is no JSON.
    """
    try:
        size = path.stat().st_size
        if size > JSON_LIMIT:
            raise InputError(f"{path}: {size} bytes; a JSON file over {JSON_LIMIT} is refused")
        with path.open("r", encoding="utf-8-sig") as file:
            return json.load(file)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable JSON ({error}); get the file again") from error


def read_lines(path: Path, left_out: list[LeftOut]) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each line, with its line end; what is no UTF-8 is left out.

    Raises:
        InputError: If the file cannot be read, or is UTF-16.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    if line.startswith(_UTF16_MARKS):
                        raise InputError(f"{path}: is UTF-16; save it as UTF-8")
                    line = line.removeprefix(b"\xef\xbb\xbf")
                try:
                    yield number, line.decode("utf-8")
                except UnicodeDecodeError:
                    left_out.append(LeftOut("text", place(path, number), "not UTF-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def place(path: Path, number: int) -> str:
    """How a line is named where it has no id."""
    return f"{path.name}:{number}"


def read_fields(path: Path, left_out: list[LeftOut]) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each line of a tab-separated file that knows no quotes."""
    for number, line in read_lines(path, left_out):
        text = line.rstrip("\r\n")
        if text.strip():
            yield number, text.split("\t")


def read_csv(path: Path, left_out: list[LeftOut]) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each record of a comma-separated file with quotes.

    Raises:
        InputError: If quotes do not match: the rest of the file would be swallowed in silence.
    """
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in read_lines(path, left_out):  # noqa: B007
            yield line

    try:
        for fields in csv.reader(lines(), strict=True):
            if any(field.strip() for field in fields):
                yield number, fields
    except csv.Error as error:
        raise InputError(
            f"{path}: line {number}: {error}; a field that holds a comma or a quote stands in "
            f"quotes, and a quote inside it is written twice"
        ) from error


def read_columns(
    path: Path, wanted: Sequence[str], left_out: list[LeftOut]
) -> Iterator[tuple[int, list[str]]]:
    """Line number and the wanted columns of each line of a tab-separated file with a header.

    Args:
        path: The file.
        wanted: Names in the header, lower case.
        left_out: Receives the lines that have another number of columns than the header.

    Raises:
        InputError: If the header lacks a column.
    """
    rows = read_fields(path, left_out)
    _, header = next(rows, (0, [""]))
    names = [name.strip().lower() for name in header]
    if missing := [name for name in wanted if name not in names]:
        raise InputError(
            f"{path}: no column {', '.join(map(repr, missing))} in the header; it has "
            f"{', '.join(map(repr, names))[:200]}"
        )
    places = [names.index(name) for name in wanted]
    for number, fields in rows:
        if len(fields) != len(names):
            reason = f"{len(fields)} columns, expected {len(names)}"
            left_out.append(LeftOut("text", place(path, number), reason))
        else:
            yield number, [fields[i] for i in places]
