"""`cbmf compare`: many fusions and methods on one cache, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console
from ..command import CacheOption, ConfigOption, cache_root

if TYPE_CHECKING:
    from .compare import Compared


def compare(
    cache: CacheOption = "",
    dataset: Annotated[
        str | None, typer.Option(help="Data set in the cache. Default: the only one.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="add, mul, concat, dot, additive, general; none (no context), random (context), "
            "shared (projection); linear, convirt, fusemix, csa, asif. May be repeated, or parted "
            "by commas; the others are compared with the first. Default: all.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Fits of each method.")] = 3,
    preset: Annotated[str, typer.Option(help="Of CBMF: best, paper or released.")] = "best",
    layout: Annotated[
        str | None,
        typer.Option(help="That CBMF reads: pooled or tokens. Default: as cbmf fit chooses."),
    ] = None,
    left: Annotated[
        str | None,
        typer.Option(help="Encoder of the images (or first texts), if there are several."),
    ] = None,
    right: Annotated[
        str | None, typer.Option(help="Encoder of the texts, if there are several.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of all that is trained. Default: each recipe's own.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any option of all fits."),
    ] = None,
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Score on this one too, besides retrieval: zero-shot, linear, fine-tune, "
            "paraphrase, similarity. May be repeated, or parted by commas.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs and tables go.")] = Path("compare"),
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: what there is.")] = None,
    config_file: ConfigOption = None,
) -> None:
    """Fit and score many fusions and methods on one cache, in one table with seeds and intervals.

    Interrupted, it goes on where it stopped; what is fitted already is read back.
    """
    from ..cache.catalog import Cache
    from ..train.config import parse_settings
    from .compare import METHODS, Options
    from .compare import compare as run

    options = Options(
        methods=_names(methods) or tuple(METHODS),
        dataset=dataset,
        preset=preset,
        layout=layout,
        left=left,
        right=right,
        epochs=epochs,
        seeds=seeds,
        settings=parse_settings(setting or ()),
        benchmarks=_names(benchmarks),
        out=out,
    )
    with console.Ticker() as ticker:
        fitting = console.FitReporter(ticker)
        found = run(Cache(cache_root(cache)), options, fitting, ticker.line, device)
    _summary(found)


def _names(given: list[str] | None) -> tuple[str, ...]:
    """Names given one by one or parted by commas, each once."""
    words = [word.strip() for text in given or () for word in text.split(",")]
    return tuple(dict.fromkeys(word for word in words if word))


def _summary(found: Compared) -> None:
    """The table, narrowed to what a terminal holds, and where the whole one is."""
    from rich.table import Table
    from rich.text import Text

    from ..evaluate.comparison import MEAN, cells, columns, remarks
    from .compare import JSON_NAME, TABLE_NAME

    screen, comparison = console.out(), found.comparison()
    heads = columns(comparison)
    whole = (MEAN, "difference")
    kept = [n for n, head in enumerate(heads) if "R@5" not in head]
    grid = Table(
        title=Text(comparison.recalls.where, style="bold"),
        title_justify="left",
        caption=Text(remarks(comparison)),
        caption_justify="left",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    grid.add_column("", overflow="fold", min_width=12)
    for place in kept:
        grid.add_column(heads[place], justify="right", overflow="fold")
    for contestant, row in zip(comparison.contestants, cells(comparison), strict=True):
        shown = [
            Text(row[n].text, style="bold" if row[n].best else "")
            + Text(row[n].spread if heads[n] in whole else "")
            for n in kept
        ]
        grid.add_row(contestant.label, *shown)
    screen.print()
    screen.print(grid)
    screen.print()
    for what, why in found.skipped.items():
        line = f"left out: {what}: {why}"
        screen.print(line, markup=False, soft_wrap=True, style="dim")
    folder = found.options.out
    screen.print(f"results: {folder}/{TABLE_NAME}, {JSON_NAME}", markup=False, soft_wrap=True)
