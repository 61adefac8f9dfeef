"""`cbmf fit`: the second stage, with what can be asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .command import CacheOption, ConfigOption, cache_root, size_bytes


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
