"""The training step against other loops on the same vectors, and against the machine's products."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from cbmf.cache.catalog import Cache

from .encoding import ready_batches, run_bare
from .equal_recall import equal_recall_row
from .fit_waits import start_rows, waiting_rows
from .ours import Ours, dominant_product, flops_of, product, product_times, synchronise
from .rivals import (
    FuseMix,
    Hdf5Pairs,
    ReleasedModel,
    RepeatedPairs,
    fusemix_optimizer,
    indexed_batches,
    info_nce,
    loader_batches,
    plain_step,
    released_epoch,
    released_optimizer,
)
from .settings import Settings
from .timing import Row, Subject, compared, interleaved, rates

SQUARE = {"cpu": 2048, "cuda": 8192}
"""Side of the large product that stands for the machine's best."""
OPERATIONS = {"cpu": 4e10, "cuda": 2e13}
"""Of the products in a run: some tenths of a second."""
LOADED_ITEMS = 8192
"""Images that the loader of (a) reads in a run, at most."""


def measure(settings: Settings) -> Iterator[Row]:
    """All rows on fits."""
    cache, dataset = settings.embeddings()
    pooled = Ours.begin(cache, dataset, "pooled")
    yield from _against_loader(settings, pooled)
    released = Ours.begin(cache, dataset, "pooled", "released")
    yield from _against_released(settings, released, "pooled")
    yield equal_recall_row(settings, pooled)
    yield from _against_fusemix(settings, pooled)
    yield from _against_encoding(settings, pooled)
    yield from product_rows(settings, pooled, "float32")
    if _has_tokens(cache, dataset):
        tokens = Ours.begin(cache, dataset, "tokens")
        for precision in ("float32", "bfloat16"):
            yield from product_rows(settings, tokens.again(precision=precision), precision)
        released = Ours.begin(cache, dataset, "tokens", "released")
        yield from _against_released(settings, released, "tokens")
    yield from waiting_rows(settings, cache, dataset)
    yield from start_rows(settings)


def _has_tokens(cache: Cache, dataset: str) -> bool:
    streams = [s for s in cache.streams(dataset, "train") if s.complete and s.layout == "tokens"]
    return len({stream.column for stream in streams}) == 2


def _steps(settings: Settings, ours: Ours) -> int:
    """Batches of a run: a second or so."""
    if settings.small:
        return 1
    return 3 if (ours.config.model.layout, ours.step.device.type) == ("tokens", "cpu") else 64


def _against_loader(settings: Settings, ours: Ours) -> list[Row]:
    """(a): the same model and batch, fed by torch's DataLoader from the HDF5 an item at a time."""
    work, pairs = ours.some(_steps(settings, ours))
    data, size = ours.data, ours.config.batch_size
    count = min(len(data.table.left), 64 if settings.small else LOADED_ITEMS)
    dataset = Subset(Hdf5Pairs(*ours.source.train, data.table), range(count))
    model = ours.again().step.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=ours.config.lr)
    device = ours.step.device

    def epoch(workers: int) -> None:
        model.train()
        for left, right in DataLoader(dataset, size, shuffle=True, num_workers=workers):
            one = torch.ones(len(left), 1, dtype=torch.bool, device=device)
            rows = model.encode(0, left[:, None].to(device), one)
            partners = model.encode(1, right[:, None].to(device), one)
            plain_step(info_nce(rows, partners, model.temperature.scale()), optimizer)
        synchronise()

    subjects = [
        Subject("cbmf", work, pairs),
        Subject("DataLoader on HDF5, num_workers 0", lambda: epoch(0), count),
        Subject("DataLoader on HDF5, num_workers 2", lambda: epoch(2), count),
    ]
    seconds = interleaved(subjects, settings.repeats)
    note = f"same model, batches of {size}, pooled"
    return [
        compared("fit, pooled", subjects[0], other, seconds, "pairs/s", asked=">= 10", note=note)
        for other in subjects[1:]
    ]


def _against_released(settings: Settings, ours: Ours, layout: str) -> list[Row]:
    """(b2): the author's loop on ready tensors; model, batch and recipe are his in both."""
    steps, size = _steps(settings, ours), ours.config.batch_size
    work, pairs = ours.some(steps)
    left, right = ours.pairs(steps * size)
    ready = RepeatedPairs(left, right)
    model = ReleasedModel(left.shape[-1], right.shape[-1]).to(left.device)
    optimizer = released_optimizer(model)

    def loop(batches: Callable[..., object]) -> None:
        released_epoch(model, optimizer, batches(ready, size))  # type: ignore[arg-type]

    subjects = [
        Subject("cbmf", work, pairs),
        Subject("author's loop, DataLoader", lambda: loop(loader_batches), len(ready)),
        Subject("author's loop, a batch at once", lambda: loop(indexed_batches), len(ready)),
    ]
    seconds = interleaved(subjects, settings.repeats)
    note = f"preset released, batches of {size} pairs; {left.shape[1]} and {right.shape[1]} tokens"
    asked = ">= 3 (here or in time to recall)" if layout == "pooled" else ""
    return [
        compared(
            f"fit as released, {layout}", subjects[0], other, seconds, "pairs/s",
            asked=asked, note=note,
        )
        for other in subjects[1:]
    ]  # fmt: skip


def _against_fusemix(settings: Settings, ours: Ours) -> list[Row]:
    """(c): operations a second of the matrix products, each in its own recipe."""
    work, pairs = ours.some(_steps(settings, ours))
    left, right = (x[:, 0] for x in ours.pairs(64 if settings.small else 4096))
    model = FuseMix(left.shape[-1], right.shape[-1]).to(left.device)
    optimizer = fusemix_optimizer(model)

    def fusemix() -> None:
        plain_step(model.loss(left, right), optimizer)
        synchronise()

    counts = [flops_of(work) / 1e9, flops_of(fusemix) / 1e9]
    subjects = [
        Subject("cbmf", work, counts[0]),
        Subject("FuseMix's loop", fusemix, counts[1]),
    ]
    seconds = interleaved(subjects, settings.repeats)
    note = (
        f"{1e3 * counts[0] / pairs:.2f} MFLOP a pair in batches of {ours.config.batch_size}, "
        f"FuseMix {1e3 * counts[1] / len(left):.2f} in one of {len(left)}"
    )
    own, other = subjects
    what = "fit per operation, pooled"
    per_flop = compared(what, own, other, seconds, "GFLOP/s", asked=">= 1", note=note)
    own_rate = [pairs / s for s in seconds[own.name]]
    other_rate = [len(left) / s for s in seconds[other.name]]
    note = "another model, its pairs mixed two to one"
    return [per_flop, Row("fit, pooled", "pairs/s", own_rate, other_rate, other.name, note=note)]


def _against_encoding(settings: Settings, ours: Ours) -> list[Row]:
    """(b1): an epoch over all pairs from the cache, against one that encodes everything anew."""
    every_pair = ours.again(batch_unit="pairs", captions_per_image=1)
    work, pairs = every_pair.some(_steps(settings, ours))
    subjects = [Subject("cbmf", work, pairs)]
    split = settings.source(32 if settings.small else 256)
    for encoder in settings.encoders():
        column = split.columns[encoder.modality]
        batches = ready_batches(encoder, column, 64)
        count = sum(len(next(iter(batch.values()))) for batch in batches)
        run = lambda encoder=encoder, batches=batches: run_bare(encoder, batches)  # noqa: E731
        subjects.append(Subject(encoder.modality, run, count))
    seconds = interleaved(subjects, settings.repeats)
    fit, image, text = (np.array(rates(subject, seconds)) for subject in subjects)
    table = ours.data.table
    images, texts = len(table.left), len(table.right)
    cached = texts / fit
    once, repeated = (n / image + texts / text + cached for n in (images, texts))
    note = (
        f"{images:,} images, {texts:,} captions; {settings.image.rpartition('/')[2]} and "
        f"{settings.text.rpartition('/')[2]}, bare forwards without decoding, same training step"
    )
    return [
        Row(
            "an epoch from the cache, pooled", "s", cached.tolist(), other.tolist(),
            against=name, asked=asked, fewer_is_better=True, note=note,
        )
        for name, other, asked in (
            ("encoding each image once an epoch", once, ">= 100"),
            ("encoding it for each caption, as released", repeated, ">= 100"),
        )
    ]  # fmt: skip


def product_rows(settings: Settings, ours: Ours, precision: str) -> list[Row]:
    """Operations a second of a fit against the machine's products, measured in turn."""
    layout = ours.config.model.layout
    work, pairs = ours.some(_steps(settings, ours))
    shape = dominant_product(ours.step.model, work)
    device = ours.step.device.type
    side = 256 if settings.small else SQUARE[device]
    dtype = getattr(torch, precision)
    wanted = 1e8 if settings.small else OPERATIONS[device]
    subjects = [
        Subject("fit", work, flops_of(work) / 1e9),
        *(
            Subject(
                f"{rows} x {one} by {one} x {two}",
                product((rows, one, two), dtype, wanted),
                product_times((rows, one, two), wanted) * 2 * rows * one * two / 1e9,
            )
            for rows, one, two in (shape, (side, side, side))
        ),
    ]
    seconds = interleaved(subjects, settings.repeats)
    note = f"{pairs / np.median(seconds['fit']):,.0f} pairs/s"
    asked = ">= 0.7" if layout == "tokens" else ""
    return [
        compared(
            f"arithmetic of a fit, {layout}, {precision}", subjects[0], other, seconds, "GFLOP/s",
            asked=asked, note=f"{note}; the products that cost most" if at == 0 else note,
        )
        for at, other in enumerate(subjects[1:])
    ]  # fmt: skip
