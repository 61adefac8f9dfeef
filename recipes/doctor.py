"""What a machine has for cbmf, and whether its cache is in order."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..cache.catalog import Cache
from ..cache.errors import CacheError
from ..cache.manifest import MANIFEST_NAME
from ..cache.stream import Stream

PACKAGES = (
    "cbmf torch transformers tokenizers accelerate h5py numpy scipy scikit-learn pillow "
    "safetensors huggingface-hub matplotlib jinja2"
).split()
EXTRAS = ("tensorboard", "wandb", "faiss-cpu")
LEAST_FREE_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One line of what was looked at."""

    what: str
    found: str
    good: bool = True
    advice: str = ""
    """What to do, where it is not good."""


def examine(cache: Cache) -> Iterator[Finding]:
    """Look at the machine, the packages and a cache. No shard is read: `cbmf cache verify` does."""
    yield Finding("python", f"{platform.python_version()}, {platform.platform()}")
    yield from _packages()
    yield from _device()
    yield _disk(cache.root)
    yield _hub()
    yield from _cache(cache)


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", False, f"pip install {name}")
    there = [name for name in EXTRAS if _installed(name)]
    yield Finding("extras", ", ".join(there) or "none (none is needed)")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _device() -> Iterator[Finding]:
    import torch

    yield Finding(
        "processor",
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
    )
    if not torch.cuda.is_available():
        built = torch.version.cuda
        seen = shutil.which("nvidia-smi") is not None
        yield Finding(
            "GPU",
            f"none (torch is built for {f'CUDA {built}' if built else 'the CPU'})",
            good=not seen,
            advice="this machine has an NVIDIA driver: install torch for CUDA" if seen else "",
        )
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, _ = torch.cuda.mem_get_info(number)
        half = "yes" if facts.major >= 8 else "no"
        yield Finding(
            f"GPU {number}",
            f"{facts.name}, {free / 2**30:.1f} of {facts.total_memory / 2**30:.1f} GiB free, "
            f"bfloat16 {half}",
        )


def _disk(root: Path) -> Finding:
    present = root.absolute()
    while not present.exists():
        present = present.parent
    free = shutil.disk_usage(present).free
    writable = os.access(present, os.W_OK)
    return Finding(
        "disk",
        f"{free / 2**30:.1f} GiB free at {root}{'' if writable else ', read-only'}",
        good=free >= LEAST_FREE_BYTES,
        advice="make room, or choose another --cache",
    )


def _hub() -> Finding:
    from huggingface_hub import constants

    offline = "offline" if constants.HF_HUB_OFFLINE else constants.ENDPOINT
    return Finding("hub", f"{offline}, encoders kept in {constants.HF_HUB_CACHE}")


def _cache(cache: Cache) -> Iterator[Finding]:
    if not cache.root.is_dir():
        yield Finding("cache", f"none at {cache.root} yet")
        return
    streams = 0
    for path in sorted(cache.root.glob(f"*/*/*@*/{MANIFEST_NAME}")):
        streams += 1
        name = str(path.parent.relative_to(cache.root))
        try:
            stream = Stream(path.parent)
            cache.items_of(stream)
        except CacheError as error:
            yield Finding(name, str(error), False, "cbmf cache verify, then precompute again")
            continue
        if not stream.complete:
            done, planned = len(stream.manifest.shards), stream.manifest.planned
            advice = "run the same cbmf precompute again, it goes on"
            yield Finding(name, f"{done} of {planned} shards", False, advice)
        for entry in stream.manifest.shards.values():
            shard = stream.path / entry.name
            if not shard.is_file() or shard.stat().st_size != entry.size_bytes:
                yield Finding(name, f"{entry.name} is missing or cut", False, "cbmf cache verify")
    yield Finding("cache", f"{streams} streams of {len(cache.splits())} splits in {cache.root}")
