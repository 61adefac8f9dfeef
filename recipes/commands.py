"""The commands that run whole jobs: demo, convirt, reproduce."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console
from ..command import CacheOption, cache_root

if TYPE_CHECKING:
    from .convirt import ConvirtRequest, ConvirtResult


def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("cbmf-demo"),
    seed: Annotated[int, typer.Option(help="Of the fit.")] = 0,
) -> None:
    """Run all three stages on generated data, with encoders that ship with the package.

    Under two minutes on two cores; no download.
    """
    from .demo import REPORT_NAME, run_demo

    with console.Ticker() as ticker:
        encoding, fitting = console.PrecomputeReporter(ticker), console.FitReporter(ticker)
        found = run_demo(out, seed, encoding, fitting)
    console.evaluation(found)
    console.out().print(f"report: {out / REPORT_NAME}", markup=False, soft_wrap=True)


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
    from .convirt import ConvirtRequest, train_convirt

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
    _convirt_summary(request, result)


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
            help="short: three seeds in about 85 minutes of two cores, for small encoders and "
            "Flickr8k. full: every fit to the preset's end, for a GPU."
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
    jobs: Annotated[
        int, typer.Option(help="Processes that fit and score at once: on a CPU, one a core.")
    ] = 1,
    share: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Regenerate the paper's tables and figures as far as the data at hand allow.

    Interrupted, it goes on where it stopped; what it cannot do it names, with the reason.
    """
    from dataclasses import replace

    from ..train.config import parse_settings
    from .reproduce import reproduce as run
    from .reproduce_runs import Options

    options = Options(
        part=part,
        root=root or Path(os.environ.get("CBMF_DATA") or "data"),
        out=out,
        cache_root=cache_root(cache),
        preset=preset,
        seeds=seeds,
        effort=effort,
        settings=parse_settings(setting or ()),
        limit=limit,
        precision=precision,
        jobs=jobs,
        share=share,
    )
    named: dict[str, Any] = {"text": tuple(text or ()), "image": image, "miner": miner}
    options = replace(options, **{name: value for name, value in named.items() if value})
    with console.Ticker() as ticker:
        encoding, fitting = console.PrecomputeReporter(ticker), console.FitReporter(ticker)
        folder = run(options, encoding, fitting, ticker.line)
    if share is None:
        _reproduction(folder)


def _convirt_summary(request: ConvirtRequest, result: ConvirtResult) -> None:
    """The last lines of a training: what came out, and what to do with it."""
    from ..train.history import read_summary

    screen = console.out()
    summary = read_summary(result.run)
    kept = summary["best"]
    screen.print(
        f"{summary['epochs']} epochs in {console.duration(summary['seconds'])} "
        f"({console.duration(summary['cpu_seconds'])} of processor); "
        f"kept epoch {kept['epoch']:.0f}, mean recall in validation {kept['val_recall']:.1%}"
    )
    where = f" --root {request.root}" if request.root else ""
    where += f" --limit {request.limit}" if request.limit else ""
    for label, command in (
        (
            "next:",
            f"cbmf precompute {request.dataset}{where} --text {result.text_encoder} "
            f"--image {result.image_encoder}",
        ),
        ("then:", f"cbmf evaluate all --run {result.run}"),
    ):
        screen.print(f"{label} {command}", markup=False, soft_wrap=True, style="dim")


def _reproduction(folder: Path) -> None:
    """The tables of a reproduction, and where they lie."""
    from rich.markdown import Markdown

    from .reproduce import TABLES_NAME

    screen = console.out()
    text = (folder / TABLES_NAME).read_text(encoding="utf-8")
    screen.print(Markdown(text) if screen.is_terminal else text, soft_wrap=True)
    screen.print(f"results: {folder}/{TABLES_NAME}, tables.json, figures", soft_wrap=True)
