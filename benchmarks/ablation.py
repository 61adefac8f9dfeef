"""What each part of the preset `best` is worth: one change at a time, on one cache.

    python -m benchmarks.ablation --cache embeddings --dataset flickr8k --layout pooled

Prints a Markdown table of test recalls; a fit that is there already is not done again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cbmf.cache.catalog import Cache
from cbmf.evaluate.suite import evaluate
from cbmf.train.config import preset
from cbmf.train.fit import fit

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
METRICS = [f"{way}/R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)]


def main() -> None:
    """Fit and score every variant, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--dataset", default="flickr8k")
    parser.add_argument("--layout", choices=("pooled", "tokens"), default="pooled")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="Names of variants; default: all.")
    words = parser.parse_args()
    cache = Cache(words.cache)
    print("| variant | text → image R@1/5/10 | image → text R@1/5/10 | mean | fit, s |")
    print("|---|---|---|---:|---:|")
    for name, changes in (POOLED if words.layout == "pooled" else TOKENS).items():
        if words.only and name not in words.only:
            continue
        layout = "pooled" if changes.get("method") == "linear" else words.layout
        config = preset("best", layout=layout, seed=words.seed, baseline=False, **changes)
        folder = (
            words.out / f"{words.layout}-{words.seed}-{name.replace(' ', '-').replace('/', '')}"
        )
        began = time.perf_counter()
        run = fit(cache, config, out=folder, dataset=words.dataset)
        seconds = time.perf_counter() - began
        (result,) = evaluate(cache, run, ["retrieval"]).results
        values = [100 * result.row("model").metrics[metric] for metric in METRICS]
        forth, back = ("/".join(f"{v:.1f}" for v in part) for part in (values[:3], values[3:]))
        mean = sum(values) / len(values)
        print(f"| {name} | {forth} | {back} | {mean:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
