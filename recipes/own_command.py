"""The command `cbmf run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import console
from ..command import (
    CacheOption,
    ConfigOption,
    ImageColumn,
    SplitSeed,
    TextColumn,
    cache_root,
    table_options,
)


def run_own(
    table: Annotated[
        Path,
        typer.Argument(help="CSV, TSV or JSONL of image paths and captions, or of two texts."),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Text encoder: hub name or folder. May be repeated."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Image encoder, likewise. Default: the paper's."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where everything goes. Default: cbmf-TABLE.")
    ] = None,
    cache: CacheOption = "",
    layout: Annotated[
        str, typer.Option(help="pooled: a vector an item, quick. tokens: better, larger.")
    ] = "pooled",
    grid: Annotated[
        int | None, typer.Option(help="With tokens: average image patches to GRID x GRID.")
    ] = None,
    preset: Annotated[str, typer.Option(help="best, paper or released.")] = "best",
    epochs: Annotated[int | None, typer.Option(help="Passes at most.")] = None,
    seed: Annotated[int, typer.Option(help="Of the fit.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other option of the fit."),
    ] = None,
    device: Annotated[str, typer.Option(help="Of the encoders: auto, cpu, cuda.")] = "auto",
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    split_seed: SplitSeed = 0,
    config_file: ConfigOption = None,
) -> None:
    """From a table of your own pairs to a judged model: encode, fit, score, report.

    Interrupted, it goes on where it stopped; run again, it does nothing twice.
    """
    from ..precompute.encoders import EncoderOptions
    from ..train.config import parse_settings
    from .own import REPORT_NAME, SPLIT_NAME, OwnRequest, run_table

    own = {"epochs": epochs} if epochs is not None else {}
    request = OwnRequest(
        table=table,
        out=out or Path(f"cbmf-{table.stem}"),
        text=tuple(text or ()),
        image=tuple(image or ()),
        cache_root=cache_root(cache),
        encoder=EncoderOptions(layout=layout, grid=grid, device=device),
        columns=table_options(image_column, text_column, split_seed),
        preset=preset,
        settings={"seed": seed, **own, **parse_settings(setting or ())},
    )
    with console.Ticker() as ticker:
        encoding, fitting = console.PrecomputeReporter(ticker), console.FitReporter(ticker)
        found = run_table(request, encoding, fitting)
    console.evaluation(found)
    for label, name in (("split", SPLIT_NAME), ("report", REPORT_NAME)):
        console.out().print(f"{label}: {request.out / name}", markup=False, soft_wrap=True)
