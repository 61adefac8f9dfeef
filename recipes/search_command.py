"""The command `cbmf search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console
from ..command import CacheOption, cache_root

if TYPE_CHECKING:
    from .search import Answer


def search(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Look for what is like this picture.")
    ] = None,
    find: Annotated[
        str | None,
        typer.Option(help="image or text. Default: the other one than what is looked for with."),
    ] = None,
    count: Annotated[int, typer.Option("-k", "--count", help="How many to show.")] = 10,
    cache: CacheOption = "",
    dataset: Annotated[
        str | None, typer.Option(help="Data set to search. Default: the run's own.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split. Default: test, else val.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Hub name or folder of the encoder for the query, where it has moved since.",
        ),
    ] = None,
    index: Annotated[
        str,
        typer.Option(help="exact, or faiss: nearly exact, for millions of items (extra: faiss)."),
    ] = "exact",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page of what is found too.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where the data lie, for the page's pictures. Default: as precompute."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of the encoder: auto, cpu, cuda.")] = "auto",
) -> None:
    """Look up the nearest images or texts of a cache, by words or by a picture.

    Only the one encoder that the query needs is loaded.
    """
    from ..cache.catalog import Cache
    from .search import Query, write_gallery
    from .search import search as look_up

    query = Query(
        text=text,
        image=image,
        find=find,
        dataset=dataset,
        split=split,
        count=count,
        encoder=encoder,
        index=index,
        device=device,
    )
    answer = look_up(Cache(cache_root(cache)), run, query)
    _print(answer)
    if html is not None:
        page = write_gallery(answer, html, root)
        console.out().print(f"page: {page}", markup=False, soft_wrap=True)


def _print(answer: Answer) -> None:
    """The table of what was found."""
    from rich.table import Table
    from rich.text import Text

    screen = console.out()
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("", "cosine"):
        grid.add_column(heading, justify="right")
    of_images = answer.items.column(answer.column).modality == "image"
    for heading in ("file", "caption") if of_images else ("id", "text"):
        grid.add_column(heading, overflow="fold")
    for card in answer.cards(None):
        words = (card.text, card.about) if of_images else (card.item_id, card.text)
        grid.add_row(
            str(card.rank), f"{card.cosine:.3f}", *(Text(" ".join(word.split())) for word in words)
        )
    screen.print(grid)
    screen.print(
        f"of {answer.total:,} {answer.column}s of {answer.items.dataset}/{answer.items.split}, "
        f"run {answer.run}",
        markup=False,
        soft_wrap=True,
        style="dim",
    )
