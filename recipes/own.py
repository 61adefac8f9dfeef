"""A table of one's own pairs, from nothing to a judged model: what `cbmf run` does."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.files import new_file
from ..precompute.datasets.tables import TableOptions
from ..precompute.encoders import EncoderOptions
from ..precompute.pipeline import PrecomputeOptions
from ..precompute.stage import Reporter, Request, precompute

if TYPE_CHECKING:
    from ..evaluate.suite import Evaluation
    from ..train.loop import Report

CACHE_FOLDER, RUN_FOLDER = "embeddings", "run"
SPLIT_NAME, REPORT_NAME = "split.csv", "report.html"


@dataclass(frozen=True)
class OwnRequest:
    """What to make of a table."""

    table: Path
    """CSV, TSV or JSONL of image paths and captions (or of two texts)."""
    out: Path
    """Folder of the embeddings, the run and the report."""
    text: tuple[str, ...] = ()
    """Text encoders; with none and no image encoder, the paper's."""
    image: tuple[str, ...] = ()
    cache_root: Path | None = None
    """None: in `out`."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    columns: TableOptions | None = None
    preset: str = "best"
    settings: dict[str, Any] = field(default_factory=dict)
    """Options of the fit, by name."""


def run_table(request: OwnRequest, encoding: Reporter, fitting: Report) -> Evaluation:
    """Encode, fit, score and report; what is done already is not done again.

    Args:
        request: What to do.
        encoding: Hears how stage 1 goes.
        fitting: Hears how stage 2 goes.

    Returns:
        What stage 3 found.

    Raises:
        InputError: If the table, an encoder or an option cannot be used.
    """
    from ..evaluate.suite import evaluate
    from ..train.config import preset
    from ..train.fit import fit
    from .report import write_report

    if not request.table.exists():
        raise InputError(f"{request.table}: no such file")
    config = preset(request.preset, **{"layout": request.encoder.layout, **request.settings})
    root = request.cache_root or request.out / CACHE_FOLDER
    summary = precompute(
        Request(
            "pairs",
            root=request.table,
            text=request.text,
            image=request.image,
            cache_root=root,
            options=PrecomputeOptions(encoder=request.encoder),
            table=request.columns,
        ),
        encoding,
    )
    cache, dataset = Cache(root), summary.streams[0].dataset
    request.out.mkdir(parents=True, exist_ok=True)
    write_split(cache, dataset, request.out / SPLIT_NAME)
    run = fit(cache, config, out=request.out / RUN_FOLDER, dataset=dataset, report=fitting)
    found = evaluate(cache, run, ["all"], dataset=dataset)
    write_report([run.folder], cache, request.out / REPORT_NAME, root=request.table.parent)
    return found


def write_split(cache: Cache, dataset: str, path: Path) -> None:
    """Write down which item went into which split: columns `column`, `id`, `split`."""
    with new_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["column", "id", "split"])
        for split in sorted(split for name, split in cache.splits() if name == dataset):
            for column, items in sorted(cache.items(dataset, split).columns.items()):
                writer.writerows([column, item_id, split] for item_id in items.ids)
