"""What a campaign of faults works on: the commands over a small data set, and what they leave."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import forked

from cbmf.cache.catalog import Cache
from cbmf.cache.upkeep import verify
from cbmf.precompute.scenes import demo_encoder

TIMES = {"seconds", "pairs_per_s", "waiting"}
"""Of a line of history: what differs between equal fits."""


@dataclass
class Workshop:
    """Where a campaign takes place."""

    root: Path
    data: Path

    def precompute(self, cache: Path, *more: str) -> list[str]:
        """Images and captions of all splits, in many small shards."""
        encoders = [str(demo_encoder(name)) for name in ("demo-vit", "demo-bert")]
        return [
            *("precompute", "coco", "--root", str(self.data), "--cache", str(cache)),
            *("--image", encoders[0], "--text", encoders[1]),
            *("--shard-rows", "16", "--batch-size", "8", "--workers", "1", *more),
        ]

    def fit(self, cache: Path, out: Path, *more: str) -> list[str]:
        """A short fit with linear heads beside."""
        return [
            *("fit", "--cache", str(cache), "--out", str(out), "--epochs", "4"),
            *("--batch-size", "16", "--set", "width=16", "--set", "ffn_width=32", *more),
        ]

    def run(self, words: list[str], **options) -> int:
        """The exit code of a command."""
        return forked.run(words, self.said, **options)

    @property
    def said(self) -> Path:
        return self.root / "said.log"

    def words_said(self) -> str:
        return self.said.read_text()


def shards(cache: Path) -> dict[str, tuple[bytes, int]]:
    """Every finished shard below a cache, with its contents and time of change."""
    return {
        str(path.relative_to(cache)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(cache.rglob("0*.h5"))
    }


def findings(cache: Path) -> list[str]:
    """What `cbmf cache verify` finds bad."""
    return [f.reason for _, found in verify(Cache(cache)) for f in found]


def digests(cache: Path) -> dict[str, dict[int, str]]:
    """Digests of all shards, by stream."""
    store = Cache(cache)
    return {
        f"{dataset}/{split}/{stream.path.name}": {
            number: entry.sha256 for number, entry in stream.manifest.shards.items()
        }
        for dataset, split in store.splits()
        for stream in store.streams(dataset, split)
        if stream.complete
    }


def history(run):
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def check_run(run, fitted):
    """Weights bit by bit, history without gaps or doubles."""
    for part in (".", "baselines/linear"):
        weights = [(r / part / "model.safetensors").read_bytes() for r in (run, fitted)]
        assert weights[0] == weights[1]
        assert history(run / part) == history(fitted / part)
        assert not (run / part / "checkpoint.safetensors").exists()
    # A process of its own draws curves; it may outlive the fit that was killed.
    assert not [path for path in run.rglob("*.tmp") if "curves" not in path.name]


def remount(disk: Path, size_bytes: int) -> None:
    words = ["mount", "-o", f"remount,size={size_bytes}", str(disk)]
    subprocess.run(words, check=True, env={**os.environ, "LC_ALL": "C"})
