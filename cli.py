"""The command line: `cbmf precompute | fit | evaluate | cache | demo`. Thin over the rooms.

Nothing heavy is imported at the top, so that `--help` comes at once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from . import __version__, console
from .cache.errors import CbmfError

EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
DEBUG_VARIABLE = "CBMF_DEBUG"


class Terminated(BaseException):
    """SIGTERM has come."""


class Command(TyperCommand):
    """A command whose expected failures are one line, and whose `--cache` may stand bare."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--cache` the empty value, which stands for the default folder."""
        given: list[str] = []
        for place, word in enumerate(args):
            given.append(word)
            if word == "--cache" and (place + 1 == len(args) or args[place + 1].startswith("-")):
                given.append("")
        return super().parse_args(ctx, given)

    def invoke(self, ctx: Any) -> Any:
        """Run, and turn expected failures into one line and an exit code."""
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except (CbmfError, OSError) as error:
            if os.environ.get(DEBUG_VARIABLE):
                raise
            _complain(str(error) or type(error).__name__)
            raise typer.Exit(EXIT_FAILURE) from None
        except KeyboardInterrupt:
            _complain(
                "interrupted; everything finished is kept, the same command goes on from there"
            )
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Terminated:
            _complain(
                "terminated; everything finished is kept, the same command goes on from there"
            )
            raise typer.Exit(EXIT_TERMINATED) from None


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _complain(text: str) -> None:
    sys.stdout.flush()
    typer.echo(f"cbmf: {' '.join(text.split())}", err=True)


app = typer.Typer(
    name="cbmf",
    help="Align frozen pretrained encoders: encode once, fit in seconds, evaluate from the cache.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="To see all of it on generated data, in under two minutes: cbmf demo",
)
cache_app = typer.Typer(
    help="Look at the embedding cache, prove it, tidy it.", no_args_is_help=True
)
app.add_typer(cache_app, name="cache")

CacheOption = Annotated[
    str,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Folder of the embeddings; bare or absent: $CBMF_CACHE, else ./embeddings.",
        show_default=False,
    ),
]


MINING_PANEL = "Pairs of captions that mean the same, mined (coco-text, flickr8k-text)"


def _root(cache: str) -> Path | None:
    return Path(cache) if cache else None


@app.callback()
def face(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of expected failures too.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    if version:
        typer.echo(f"cbmf {__version__}")
        raise typer.Exit


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
        cache_root=_root(cache),
        options=options,
        dry_run=dry_run,
        download=download,
        karpathy=karpathy,
        mining=MiningOptions(**mining) if mining else None,
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
        str, typer.Option(help="cbmf; linear: two matrices; or convirt: two MLPs.")
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
        str | None,
        typer.Option(help="Encoder of the images (or first texts), if there are several."),
    ] = None,
    right: Annotated[
        str | None, typer.Option(help="Encoder of the texts, if there are several.")
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
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: what there is.")] = None,
) -> None:
    """Stage 2: fit the fusion model on cached embeddings.

    Interrupted, it goes on where it stopped. Linear heads are fitted beside, for comparison.
    """
    from .cache.catalog import Cache
    from .train.config import parse_settings
    from .train.config import preset as configure
    from .train.fit import fit as run
    from .train.source import choose_layout

    store = Cache(_root(cache))
    given = {
        "method": method if method != "cbmf" else None,
        "fusion": fusion,
        "layout": layout or choose_layout(store, preset, method, dataset),
        "left": left,
        "right": right,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    config = configure(preset, **overrides, **parse_settings(setting or ()))
    with console.Ticker() as ticker:
        report = console.FitReporter(ticker)
        result = run(store, config, out=out, dataset=dataset, device=device, report=report)
    console.fit_summary(result)


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
    fine_tune_epochs: Annotated[
        int, typer.Option(help="Passes of fine-tune over its training images.")
    ] = 100,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: cpu.")] = None,
) -> None:
    """Stage 3: score a run on every benchmark that the cache holds. No encoder is loaded.

    What is there already over the same weights and embeddings is not measured again.
    """
    from .cache.catalog import Cache
    from .evaluate.suite import evaluate as score
    from .train.run import Run, newest_run

    folder = run or newest_run()
    opened = Run.load(folder, device or "cpu")
    opened.alone = alone
    with console.Ticker() as ticker:
        store = Cache(_root(cache))
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


@app.command(cls=Command, rich_help_panel="To begin with")
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("cbmf-demo"),
    seed: Annotated[int, typer.Option(help="Of the fit.")] = 0,
) -> None:
    """Run all three stages on generated data, with encoders that ship with the package.

    Under two minutes on two cores; no download.
    """
    from .recipes.demo import run_demo

    with console.Ticker() as ticker:
        encoding, fitting = console.PrecomputeReporter(ticker), console.FitReporter(ticker)
        found = run_demo(out, seed, encoding, fitting)
    console.evaluation(found)


@app.command(cls=Command, rich_help_panel="The paper")
def convirt(
    dataset: Annotated[str, typer.Argument(help="Of images and texts: coco, flickr8k, demo.")],
    out: Annotated[Path, typer.Option(help="Folder of both encoders and of the run.")],
    root: Annotated[
        Path | None, typer.Option(help="Where the data lie. Default: $CBMF_DATA, else ./data.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="NAME", help="Text encoder to begin with.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Image encoder, likewise. Default: the paper's."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the encoders.")] = 5e-5,
    head_lr: Annotated[float, typer.Option(help="Highest learning rate of the heads.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(help="A trial: so many images a split, as data set DATASET-limitN."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where it is faster.")
    ] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: what there is.")] = None,
) -> None:
    """Train ConVIRT, the paper's baseline: both encoders, end to end, from images and captions.

    Interrupted, it goes on where it stopped. (For its heads on frozen encoders: cbmf fit --method
    convirt.)
    """
    from .recipes.convirt import ConvirtRequest, train_convirt

    request = ConvirtRequest(
        dataset=dataset,
        out=out,
        root=root,
        text=text,
        image=image,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        head_lr=head_lr,
        seed=seed,
        limit=limit,
        precision=precision,
        device=device,
    )
    with console.Ticker() as ticker:
        result = train_convirt(request, console.FitReporter(ticker))
    console.convirt_summary(request, result)


@app.command(cls=Command, rich_help_panel="The paper")
def reproduce(
    part: Annotated[str, typer.Argument(help="text-text, text-image, or all.")] = "all",
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that holds the data sets' folders. Default: $CBMF_DATA, ./data."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs and tables go.")] = Path("reproduction"),
    cache: CacheOption = "",
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Text encoder, given twice; the first is aligned with images too. Default: the "
            "paper's, bert-base-uncased and roberta-base.",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="NAME", help="Image encoder. Default: the paper's ViT.")
    ] = None,
    miner: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoder that chooses caption pairs.")
    ] = None,
    preset: Annotated[str, typer.Option(help="best, paper or released.")] = "best",
    seeds: Annotated[int, typer.Option(help="Fits of each kind.")] = 3,
    effort: Annotated[
        str,
        typer.Option(
            help="short: about an hour on two cores for small encoders and Flickr8k. full: every "
            "fit to the preset's end, for a GPU."
        ),
    ] = "short",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any option of the fits."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="A trial: so many images or pairs a split.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the encoders' arithmetic: float32, bfloat16, float16, or auto.")
    ] = "auto",
) -> None:
    """Regenerate the paper's tables and figures as far as the data at hand allow.

    Interrupted, it goes on where it stopped; what it cannot do it names, with the reason.
    """
    from dataclasses import replace

    from .recipes.reproduce import reproduce as run
    from .recipes.reproduce_runs import Options
    from .train.config import parse_settings

    options = Options(
        part=part,
        root=root or Path(os.environ.get("CBMF_DATA") or "data"),
        out=out,
        cache_root=_root(cache),
        preset=preset,
        seeds=seeds,
        effort=effort,
        settings=parse_settings(setting or ()),
        limit=limit,
        precision=precision,
    )
    named: dict[str, Any] = {"text": tuple(text or ()), "image": image, "miner": miner}
    options = replace(options, **{name: value for name, value in named.items() if value})
    with console.Ticker() as ticker:
        encoding, fitting = console.PrecomputeReporter(ticker), console.FitReporter(ticker)
        folder = run(options, encoding, fitting, ticker.line)
    console.reproduction(folder)


@cache_app.command("ls", cls=Command)
def cache_ls(cache: CacheOption = "") -> None:
    """List the streams: items, size, layout, completeness."""
    from .cache.catalog import Cache

    console.list_streams(Cache(_root(cache)))


@cache_app.command("info", cls=Command)
def cache_info(
    stream: Annotated[str, typer.Argument(help="A stream's folder, or a part of its name.")],
    cache: CacheOption = "",
) -> None:
    """Show what a stream was made of."""
    from .cache.catalog import Cache

    console.describe_stream(Cache(_root(cache)), stream)


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

    if console.verify_cache(Cache(_root(cache)), keep):
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

    console.collect_garbage(Cache(_root(cache)), incomplete, dry_run)


def main() -> None:
    """Entry point of the `cbmf` command."""
    app()
