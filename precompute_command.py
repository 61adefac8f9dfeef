"""`cbmf precompute`: the first stage, with what can be asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .command import (
    EXIT_FAILURE,
    CacheOption,
    ConfigOption,
    ImageColumn,
    SplitSeed,
    TextColumn,
    cache_root,
    table_options,
)

MINING_PANEL = "Pairs of captions that mean the same, mined (coco-text, flickr8k-text)"


def precompute(
    dataset: Annotated[
        str,
        typer.Argument(
            help="coco, flickr8k, coco-text, flickr8k-text, pairs, imagefolder, cifar10, cifar100, "
            "tiny-imagenet, qqp, mrpc, stsb, or demo."
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Where the data lie: the data set's folder, a folder above it, or the table of "
            "pairs. Default: $CBMF_DATA/DATASET, else ./data/DATASET."
        ),
    ] = None,
    cache: CacheOption = "",
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Text encoder: hub name or folder, @layer=3 behind it for another layer. May be "
            "repeated.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Image encoder, likewise. Default: the paper's encoders."
        ),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Only this split (train, val, test). May be repeated.")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="pooled: a vector an item. tokens: the sequence too.")
    ] = "pooled",
    grid: Annotated[
        int | None,
        typer.Option(help="With tokens: average image patches to GRID x GRID (7 is a good one)."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="mean, cls, cls+mean or pooler. Default: mean of a text, cls+mean of an image."
        ),
    ] = None,
    layer: Annotated[int, typer.Option(help="Hidden state to take; -1 is the last.")] = -1,
    max_length: Annotated[int, typer.Option(help="Tokens of a text at most.")] = 128,
    dtype: Annotated[
        str, typer.Option(help="Of the stored numbers: float16, bfloat16, float32.")
    ] = "float16",
    precision: Annotated[
        str, typer.Option(help="Of the arithmetic: float32, bfloat16, float16, or auto.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Items a forward.")] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that decode images.")] = None,
    shard_rows: Annotated[
        int | None, typer.Option(help="Items a shard. Default: about 64 MiB.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(help="A trial: so many images or pairs a split, as data set DATASET-limitN."),
    ] = None,
    max_failures: Annotated[
        float, typer.Option(help="Share of items that may fail before the exit code says so.")
    ] = 0.01,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try items again that failed before.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and estimate only.")] = False,
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Fetch first what is missing, from the official host or $CBMF_MIRROR, into the "
            "folder of --root.",
        ),
    ] = False,
    karpathy: Annotated[
        bool,
        typer.Option("--karpathy", help="With --download of coco or flickr8k: Karpathy's split."),
    ] = False,
    miner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=MINING_PANEL,
            help="Sentence encoder. Default: sentence-transformers/all-MiniLM-L6-v2.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(rich_help_panel=MINING_PANEL, help="Cosine that makes a pair. Default: 0.7."),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MINING_PANEL,
            help="image: captions of one image (the default). all: any two of a split.",
        ),
    ] = None,
    partners: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MINING_PANEL, help="With all: the best of each caption. Default: 5."
        ),
    ] = None,
    identity: Annotated[
        bool | None,
        typer.Option(
            "--identity/--no-identity",
            rich_help_panel=MINING_PANEL,
            help="Each caption with itself too. Default: no.",
        ),
    ] = None,
    image_column: ImageColumn = None,
    text_column: TextColumn = None,
    split_seed: SplitSeed = 0,
    config_file: ConfigOption = None,
) -> None:
    """Stage 1: run frozen encoders over a data set once and keep their embeddings.

    Run again, it encodes only what is missing.
    """
    if karpathy and not download:
        raise typer.BadParameter("goes with --download", param_hint="--karpathy")
    from .precompute.encoders import EncoderOptions
    from .precompute.mining import MiningOptions
    from .precompute.pipeline import PrecomputeOptions
    from .precompute.stage import Request
    from .precompute.stage import precompute as run

    encoder = EncoderOptions(
        pool=pool,
        layer=layer,
        max_length=max_length,
        layout=layout,
        grid=grid,
        device=device,
        precision=precision,
    )
    options = PrecomputeOptions(
        encoder=encoder,
        dtype=dtype,
        batch_size=batch_size,
        shard_rows=shard_rows,
        workers=workers,
        limit=limit,
        max_failures=max_failures,
        retry_failed=retry_failed,
    )
    asked: dict[str, Any] = {
        "miner": miner,
        "threshold": threshold,
        "candidates": candidates,
        "partners": partners,
        "identity": identity,
    }
    mining = {name: value for name, value in asked.items() if value is not None}
    request = Request(
        dataset=dataset,
        root=root,
        splits=tuple(split) if split else None,
        text=tuple(text or ()),
        image=tuple(image or ()),
        cache_root=cache_root(cache),
        options=options,
        dry_run=dry_run,
        download=download,
        karpathy=karpathy,
        mining=MiningOptions(**mining) if mining else None,
        table=table_options(image_column, text_column, split_seed),
    )
    with console.Ticker() as ticker:
        summary = run(request, console.PrecomputeReporter(ticker))
    console.precompute_summary(summary, dry_run)
    if summary.over_limit:
        raise typer.Exit(EXIT_FAILURE)
