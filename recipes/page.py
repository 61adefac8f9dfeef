"""Pages of HTML that stand alone: templates, and what an item looks like on them.

Every text is escaped by the templates; a page may load nothing from elsewhere and run no script,
which its content security policy says too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..cache.files import new_file
from ..cache.items import Items
from .pictures import Pictures

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Card:
    """An item of a data set, as a page shows it."""

    item_id: str
    text: str
    """The text itself; of an image its file name."""
    about: str
    """Of an image a caption, if it has one."""
    picture: str | None = None
    """Of an image a small picture as a data URI, if it is to be had."""
    file: bool = False
    """Whether it is an image, and `text` the name of its file."""
    rank: int | None = None
    cosine: float | None = None
    right: bool | None = None
    """Whether it is a partner of the query; None where that is not known."""


def card_of(items: Items, column: str, row: int, pictures: Pictures | None, **more: Any) -> Card:
    """An item as a card.

    Args:
        items: Of the split.
        column: The item's.
        row: In the column.
        pictures: Of the column; None if it is of texts, or to leave them out.
        more: Other fields of the card.
    """
    owner = items.column(column)
    return Card(
        item_id=owner.ids[row],
        text=owner.values[row],
        about="" if owner.modality == "text" else caption_of(items, column, row),
        picture=None if pictures is None else pictures.thumbnail(row),
        file=owner.modality == "image",
        **more,
    )


def caption_of(items: Items, column: str, row: int) -> str:
    """The first text that is paired with an item, or its class; empty without either."""
    pairs, owner = items.pairs, items.column(column)
    if pairs is not None and pairs.left == column and pairs.right != column:
        partners = pairs.rows[pairs.rows[:, 0] == row, 1]
        return items.column(pairs.right).values[int(np.min(partners))] if len(partners) else ""
    return "" if owner.labels is None else items.classes[int(owner.labels[row])]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Write a page, atomically.

    Args:
        path: The HTML file.
        template: Its name in the folder of templates.
        values: What the template speaks of.

    Raises:
        DiskFullError: If the disk is full.
    """
    text = _environment().get_template(template).render(**values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        # Lone surrogates cannot be encoded; nothing else is replaced
        part.write_text(text, encoding="utf-8", errors="replace")
    return path
