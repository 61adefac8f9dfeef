"""Precompute against the bare encoder's forward on batches that are ready in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import cast

import numpy as np
import torch
from torch import Tensor

from cbmf.cache.catalog import Cache
from cbmf.precompute.dataset import SourceColumn, Split
from cbmf.precompute.encode import encode_stream
from cbmf.precompute.encoders import FrozenEncoder
from cbmf.precompute.images import ImageSource
from cbmf.precompute.pipeline import PrecomputeOptions, StreamPlan, plan, prepare

from .settings import Settings, quiet
from .timing import Row, Subject, compared, interleaved, rates

ASKED = ">= 0.95"
Inputs = dict[str, Tensor]
"""What a model is called with."""


def measure(settings: Settings) -> Iterator[Row]:
    """Rows on images and on texts."""
    options = PrecomputeOptions(batch_size=16) if settings.small else PrecomputeOptions()
    split = settings.source(48 if settings.small else 384)
    for encoder in settings.encoders():
        yield from _against_forward(settings, split, encoder, options)


def _against_forward(
    settings: Settings, split: Split, encoder: FrozenEncoder, options: PrecomputeOptions
) -> list[Row]:
    """Each round encodes everything into a new cache, then the ready batches."""
    column = split.columns[encoder.modality]
    split = Split(split.name, {encoder.modality: column})
    batches = ready_batches(encoder, column, options.batch(encoder))
    planned: list[StreamPlan] = []

    def fresh() -> None:
        for old in planned:
            shutil.rmtree(old.folder.parents[2])
        cache = Cache(settings.folder("encoded"))
        whole = plan("sample", split, [encoder], cache, options)
        prepare([whole], cache)
        planned[:] = whole.streams

    def pipeline() -> None:
        encode_stream(planned[0], options, quiet)

    def forward() -> None:
        run_bare(encoder, batches)

    def read() -> None:
        _preprocessed(encoder, column, options.decoders())

    count = float(len(column.ids))
    ours = Subject("precompute", pipeline, count, before=fresh)
    bare = Subject("bare forward", forward, count)
    subjects = [ours, bare]
    if encoder.modality == "image":
        subjects.append(Subject("decoding and resizing alone", read, count))
    seconds = interleaved(subjects, settings.repeats)
    what = f"precompute {encoder.modality}s, {encoder.short_name}"
    note = f"{count:,.0f} items, batches of {options.batch(encoder)}, {encoder.precision}"
    rows = [compared(what, ours, bare, seconds, "items/s", asked=ASKED, note=note)]
    if encoder.modality == "image":
        # Work that the bare forward is spared. Where the same cores do both, no pipeline does
        # better than one after the other.
        reading = rates(subjects[2], seconds)
        one_after_other = [
            1 / (1 / one + 1 / two) for one, two in zip(rates(bare, seconds), reading, strict=True)
        ]
        note = f"{options.decoders()} threads; ratio: precompute to forward after decoding"
        ratio = Row(
            f"{what}, its images decoded by the same cores", "items/s", rates(ours, seconds),
            one_after_other, against="forward and decoding in turn", note=note,
        )  # fmt: skip
        rows += [ratio, Row("decoding and resizing alone", "items/s", reading)]
    return rows


def ready_batches(encoder: FrozenEncoder, column: SourceColumn, size: int) -> list[Inputs]:
    """All items of a column as the model takes them, texts sorted by length, on its device."""
    if encoder.modality == "image":
        pixels = torch.from_numpy(_preprocessed(encoder, column, 1))
        return [{"pixel_values": part.to(encoder.device)} for part in pixels.split(size)]
    ids = sorted(encoder.tokenize(cast("Sequence[str]", column.values)), key=len)
    return [_padded(encoder, ids[at : at + size]) for at in range(0, len(ids), size)]


def _preprocessed(encoder: FrozenEncoder, column: SourceColumn, threads: int) -> np.ndarray:
    """(N, 3, H, W) float32."""
    images = cast("Sequence[ImageSource]", column.values)
    with ThreadPoolExecutor(threads) as workers:
        return np.stack(list(workers.map(lambda image: encoder.preprocess(image.open()), images)))


def _padded(encoder: FrozenEncoder, ids: list[list[int]]) -> Inputs:
    pad = encoder.processor.pad_token_id or 0
    whole = torch.full((len(ids), len(ids[-1])), pad)
    mask = torch.zeros_like(whole)
    for row, tokens in enumerate(ids):
        whole[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return {"input_ids": whole.to(encoder.device), "attention_mask": mask.to(encoder.device)}


def run_bare(encoder: FrozenEncoder, batches: Sequence[Inputs]) -> None:
    """The model over ready batches, in the encoder's precision; what it gives is dropped."""
    half = encoder.precision != "float32"
    kind = encoder.device.type
    cast_ = torch.autocast(kind, getattr(torch, encoder.precision)) if half else nullcontext()
    with torch.inference_mode(), cast_:
        for batch in batches:
            encoder.model(**batch)
    if kind == "cuda":
        torch.cuda.synchronize()
