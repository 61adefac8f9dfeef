"""All three stages on the second device and on the CPU; prints what both gave, as JSON."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from second import DEVICE, SecondDevice

from cbmf.cache.catalog import Cache
from cbmf.evaluate.suite import evaluate
from cbmf.precompute.encoders import EncoderOptions
from cbmf.precompute.mining import MiningOptions
from cbmf.precompute.pipeline import PrecomputeOptions
from cbmf.precompute.scenes import write_demo
from cbmf.precompute.stage import Request, precompute
from cbmf.train.config import preset
from cbmf.train.fit import fit

SMALL, LARGE = "coco2017-limit40", "coco2017"
SETS = {
    "coco": {"folder": "coco", "image": True, "limit": 40},
    "coco-text": {"folder": "coco", "limit": 40},
    "imagefolder": {"folder": "scenes10", "image": True},
    "stsb": {"folder": "similarity"},
}
STILL = {
    "block_dropout": 0.0, "projection_dropout": 0.0, "input_dropout": 0.0, "input_noise": 0.0,
    "token_dropout": 0.0,
}  # fmt: skip
FITS = {
    "tokens": {"layout": "tokens", "benchmarks": ["all"]},
    "tokens in chunks": {"layout": "tokens", "chunk_size": 16},
    "tokens, released": {"base": "released", "layout": "tokens", "epochs": 1},
    "tokens, general": {"layout": "tokens", "fusion": "general"},
    "pooled, streamed": {
        "layout": "pooled",
        "benchmarks": ["all"],
        "dataset": LARGE,
        "memory": 800_000,
        "batch_size": 16,
        "epochs": 1,
    },
    "fusemix": {"layout": "pooled", "method": "fusemix", "epochs": 1},
    "csa": {"layout": "pooled", "method": "csa"},
    "asif": {"layout": "pooled", "method": "asif"},
}


class Quiet:
    def __getattr__(self, name):
        return lambda *args, **options: None


def encode(data: Path, cache: Path, device: str) -> None:
    for name, told in SETS.items():
        _encode(data, cache, device, name, "tokens", **told)
    _encode(data, cache, device, "coco", "pooled", "coco", image=True)


def _encode(data, cache, device, name, layout, folder, image=False, limit=None):
    grid = 3 if image and layout == "tokens" else None
    encoder = EncoderOptions(layout=layout, grid=grid, device=device, precision="float32")
    request = Request(
        name,
        root=data / folder,
        text=("demo-bert",),
        image=("demo-vit",) if image else (),
        cache_root=cache,
        options=PrecomputeOptions(encoder=encoder, dtype="float32", limit=limit),
        mining=MiningOptions(miner="demo-bert") if name == "coco-text" else None,
    )
    precompute(request, Quiet())


def farthest(one: Cache, other: Cache) -> float:
    """Largest difference of two caches' numbers, pooled and tokens."""
    worst = []
    for dataset, split in one.splits():
        for ours, theirs in zip(
            one.streams(dataset, split), other.streams(dataset, split), strict=True
        ):
            assert ours.fingerprint == theirs.fingerprint
            worst.append(np.abs(ours.pooled() - theirs.pooled()).max())
            for mine, yours in zip(ours.blocks(), theirs.blocks(), strict=True):
                if mine.values is not None:
                    worst.append(np.abs(mine.values - yours.values).max())
    return float(max(worst))


def judged(
    cache: Cache,
    out: Path,
    device: str,
    base="best",
    memory=None,
    dataset=SMALL,
    benchmarks=("retrieval",),
    **changes,
) -> dict:
    """The last line of a fit's history, and what evaluating gave, on a device."""
    config = preset(
        base, **{"epochs": 2, "width": 32, "batch_size": 64, "baseline": False, **STILL, **changes}
    )
    run = fit(cache, config, out=out, dataset=dataset, device=device, memory_bytes=memory)
    found = evaluate(cache, run, benchmarks, fine_tune_epochs=1)
    scores = {
        f"{result.benchmark} {result.protocol} {row.system} {name}": value
        for result in found.results
        for row in result.rows
        for name, value in row.metrics.items()
    }
    lines = (out / "history.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    return {"loss": last["val_loss"], "scores": scores}


def main(work: Path) -> None:
    torch.set_num_threads(1)
    write_demo(work, train=400, val=8, test=12, labelled_train=3, labelled_test=2, sentences=12)
    caches = {"cpu": Cache(work / "cpu"), str(DEVICE): Cache(work / "second")}
    told: dict = {"fits": {}}
    for device, cache in caches.items():
        with SecondDevice():
            encode(work, cache.root, device)
    told["farthest"] = farthest(*caches.values())
    for number, (name, options) in enumerate(FITS.items()):
        told["fits"][name] = {}
        for device in caches:
            out = work / f"run-{number}-{torch.device(device).type}"
            with SecondDevice():
                found = judged(caches["cpu"], out, device, **options)
            told["fits"][name][torch.device(device).type] = found
    # Dropout and noise draw other numbers elsewhere: that they run is all that can be seen.
    with SecondDevice():
        config = preset("best", layout="tokens", epochs=1, width=32)
        fit(caches["cpu"], config, out=work / "disturbed", dataset=SMALL, device=str(DEVICE))
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
