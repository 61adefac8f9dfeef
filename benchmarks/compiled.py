"""A training step as it is, against the same through torch.compile; on a GPU with CUDA graphs too.

    python -m benchmarks.compiled --cache embeddings --dataset flickr8k --json compiled.json

Needs a C++ compiler on a CPU. What compiling itself takes is told in the note.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from cbmf.cache.catalog import Cache

from .ours import Ours
from .settings import Settings
from .timing import HEADING, Row, Subject, compared, interleaved, markdown, write_report

STEPS = {"pooled": 30, "tokens": 8}


def main(words: Sequence[str] | None = None) -> None:
    """Measure each layout in each precision, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layouts", nargs="*", default=list(STEPS))
    parser.add_argument("--cache", type=Path, required=True, help="Embeddings to fit on.")
    parser.add_argument("--dataset", help="Its name in the cache.")
    parser.add_argument("--precision", default="float32", help="float32 or bfloat16.")
    parser.add_argument("--repeats", type=int, default=5, help="Rounds that count.")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"))
    options = parser.parse_args(words)
    cache, dataset = Settings(Path(), cache=options.cache, dataset=options.dataset).embeddings()
    rows: list[Row] = []
    print(HEADING)
    for layout in options.layouts:
        for row in _rows(cache, dataset, layout, options.precision, options.repeats):
            print(markdown(row), flush=True)
            rows.append(row)
    write_report(options.json, {"compile": rows})


def _rows(cache: Cache, dataset: str, layout: str, precision: str, repeats: int) -> Iterator[Row]:
    """A row a way of compiling; sizes are dynamic, since captions are of many lengths."""
    plain = Ours.begin(cache, dataset, layout, precision=precision)
    work, pairs = plain.some(STEPS[layout])
    modes = ["default", *(["reduce-overhead"] if torch.cuda.is_available() else [])]
    for mode in modes:
        fast = plain.again(precision=precision)
        model = fast.step.model
        features = torch.compile(model.features, mode=mode, dynamic=True)
        model.features = features  # type: ignore[method-assign]
        through, _ = fast.some(STEPS[layout])
        began = time.perf_counter()
        through()
        note = f"{time.perf_counter() - began:.0f} s for its first {STEPS[layout]} steps"
        subjects = [Subject("compiled", through, pairs), Subject("as it is", work, pairs)]
        seconds = interleaved(subjects, repeats)
        what = f"fit through torch.compile ({mode}), {layout}, {precision}"
        yield compared(what, *subjects, seconds, "pairs/s", note=note)


if __name__ == "__main__":
    main()
