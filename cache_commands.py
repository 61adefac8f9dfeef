"""The commands that look after the embedding cache: ls, info, verify, gc, export, import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .command import EXIT_FAILURE, CacheOption, Command, cache_root
from .console import gib, out

if TYPE_CHECKING:
    from .cache.transfer import Moved
    from .cache.upkeep import Finding

cache_app = typer.Typer(
    help="Look at the embedding cache, prove it, tidy it, move it.", no_args_is_help=True
)


@cache_app.command("ls", cls=Command)
def cache_ls(cache: CacheOption = "") -> None:
    """List the streams: items, size, layout, completeness."""
    from rich.table import Table
    from rich.text import Text

    from .cache.catalog import Cache

    store = Cache(cache_root(cache))
    table = Table("data set", "stream", "items", "layout", "size", "state", box=None)
    for column in ("items", "size"):
        next(c for c in table.columns if c.header == column).justify = "right"
    total = 0
    for dataset, split in store.splits():
        for stream in store.streams(dataset, split):
            manifest = stream.manifest
            state = "complete" if stream.complete else f"{len(manifest.shards)}/{manifest.planned}"
            if manifest.failures:
                state += f", {len(manifest.failures)} failed"
            layout = (
                stream.layout if stream.grid is None else f"tokens 1+{stream.grid}x{stream.grid}"
            )
            items = f"{len(stream):,}"
            name = Text(stream.path.name, overflow="fold")
            table.add_row(f"{dataset}/{split}", name, items, layout, gib(stream.size_bytes), state)
            total += stream.size_bytes
    if table.rows:
        out().print(table)
    _line(f"{len(table.rows)} streams, {gib(total)} in {store.root}")


@cache_app.command("info", cls=Command)
def cache_info(
    stream: Annotated[str, typer.Argument(help="A stream's folder, or a part of its name.")],
    cache: CacheOption = "",
) -> None:
    """Show what a stream was made of."""
    from .cache.catalog import Cache
    from .cache.errors import CacheError

    store = Cache(cache_root(cache))
    found = [
        each
        for dataset, split in store.splits()
        for each in store.streams(dataset, split)
        if stream in f"{each.path}"
    ]
    if not found:
        raise CacheError(f"{store.root}: no stream {stream!r}; cbmf cache ls lists them")
    for each in found:
        manifest = each.manifest
        shards = f"{len(manifest.shards)} of {manifest.planned} shards"
        facts = {
            "path": str(each.path),
            "state": "complete" if each.complete else "incomplete",
            "stored": f"{len(each):,} of {manifest.spec.count:,} items in {shards}",
            "size": gib(each.size_bytes),
            "failures": [vars(failure) for failure in manifest.failures],
            "fingerprint": each.fingerprint,
            "identity": each.identity,
            "width": manifest.spec.width,
            "pooled_width": manifest.spec.pooled_width,
            **manifest.spec.whole,
        }
        out().print_json(data=facts)


@cache_app.command("verify", cls=Command)
def cache_verify(
    cache: CacheOption = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="Only report; leave bad shards where they are.")
    ] = False,
    run: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Prove this run folder too. May be repeated."),
    ] = None,
) -> None:
    """Digest every file anew and name each bad one.

    Bad shards are taken out, so that nothing wrong is used; the same cbmf precompute again writes
    just those.
    """
    from .cache.catalog import Cache
    from .cache.upkeep import take_out, verify

    bad = checked = 0
    for path, findings in verify(Cache(cache_root(cache))):
        checked += 1
        bad += _tell(findings)
        done = None if keep else take_out(path, findings)
        if done:
            _line(f"{path}: {done}")
    if run:
        from .train.upkeep import verify_run

        bad += sum(_tell(verify_run(folder)) for folder in run)
    beside = f" and {len(run)} runs" if run else ""
    _line(f"{checked} items files and streams{beside} checked, {bad} bad")
    if bad:
        raise typer.Exit(EXIT_FAILURE)


@cache_app.command("gc", cls=Command)
def cache_gc(
    cache: CacheOption = "",
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Also streams that lack shards.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what nothing needs: half-written files, streams over items that are gone."""
    from .cache.catalog import Cache
    from .cache.upkeep import garbage, remove

    pieces = garbage(Cache(cache_root(cache)), incomplete=incomplete)
    for piece in pieces:
        verb = "would remove" if dry_run else "remove"
        _line(f"{verb} {piece.path}: {piece.reason}, {gib(piece.size_bytes)}")
    freed = sum(piece.size_bytes for piece in pieces) if dry_run else remove(pieces)
    _line(f"{len(pieces)} removed, {gib(freed)} freed" if not dry_run else gib(freed))


@cache_app.command("export", cls=Command)
def cache_export(
    file: Annotated[Path, typer.Argument(help="The tar file to write.", metavar="FILE.tar")],
    cache: CacheOption = "",
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only this data set. May be repeated.")
    ] = None,
) -> None:
    """Write the complete streams and their items into one file, to be moved elsewhere."""
    from .cache.catalog import Cache
    from .cache.transfer import export_cache

    _moved(export_cache(Cache(cache_root(cache)), file, dataset or ()), f"exported to {file}")


@cache_app.command("import", cls=Command)
def cache_import(
    file: Annotated[Path, typer.Argument(help="What cbmf cache export wrote.", metavar="FILE.tar")],
    cache: CacheOption = "",
) -> None:
    """Put an exported file into the cache, once every byte of it has been checked."""
    from .cache.catalog import Cache
    from .cache.transfer import import_cache

    store = Cache(cache_root(cache))
    _moved(import_cache(file, store), f"imported into {store.root}")


def _moved(moved: Moved, how: str) -> None:
    for name in moved.streams:
        _line(f"  {name}")
    for name in moved.left:
        _line(f"  left: {name}")
    _line(f"{len(moved.streams)} streams, {gib(moved.size_bytes)} {how}")


def _tell(findings: Sequence[Finding]) -> int:
    """Print what is wrong; how much it is."""
    for finding in findings:
        _line(f"bad: {finding.reason}")
    return len(findings)


def _line(text: str) -> None:
    out().print(text, markup=False, soft_wrap=True)
