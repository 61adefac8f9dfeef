"""The commands that look after the embedding cache: ls, info, verify, gc."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console
from .command import EXIT_FAILURE, CacheOption, Command, cache_root

cache_app = typer.Typer(
    help="Look at the embedding cache, prove it, tidy it.", no_args_is_help=True
)


@cache_app.command("ls", cls=Command)
def cache_ls(cache: CacheOption = "") -> None:
    """List the streams: items, size, layout, completeness."""
    from .cache.catalog import Cache

    console.list_streams(Cache(cache_root(cache)))


@cache_app.command("info", cls=Command)
def cache_info(
    stream: Annotated[str, typer.Argument(help="A stream's folder, or a part of its name.")],
    cache: CacheOption = "",
) -> None:
    """Show what a stream was made of."""
    from .cache.catalog import Cache

    console.describe_stream(Cache(cache_root(cache)), stream)


@cache_app.command("verify", cls=Command)
def cache_verify(
    cache: CacheOption = "",
    keep: Annotated[
        bool, typer.Option("--keep", help="Only report; leave bad shards where they are.")
    ] = False,
) -> None:
    """Digest every shard anew and name each bad one.

    Bad shards are taken out, so that nothing wrong is used; the same cbmf precompute again writes
    just those.
    """
    from .cache.catalog import Cache

    if console.verify_cache(Cache(cache_root(cache)), keep):
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

    console.collect_garbage(Cache(cache_root(cache)), incomplete, dry_run)
