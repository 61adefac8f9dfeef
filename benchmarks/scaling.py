"""How cost grows with the number of items, and what happens beyond the memory allowed.

The ratio of a row is by how much it costs more than with the fewest items.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cbmf.cache.catalog import Cache
from cbmf.train.config import preset
from cbmf.train.fit import fit

from .fit_waits import can_stream
from .generated import Size, write_cache
from .settings import Settings
from .timing import Row

GROWTH = (1, 4, 16)
WIDTH = 256
STREAM_MEMORY_MB = 8
"""What a streamed fit is given for its data."""
VALIDATED = 64
"""Images of the other splits, however large the training split is."""
TOLERATED_MB = 512
"""Address space beyond what the started process has, where a limit is set."""


def measure(settings: Settings) -> Iterator[Row]:
    """Rows on time and peak memory of fit, retrieval and planning."""
    base = 640 if settings.small else 8000
    sizes = {times: Size(images=base * times, captions=2, width=WIDTH) for times in GROWTH}
    caches = {
        times: write_cache(
            settings.folder(f"times-{times}"), size, {"train": 1, "val": 0.02, "test": 0.1}
        )
        for times, size in sizes.items()
    }
    run = settings.folder("model") / "run"
    config = preset("best", layout="pooled", epochs=1, baseline=False)
    fit(caches[1], config, out=run, dataset="generated")
    jobs: dict[str, list[object]] = {
        "fit, resident": ["fit"],
        "fit, streamed": ["fit", "--memory-mb", STREAM_MEMORY_MB],
        "retrieval of a tenth of the items": ["retrieval", "--run", run],
        "plan of a precompute": ["plan"],
    }
    if not can_stream():
        del jobs["fit, streamed"]
    for name, words in jobs.items():
        yield from _grown(settings, name, words, caches, sizes)
    if can_stream():
        yield _beyond_memory(settings)


def _grown(
    settings: Settings,
    name: str,
    words: list[object],
    caches: dict[int, Cache],
    sizes: dict[int, Size],
) -> list[Row]:
    """Seconds and peak memory at each size, against the smallest; the sizes take turns."""
    repeats = 1 if settings.small else min(settings.repeats, 3)
    found: dict[int, list[dict[str, float]]] = {times: [] for times in GROWTH}
    for _ in range(repeats):
        for times in GROWTH:
            texts = round(sizes[times].images * sizes[times].captions)
            of_size = [*words, "--items", texts]
            found[times].append(in_a_process(settings, caches[times].root, of_size))
    rows = []
    for times in GROWTH[1:]:
        size = sizes[times]
        note = f"{size.images:,} images, {size.images * size.captions:,.0f} captions, {WIDTH} wide"
        for key, unit in (("seconds", "s"), ("peak_mb", "MiB")):
            ours, least = ([f[key] for f in found[t]] for t in (times, 1))
            what = f"{name}, {times}x items, {'time' if unit == 's' else 'peak memory'}"
            rows.append(Row(what, unit, ours, least, against="1x", note=note))
    return rows


def _beyond_memory(settings: Settings) -> Row:
    """Memory taken by a fit of a cache larger than the memory allowed, and of a small one."""
    wanted_mb = 24 if settings.small else 2 * TOLERATED_MB
    memory_mb = STREAM_MEMORY_MB if settings.small else 4 * STREAM_MEMORY_MB
    job: list[object] = ["fit", "--memory-mb", memory_mb, "--allow-mb", TOLERATED_MB]
    grown, seconds = [], 0.0
    for size_mb in (wanted_mb, wanted_mb // 8):
        images = int(size_mb * 2**20 / (3 * 2 * 768))  # an image and two captions, float16
        size = Size(images=images, captions=2)
        shares = {"train": 1.0, "val": VALIDATED / images, "test": VALIDATED / images}
        cache = write_cache(settings.folder("large"), size, shares)
        found = in_a_process(settings, cache.root, job)
        grown.append(found["grown_mb"])
        seconds = max(seconds, found["seconds"])
    note = (
        f"{wanted_mb:,} MiB of vectors against an eighth of them, {memory_mb} MiB for data; the "
        f"address space may grow by {TOLERATED_MB} MiB (RLIMIT_AS); {seconds:.1f} s with an epoch"
    )
    return Row(
        "fit, streamed, larger than memory: growth of memory", "MiB", grown[:1], grown[1:],
        against="an eighth", asked="flat: about 1", note=note,
    )  # fmt: skip


def in_a_process(settings: Settings, cache: Path, words: list[object]) -> dict[str, float]:
    """What benchmarks.growth tells of a job in a fresh process.

    Raises:
        RuntimeError: If it failed; with the end of its output.
    """
    command = [sys.executable, "-m", "benchmarks.growth", *map(str, words), "--cache", str(cache)]
    out = settings.folder("job")
    done = subprocess.run(
        [*command, "--out", str(out)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])
