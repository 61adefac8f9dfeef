"""`cbmf evaluate`: the third stage, with what can be asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .command import CacheOption, ConfigOption, cache_root


def evaluate(
    names: Annotated[
        list[str],
        typer.Argument(
            help="retrieval, zero-shot, linear, fine-tune, paraphrase, similarity, or all."
        ),
    ],
    run: Annotated[
        Path | None, typer.Option(help="Run folder. Default: the newest in ./runs.")
    ] = None,
    cache: CacheOption = "",
    dataset: Annotated[str | None, typer.Option(help="Only this data set of the cache.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this split. Default: test, else val.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Measure anew what is there over unchanged inputs.")
    ] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="The model only, without the floors beside it.")
    ] = False,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Of a run of more than two encoders only these. May be repeated. Default: every "
            "couple of them.",
        ),
    ] = None,
    fine_tune_epochs: Annotated[
        int, typer.Option(help="Passes of fine-tune over its training images.")
    ] = 100,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: cpu.")] = None,
    config_file: ConfigOption = None,
) -> None:
    """Stage 3: score a run on every benchmark that the cache holds. No encoder is loaded.

    What is there already over the same weights and embeddings is not measured again.
    """
    from .cache.catalog import Cache
    from .evaluate.sides import choose_encoders
    from .evaluate.suite import evaluate as score
    from .train.run import Run, newest_run

    folder = run or newest_run()
    opened = Run.load(folder, device or "cpu")
    opened.alone, opened.measured = alone, choose_encoders(opened, encoder or ())
    with console.Ticker() as ticker:
        store = Cache(cache_root(cache))
        found = score(
            store,
            opened,
            names,
            dataset=dataset,
            split=split,
            again=again,
            fine_tune_epochs=fine_tune_epochs,
            report=ticker.line,
        )
    console.evaluation(found)
