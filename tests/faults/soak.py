"""Precompute, fit, evaluate, verify, gc, over and over in one process: nothing may grow.

By hand, for an hour: python tests/faults/soak.py --minutes 60
"""

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from cbmf.cache.catalog import Cache
from cbmf.cache.upkeep import garbage, remove, verify
from cbmf.evaluate.suite import evaluate
from cbmf.precompute.pipeline import PrecomputeOptions
from cbmf.precompute.scenes import demo_encoder, write_demo
from cbmf.precompute.stage import Request, precompute
from cbmf.train.config import preset
from cbmf.train.fit import fit

WARM_ROUNDS = 3
"""Libraries settle in the first rounds; what is compared comes after."""


class Quiet:
    """Hears everything, says nothing."""

    def __getattr__(self, name):
        return lambda *args, **options: None


def measure(folder: Path) -> SimpleNamespace:
    """Memory of this process, its open files, its threads, and the disk it has taken."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return SimpleNamespace(
        memory_mib=int(lines["VmRSS"].split()[0]) / 1024,
        threads=int(lines["Threads"]),
        files=len(os.listdir("/proc/self/fd")),
        disk_kib=sum(sizes) / 1024,
        entries=len(list(folder.rglob("*"))),
    )


def one_round(data: Path, work: Path, number: int) -> None:
    """All of it once: the cache is begun anew every other round, the run always."""
    cache, run = work / "cache", work / "run"
    shutil.rmtree(run, ignore_errors=True)
    if number % 2 == 0:
        shutil.rmtree(cache, ignore_errors=True)
    for dataset, root in (("coco", data / "coco"), ("imagefolder", data / "scenes10")):
        request = Request(
            dataset,
            root=root,
            text=(str(demo_encoder("demo-bert")),),
            image=(str(demo_encoder("demo-vit")),),
            cache_root=cache,
            options=PrecomputeOptions(shard_rows=64),
        )
        precompute(request, Quiet())
    config = preset("best", epochs=2, width=32, ffn_width=64, batch_size=32, fusion="add")
    found = fit(Cache(cache), config, out=run, dataset="coco2017")
    evaluate(Cache(cache), found, ["retrieval", "zero-shot"])
    evaluate(Cache(cache), found, ["retrieval", "zero-shot"])
    assert not [f for _, findings in verify(Cache(cache)) for f in findings]
    remove(garbage(Cache(cache)))


def soak(folder: Path, rounds: int | None, minutes: float | None) -> list[SimpleNamespace]:
    """What was measured after each round."""
    write_demo(
        folder / "demo", train=60, val=16, test=16, labelled_train=2, labelled_test=2, sentences=4
    )
    begun, measured = time.monotonic(), []
    work = folder / "work"
    work.mkdir()
    while rounds is None or len(measured) < rounds:
        if minutes is not None and time.monotonic() - begun > 60 * minutes:
            break
        one_round(folder / "demo", work, len(measured))
        measured.append(measure(work))
    return measured


def growth(measured: list[SimpleNamespace]) -> dict[str, tuple[float, float]]:
    """Of each figure, the largest of the rounds after the warm ones: of their first third, and of
    their last."""
    rest = measured[WARM_ROUNDS:]
    third = max(1, len(rest) // 3)
    parts = rest[:third], rest[-third:]
    return {
        name: (max(vars(m)[name] for m in parts[0]), max(vars(m)[name] for m in parts[1]))
        for name in vars(measured[0])
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = soak(Path(folder), None, given.minutes)
    grown = growth(measured)
    step = max(1, len(measured) // 10)
    memory = [round(m.memory_mib, 1) for m in measured[WARM_ROUNDS::step]]
    told = {"rounds": len(measured), "first and last third": grown, "memory": memory}
    print(json.dumps(told, indent=1))
    return 0 if flat(grown) else 1


def flat(grown: dict[str, tuple[float, float]]) -> bool:
    """Files, threads and entries the same; disk to 1%, memory to 5% and 10 MiB."""
    same = all(grown[name][1] <= grown[name][0] for name in ("files", "threads", "entries"))
    disk = grown["disk_kib"][1] <= 1.01 * grown["disk_kib"][0]
    memory = grown["memory_mib"][1] <= 1.05 * grown["memory_mib"][0] + 10
    return same and disk and memory


if __name__ == "__main__":
    sys.exit(main())
