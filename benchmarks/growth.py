"""One job in a process of its own, for its time and its peak memory; see benchmarks/scaling.py.

    python -m benchmarks.growth fit --cache embeddings --out scratch

Prints a line of JSON: seconds, MiB at the peak, and MiB that the job itself added.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cbmf.cache.catalog import Cache
from cbmf.precompute.dataset import SourceColumn, Split
from cbmf.precompute.encoders import EncoderOptions, FrozenEncoder
from cbmf.precompute.pipeline import PrecomputeOptions, plan
from cbmf.train.config import preset
from cbmf.train.fit import fit
from cbmf.train.run import Run

DATASET = "generated"
MIB = 2**20
Job = Callable[[], object]
"""Returns the seconds that count, where these are not all."""


def main() -> None:
    """Do the job that the command line names, and tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=("fit", "retrieval", "plan"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="Of retrieval.")
    parser.add_argument("--items", type=int, default=0, help="Of plan: texts.")
    parser.add_argument("--memory-mb", type=int, help="Of fit: stream, with so much for the data.")
    parser.add_argument("--allow-mb", type=int, help="Limit the growth of the address space.")
    words = parser.parse_args()
    jobs: dict[str, Callable[[argparse.Namespace], Job]]
    jobs = {"fit": _fit, "retrieval": _retrieval, "plan": _plan}
    job = jobs[words.job](words)
    before = _status("VmRSS")
    if words.allow_mb:
        limit = int((_status("VmSize") + words.allow_mb) * MIB)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    began = time.perf_counter()
    told = job()
    seconds = told if isinstance(told, float) else time.perf_counter() - began
    peak = _status("VmHWM")
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "grown_mb": peak - before}))


def _status(name: str) -> float:
    """A line of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def _fit(words: argparse.Namespace) -> Job:
    """Loading and an epoch; not the drawing of its curves in another process."""
    config = preset("best", layout="pooled", epochs=1, baseline=False)
    limit: dict[str, Any] = {}
    if words.memory_mb:
        limit["memory_bytes"] = words.memory_mb * MIB

    def job() -> float:
        began = time.perf_counter()
        told = [began]
        fit(
            Cache(words.cache), config, out=words.out / "run", dataset=DATASET, **limit,
            report=lambda progress: told.append(time.perf_counter()),
        )  # fmt: skip
        return told[-1] - began

    return job


def _retrieval(words: argparse.Namespace) -> Job:
    """Of the split `test`, the model alone, by both protocols."""
    from cbmf.evaluate.suite import evaluate

    folder = words.out / "run"
    shutil.copytree(words.run, folder, ignore=shutil.ignore_patterns("results", "projections"))
    run = Run.load(folder)
    run.alone = True
    return lambda: evaluate(Cache(words.cache), run, ["retrieval"], split="test")


def _plan(words: argparse.Namespace) -> Job:
    """What is to be encoded of so many texts that the cache does not know yet."""
    encoder = FrozenEncoder("demo-bert", "text", EncoderOptions())
    ids = [f"t{i}" for i in range(words.items)]
    split = Split("train", {"text": SourceColumn("text", ids, [f"a photo of {i}" for i in ids])})
    cache = Cache(words.out)
    return lambda: plan(DATASET, split, [encoder], cache, PrecomputeOptions())


if __name__ == "__main__":
    main()
