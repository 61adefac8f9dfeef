"""Fits of COCO's size on generated vectors, for a machine with a GPU; without one, use --small.

    python -m benchmarks.gpu --json gpu.json

Pooled: 83k images, 414k captions, 768 wide, 500 epochs of `best`, timed. Tokens: 50 an image and
about 13 a caption, as a share of the machine's bfloat16 products, with torch's profile.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from cbmf.cache.catalog import Cache
from cbmf.train.config import parse_settings, preset
from cbmf.train.fit import fit

from .fitting import product_rows
from .generated import Size, write_cache
from .ours import Ours
from .settings import Settings
from .timing import HEADING, Row, machine, markdown, write_report

SPLITS = {"train": 1.0, "val": 0.05, "test": 0.01}
POOLED_ASKED, TOKENS_ASKED = "<= 180 s", ">= 0.4, or where the rest goes"


def main(words: Sequence[str] | None = None) -> None:
    """Time both layouts, and print tables and profiles."""
    options = _parser().parse_args(words)
    about = machine()
    print(f"GPU: {about['gpu']}, {about['processor']}, torch {about['torch']}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="cbmf-benchmarks-", dir=options.work) as work:
        settings = Settings(Path(work), repeats=2 if options.small else 5, small=options.small)
        if "pooled" in options.layouts:
            rows += _pooled(settings, options)
        if "tokens" in options.layouts:
            rows += _tokens(settings, options)
    print("\n### gpu\n", HEADING, *map(markdown, rows), sep="\n")
    write_report(options.json, {"gpu": rows})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layouts", nargs="*", default=["pooled", "tokens"])
    parser.add_argument("--epochs", type=int, help="Of the pooled fit. Default: 500.")
    parser.add_argument(
        "--set", dest="changes", nargs="*", default=[], metavar="NAME=VALUE",
        help="Options of the fit, as those of cbmf fit --set.",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, help="Folder for 17 GB of temporary files.")
    parser.add_argument("--json", type=Path, default=Path("benchmarks-gpu.json"))
    parser.add_argument(
        "--small", action="store_true", help="Little of everything, on any machine."
    )
    return parser


def _pooled(settings: Settings, options: argparse.Namespace) -> list[Row]:
    """The whole fit: loading, validation, saving and the drawing of its curves included."""
    size = Size(images=96 if settings.small else 82_783)
    cache = write_cache(settings.folder("pooled"), size, SPLITS)
    changes = {"epochs": options.epochs or (2 if settings.small else 500)}
    changes |= parse_settings(options.changes)
    config = preset("best", layout="pooled", baseline=False, **changes)
    lines: list[dict[str, float]] = []
    out = settings.folder("pooled-run") / "run"
    began = time.perf_counter()
    fit(cache, config, out=out, report=lambda progress: lines.append(progress.values))
    seconds = time.perf_counter() - began
    lines = [line for line in lines if line]
    rate = sorted(line["pairs_per_s"] for line in lines)[len(lines) // 2]
    note = (
        f"{len(lines)} epochs of {size.images:,} images with one of {size.captions:.0f} captions "
        f"each, batches of {config.batch_size}, validation included; {rate:,.0f} pairs/s, "
        f"mean recall {100 * lines[-1]['val_recall']:.1f}%{_memory()}"
    )
    ours = _begin(cache, "pooled", options)
    _print_profile(ours, "pooled", 20)
    return [
        Row("fit of COCO's size, pooled", "s", [seconds], asked=POOLED_ASKED, note=note),
        *product_rows(settings, ours, _precision()),
    ]


def _tokens(settings: Settings, options: argparse.Namespace) -> list[Row]:
    """Steps of a token fit; a tenth of COCO is enough for its rate."""
    size = Size(images=48 if settings.small else 8278, image_tokens=50)
    cache = write_cache(settings.folder("tokens"), size, SPLITS)
    ours = _begin(cache, "tokens", options)
    _print_profile(ours, "tokens", 5)
    rows = product_rows(settings, ours, _precision())
    return [replace(row, asked=TOKENS_ASKED, note=f"{row.note}{_memory()}") for row in rows]


def _begin(cache: Cache, layout: str, options: argparse.Namespace) -> Ours:
    return Ours.begin(cache, "generated", layout, **parse_settings(options.changes))


def _precision() -> str:
    """What a fit computes in unless told otherwise."""
    return "bfloat16" if torch.cuda.is_available() else "float32"


def _memory() -> str:
    if not torch.cuda.is_available():
        return ""
    return f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU at the peak"


def _print_profile(ours: Ours, layout: str, steps: int) -> None:
    """Torch's table of what took longest in some steps."""
    work, _ = ours.some(steps)
    work()  # warm
    gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    table = _profiled(work, activities).key_averages().table(
        sort_by="self_cuda_time_total" if gpu else "self_cpu_time_total", row_limit=20,
        max_name_column_width=60,
    )  # fmt: skip
    print(f"\nprofile of at most {steps} steps, {layout}\n\n{table}", flush=True)


def _profiled(work: Callable[[], None], activities: list[ProfilerActivity]) -> profile:
    with profile(activities=activities) as found:
        work()
    return found


if __name__ == "__main__":
    main()
