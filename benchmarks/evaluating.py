"""The first `cbmf evaluate all` of a run against the ones after it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cbmf.cache.catalog import Cache
from cbmf.evaluate.results import RESULTS_FOLDER, read_results
from cbmf.evaluate.suite import ALL, evaluate
from cbmf.train.config import preset
from cbmf.train.fit import fit
from cbmf.train.run import Run
from cbmf.train.source import choose_layout

from .settings import Settings, cbmf, finished
from .timing import Row, Subject, compared, interleaved

ASKED = ">= 50"
Evaluate = Callable[[Cache, Path, int, bool], None]
"""Of cache, run, passes of fine-tuning, and whether to measure anew."""


def measure(settings: Settings) -> Iterator[Row]:
    """Rows on the command, and, on the demo, the library's call without the start of a process."""
    cache, dataset = settings.embeddings()
    layout = choose_layout(cache, "best", "cbmf", dataset)
    epochs = 2 if settings.small else 5
    config = preset("best", layout=layout, epochs=epochs)
    template = settings.folder("evaluated") / "run"
    fit(cache, config, out=template, dataset=dataset)
    passes = 2 if settings.small else settings.fine_tune_epochs
    yield from _rows(settings, cache, template, passes, _by_command, "cbmf evaluate all")
    if settings.cache is None:  # of real embeddings a first time takes minutes
        yield from _rows(settings, cache, template, passes, _by_call, "the library's call")


def _by_command(cache: Cache, run: Path, passes: int, again: bool) -> None:
    options = ["--run", run, "--cache", cache.root, "--fine-tune-epochs", passes]
    words = ["evaluate", ALL, *options, *(["--again"] if again else [])]
    finished(cbmf(*words, cwd=run.parent))


def _by_call(cache: Cache, run: Path, passes: int, again: bool) -> None:
    opened = Run.load(run)
    evaluate(Cache(cache.root), opened, [ALL], again=again, fine_tune_epochs=passes)


def _rows(
    settings: Settings, cache: Cache, template: Path, passes: int, evaluated: Evaluate, name: str
) -> list[Row]:
    """Each round begins with a run that was never evaluated."""
    run = template.with_name("copy")

    def unevaluated() -> None:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(template, run)

    first = Subject("the first", partial(evaluated, cache, run, passes, False), before=unevaluated)
    second = Subject("the second", partial(evaluated, cache, run, passes, False))
    again = Subject("--again", partial(evaluated, cache, run, passes, True))
    repeats = 1 if settings.small else min(settings.repeats, 3)
    seconds = interleaved([first, second, again], repeats, warm_up=False)
    benchmarks = f"{len(read_results(run / RESULTS_FOLDER))} results"
    return [
        compared(
            f"{name}, {what}", subject, first, seconds, "s",
            asked=ASKED if subject is second else "", note=note,
        )
        for what, subject, note in (
            ("a second time", second, benchmarks),
            ("--again", again, "measured anew, from rows that are projected already if kept"),
        )
    ]  # fmt: skip
