"""The command line: the three stages, the cache, and the recipes. Thin over the rooms.

Nothing heavy is imported at the top, so that `--help` comes at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__, console
from .cache_commands import cache_app
from .command import (
    DEBUG_VARIABLE,
    EXIT_FAILURE,
    CacheOption,
    Command,
    ConfigOption,
    ImageColumn,
    SplitSeed,
    TextColumn,
    cache_root,
    size_bytes,
    table_options,
)
from .recipes.commands import convirt, demo, reproduce
from .recipes.compare_command import compare
from .recipes.doctor_command import doctor
from .recipes.own_command import run_own
from .recipes.report_command import report
from .recipes.search_command import search

app = typer.Typer(
    name="cbmf",
    help="Align frozen pretrained encoders: encode once, fit in seconds, evaluate from the cache.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="To see all of it on generated data, in under two minutes: cbmf demo",
)
app.add_typer(cache_app, name="cache")


MINING_PANEL = "Pairs of captions that mean the same, mined (coco-text, flickr8k-text)"


def _tell_version(asked: bool) -> None:
    """Print the version, whatever else is asked."""
    if asked:
        typer.echo(f"cbmf {__version__}")
        raise typer.Exit


@app.callback()
def face(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of expected failures too.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


@app.command(cls=Command, rich_help_panel="The three stages")
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


@app.command(cls=Command, rich_help_panel="The three stages")
def fit(
    cache: CacheOption = "",
    dataset: Annotated[
        str | None, typer.Option(help="Data set in the cache. Default: the only one.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="best, paper (its text), or released (its author's code).")
    ] = "best",
    method: Annotated[
        str,
        typer.Option(
            help="cbmf; or a peer: linear (two matrices), convirt (two MLPs), fusemix, csa, asif."
        ),
    ] = "cbmf",
    fusion: Annotated[
        str | None,
        typer.Option(help="add, mul, concat, dot, additive, general, or none (no context)."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="pooled or tokens. Default: tokens if the cache has them and best is fitted."
        ),
    ] = None,
    left: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Encoder of the images (or first texts), if there are several. Repeated: all of "
            "them share the model.",
        ),
    ] = None,
    right: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Encoder of the texts, likewise.")
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Add an encoder to this run, which stays as it is, in a new run."
        ),
    ] = None,
    add: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --extend: the encoder.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images, or pairs, a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything random.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any other option of the fit (docs/method.md)."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. Default: runs/DATASET-PRESET-FUSION-LAYOUT-SEED."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What embeddings may take in memory, such as 2GiB; larger ones are read from disk "
            "while they are trained on. Default: most of what is free.",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: what there is.")] = None,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Log every epoch to it too: tensorboard, wandb, mlflow and what else accelerate "
            "knows. May be repeated.",
        ),
    ] = None,
    config_file: ConfigOption = None,
) -> None:
    """Stage 2: fit the fusion model on cached embeddings.

    Interrupted, it goes on where it stopped. Linear heads are fitted beside, for comparison.
    On several GPUs: accelerate launch --multi_gpu --num_processes N -m cbmf fit ...
    """
    from dataclasses import asdict
    from functools import partial

    from .cache.catalog import Cache
    from .train.config import parse_settings
    from .train.config import preset as configure
    from .train.distributed import meet, part
    from .train.extension import config_of_extension, extend_run
    from .train.fit import fit as fit_anew
    from .train.run import Run
    from .train.source import choose_layout
    from .train.trackers import Tracked

    if (extend is None) != (add is None):
        raise typer.BadParameter("--extend RUN and --add NAME go together", param_hint="--extend")
    team = meet(device)
    with team.as_one():
        store = Cache(cache_root(cache))
        given = {
            "method": method if method != "cbmf" else None,
            "fusion": fusion,
            "layout": layout,
            "left": ",".join(left or ()) or None,
            "right": ",".join(right or ()) or None,
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "seed": seed,
        }
        asked = {name: value for name, value in given.items() if value is not None}
        asked |= parse_settings(setting or ())
        if extend is None or add is None:
            asked.setdefault("layout", choose_layout(store, preset, method, dataset))
            config, fit_it = configure(preset, **asked), fit_anew
        else:
            base = Run.load(extend)
            asked |= {} if preset == "best" else {"preset": preset}
            config, fit_it = config_of_extension(base, asked), partial(extend_run, base, add)
        allowed = None if memory is None else size_bytes(memory)
    with console.Ticker() as ticker:
        report = Tracked(console.FitReporter(ticker), tracker or (), out, asdict(config))
        result = fit_it(
            store,
            config,
            out=out,
            dataset=dataset,
            device=device,
            memory_bytes=allowed,
            report=report,
        )
    report.finish()
    if team.main:
        console.fit_summary(result)
    part()


@app.command(cls=Command, rich_help_panel="The three stages")
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


app.command("run", cls=Command, rich_help_panel="To begin with")(run_own)
app.command(cls=Command, rich_help_panel="To begin with")(demo)
app.command(cls=Command, rich_help_panel="To begin with")(doctor)
app.command(cls=Command, rich_help_panel="To judge by")(compare)
app.command(cls=Command, rich_help_panel="To judge by")(report)
app.command(cls=Command, rich_help_panel="To judge by")(search)
app.command(cls=Command, rich_help_panel="The paper")(convirt)
app.command(cls=Command, rich_help_panel="The paper")(reproduce)


def main() -> None:
    """Entry point of the `cbmf` command."""
    app()
