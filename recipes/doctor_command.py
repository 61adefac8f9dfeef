"""The command `cbmf doctor`."""

from __future__ import annotations

import typer

from .. import console
from ..command import EXIT_FAILURE, CacheOption, cache_root


def doctor(cache: CacheOption = "") -> None:
    """Show device, versions, disk and the state of the cache, and what to do about each."""
    from rich.table import Table

    from ..cache.catalog import Cache
    from .doctor import examine

    table = Table(box=None, show_header=False, pad_edge=False)
    bad = 0
    for finding in examine(Cache(cache_root(cache))):
        mark = "ok" if finding.good else "!!"
        advice = f"; {finding.advice}" if finding.advice and not finding.good else ""
        table.add_row(mark, finding.what, f"{finding.found}{advice}")
        bad += not finding.good
    screen = console.out()
    screen.print(table)
    screen.print("all well" if not bad else f"{bad} to look at")
    if bad:
        raise typer.Exit(EXIT_FAILURE)
