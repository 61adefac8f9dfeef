"""cbmf: align frozen pretrained encoders on cached embeddings.

    run = cbmf.Run.load("runs/flickr8k")          # a fitted run: model, configuration, baselines
    model = cbmf.CBMF.from_pretrained("runs/flickr8k")
    stream = cbmf.Cache("embeddings").find("flickr8k", "test", "image")

Nothing heavy is imported until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cache.errors import CbmfError

if TYPE_CHECKING:
    from .cache.catalog import Cache
    from .cache.stream import Stream
    from .train.model import CBMF
    from .train.run import Run

__version__ = "0.1.0"
__all__ = ["CBMF", "Cache", "CbmfError", "Run", "Stream", "__version__"]

_HOMES = {
    "CBMF": "train.model",
    "Cache": "cache.catalog",
    "Run": "train.run",
    "Stream": "cache.stream",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cbmf' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
