"""What a fit waits for: its data in each step, and its own start."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import Any

from cbmf.cache.catalog import Cache
from cbmf.train.config import FitConfig, preset
from cbmf.train.fit import fit
from cbmf.train.history import HISTORY_NAME
from cbmf.train.source import choose_source

from .generated import Size, write_cache
from .settings import Settings, cbmf, finished
from .timing import Row

START_ASKED = "< 3 s"
WAITING_ASKED = {"resident": "< 2%", "streamed": "< 10%"}
POLL_S = 0.002


def waiting_rows(settings: Settings, cache: Cache, dataset: str) -> list[Row]:
    """The share of a training epoch that is spent waiting for data, as the history tells it."""
    rows: list[Row] = []
    if settings.small:  # the demo's few images are a single block: they cannot be streamed
        size = Size(images=640, captions=2, width=32, image_tokens=4, text_tokens=4)
        cache, dataset = write_cache(settings.folder("blocks"), size, {"train": 1}), "generated"
    for layout in ("pooled", "tokens"):
        try:
            choose_source(cache, preset("best", layout=layout), dataset)
        except ValueError:
            continue  # a cache without tokens
        for way in WAITING_ASKED:
            found = _waited(settings, cache, dataset, layout, way)
            if found:
                what = f"waiting for data, {way}, {layout}"
                note = "share of the second epoch"
                rows.append(Row(what, "%", found, asked=WAITING_ASKED[way], note=note))
    return rows


def _waited(settings: Settings, cache: Cache, dataset: str, layout: str, way: str) -> list[float]:
    """Of the second epoch, in %, of each fit; empty where a fit does not tell."""
    changes = {"batch_size": 64} if settings.small else {}
    config = preset("best", layout=layout, epochs=2, baseline=False, **changes)
    limit: dict[str, Any] = {}
    if way == "streamed":
        if not can_stream():
            return []
        limit["memory_bytes"] = _half(cache, dataset, layout)
    rounds = 1 if layout == "tokens" or settings.small else settings.repeats
    lines = [_last_line(settings, cache, dataset, config, limit) for _ in range(rounds)]
    return [100 * line["waiting"] for line in lines if "waiting" in line]


def _last_line(
    settings: Settings, cache: Cache, dataset: str, config: FitConfig, limit: dict[str, Any]
) -> dict[str, float]:
    """The last line of a fit's history."""
    lines: list[dict[str, float]] = [{}]
    out = settings.folder("waiting") / "run"
    fit(cache, config, out=out, dataset=dataset, report=lambda p: lines.append(p.values), **limit)
    return lines[-1]


def can_stream() -> bool:
    """Whether a fit can be told how much memory its data may take."""
    return "memory_bytes" in inspect.signature(fit).parameters


def _half(cache: Cache, dataset: str, layout: str) -> int:
    """Half of what the training streams take."""
    source = choose_source(cache, preset("best", layout=layout), dataset)
    return sum(stream.size_bytes for stream in source.train) // 2


def start_rows(settings: Settings) -> list[Row]:
    """From the command `cbmf fit` to the end of its first epoch, which is one step."""
    folder = settings.folder("start")
    cache = write_cache(folder / "cache", Size(images=64, captions=2, width=384), {"train": 1})
    seconds, imports = [], []
    for number in range(settings.repeats + 1):
        began = time.perf_counter()
        out = folder / f"run-{number}"
        process = cbmf("fit", "--cache", cache.root, "--epochs", 1, "--out", out, cwd=folder)
        while process.poll() is None and not _any_history(out):
            time.sleep(POLL_S)
        seconds.append(time.perf_counter() - began)
        finished(process)
        began = time.perf_counter()
        finished(cbmf("--help", cwd=folder, code="import torch"))
        imports.append(time.perf_counter() - began)
    note = (
        "to the first line of a history, after one step and its validation; "
        "beside it a process that imports torch alone"
    )
    return [
        Row(
            "start of cbmf fit on a small cache", "s", seconds[1:], imports[1:],
            against="import torch", asked=START_ASKED, fewer_is_better=True, note=note,
        )
    ]  # fmt: skip


def _any_history(run: Path) -> bool:
    """Whether a fit, of the model or of the linear heads before it, has ended an epoch."""
    return any(path.stat().st_size for path in run.glob(f"**/{HISTORY_NAME}"))
