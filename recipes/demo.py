"""The three stages on generated data: what `cbmf demo` runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..cache.catalog import Cache
from ..precompute.demo import DEMO
from ..precompute.stage import Reporter, Request, precompute

if TYPE_CHECKING:
    from ..evaluate.suite import Evaluation
    from ..train.loop import Report

REPORT_NAME = "report.html"
DEMO_EPOCHS = 30
"""The generated pictures are learned long before the preset's usual end."""


def run_demo(out: Path, seed: int, encoding: Reporter, fitting: Report) -> Evaluation:
    """Draw, encode, fit and score; done steps are not done again.

    Args:
        out: Folder for data, embeddings and the run.
        seed: Of the fit.
        encoding: Hears how stage 1 goes.
        fitting: Hears how stage 2 goes.

    Returns:
        What stage 3 found.
    """
    from ..evaluate.suite import evaluate
    from ..train.config import preset
    from ..train.fit import fit
    from .report import write_report

    root = out / "embeddings"
    precompute(Request(DEMO, root=out / "data", cache_root=root), encoding)
    cache = Cache(root)
    run = fit(
        cache,
        preset("best", seed=seed, epochs=DEMO_EPOCHS),
        out=out / f"run-{seed}",
        dataset=DEMO,
        report=fitting,
    )
    found = evaluate(cache, run, ["all"])
    write_report([run.folder], cache, out / REPORT_NAME, root=out / "data")
    return found
