"""The command `cbmf report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import console
from ..command import CacheOption, cache_root


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Run folders. Default: the newest in ./runs."),
    ] = None,
    cache: CacheOption = "",
    root: Annotated[
        Path | None,
        typer.Option(
            help="Where the data lie, for pictures: the data set's folder, or a folder above it. "
            "Default: $CBMF_DATA/DATASET, else ./data/DATASET."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page. Default: RUN/report.html; of several ./report.html."),
    ] = None,
) -> None:
    """Make one self-contained HTML page about one or several runs.

    Figures beside the paper's and the floors, curves, galleries, what makes it again. Nothing is
    encoded or measured anew: cbmf evaluate all measures.
    """
    from ..cache.catalog import Cache
    from ..train.run import newest_run
    from .report import REPORT_NAME, write_report

    folders = runs or [newest_run()]
    page = out or (folders[0] / REPORT_NAME if len(folders) == 1 else Path(REPORT_NAME))
    with console.Ticker() as ticker:
        write_report(folders, Cache(cache_root(cache)), page, root=root, report=ticker.line)
    size = console.gib(page.stat().st_size)
    console.out().print(f"report: {page}, {size}", markup=False, soft_wrap=True)
