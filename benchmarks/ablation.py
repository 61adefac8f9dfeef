"""What each part of a preset is worth: one change at a time, on one cache.

    python -m benchmarks.ablation pooled --cache embeddings --dataset flickr8k

`pooled` and `tokens` take `best` apart, `readings` the loss of `paper` (Eq. 5 and 6).
Prints a Markdown table of test recalls; a fit that is there already is not done again.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path
from typing import Any

from cbmf.cache.catalog import Cache
from cbmf.evaluate.suite import evaluate
from cbmf.train.config import preset
from cbmf.train.fit import fit
from cbmf.train.history import read_summary

POOLED: dict[str, dict[str, Any]] = {
    "best, pooled": {},
    "no input dropout": {"input_dropout": 0.0},
    "no mixup": {"mixup": 0.0},
    "inputs as they are": {"standardise": False},
    "no linear skip beside the projection": {"projection_skip": False},
    "temperature as released (0.07 for log(1/0.07))": {"log_scale": 0.07},
    "DFE as released: post-norm, no zero start": {"norm": "post", "zero_start": False},
    "batch 64": {"batch_size": 64},
    "2 captions an image": {"captions_per_image": 2},
    "without the DFE": {"dfe": False},
    "without the context": {"fusion": "none"},
    "linear heads": {"method": "linear"},
    "linear heads, input dropout": {
        "method": "linear",
        "standardise": True,
        "input_dropout": 0.3,
        "epochs": 80,
        "lr": 2e-3,
    },
}
TOKENS: dict[str, dict[str, Any]] = {
    "best, tokens": {},
    "without the DFE": {"dfe": False},
    "without the context": {"fusion": "none"},
    "fusion dot": {"fusion": "dot"},
    "no token dropout": {"token_dropout": 0.0},
    "2 captions an image": {"captions_per_image": 2},
    "class token among the patches": {"class_token": "among"},
}
READINGS: dict[str, dict[str, Any]] = {
    "paper: divide, detached, renormalised, positives": {},
    "multiply by tau": {"soft_scale": "multiply"},
    "gradient through the targets": {"detach_targets": False},
    "transposed targets as they are": {"renormalise_targets": False},
    "same image masked": {"same_image": "masked"},
    "hard targets": {"targets": "hard"},
    "temperature from the released 0.93": {
        "log_scale": 0.07,
        "log_scale_min": 0.01,
        "log_scale_max": 20.0,
    },
}
SETS = {
    "pooled": ("best", "pooled", POOLED),
    "tokens": ("best", "tokens", TOKENS),
    "readings": ("paper", "pooled", READINGS),
}
"""Preset, layout and variants of each set."""
METRICS = [f"{way}/R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)]


def main() -> None:
    """Fit and score every variant, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--dataset", default="flickr8k")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="Default: the preset's.")
    parser.add_argument("--only", nargs="*", help="Names of variants; default: all.")
    words = parser.parse_args()
    variants = SETS[words.set][2]
    print(
        "| variant | text → image R@1/5/10 | image → text R@1/5/10 | mean | σ | epochs | fit, s |"
    )
    print("|---|---|---|---:|---:|---:|---:|")
    for name in words.only or variants:
        print(_line(name, [_fitted(words, name, seed) for seed in range(words.seeds)]), flush=True)


def _fitted(words: argparse.Namespace, name: str, seed: int) -> tuple[list[float], int, float]:
    """Test recalls in %, epochs, and seconds of one fit."""
    base, layout, variants = SETS[words.set]
    changes = dict(variants[name])
    if words.epochs:
        changes["epochs"] = words.epochs
    layout = "pooled" if changes.get("method") == "linear" else layout
    config = preset(base, layout=layout, seed=seed, baseline=False, **changes)
    plain = re.sub(r"[^\w]+", "-", name)
    cache = Cache(words.cache)
    run = fit(cache, config, out=words.out / f"{words.set}-{seed}-{plain}", dataset=words.dataset)
    run.alone = True
    result = evaluate(cache, run, ["retrieval"]).results[0]
    summary = read_summary(run.folder)
    values = [100 * result.row("model").metrics[metric] for metric in METRICS]
    return values, int(summary["epochs"]), float(summary["seconds"])


def _line(name: str, fits: list[tuple[list[float], int, float]]) -> str:
    values = [statistics.fmean(column) for column in zip(*(f[0] for f in fits), strict=True)]
    forth, back = ("/".join(f"{v:.1f}" for v in part) for part in (values[:3], values[3:]))
    means = [statistics.fmean(f[0]) for f in fits]
    deviation = f"{statistics.stdev(means):.1f}" if len(means) > 1 else "-"
    epochs, seconds = (statistics.fmean(f[i] for f in fits) for i in (1, 2))
    mean = statistics.fmean(means)
    return (
        f"| {name} | {forth} | {back} | {mean:.1f} | {deviation} | {epochs:.0f} | {seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
