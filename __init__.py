"""cbmf: align frozen pretrained encoders on cached embeddings.

    pipeline = cbmf.load_pipeline("runs/flickr8k")      # raw texts and images to one space
    model = cbmf.CBMF.from_pretrained("runs/flickr8k")  # embeddings to one space: model.encode
    run = cbmf.Run.load("runs/flickr8k")                # model, configuration, baselines
    stream = cbmf.Cache("embeddings").find("flickr8k", "test", "image")
    cbmf.push_to_hub(run, "owner/name")

Nothing heavy is imported until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cache.errors import CbmfError

if TYPE_CHECKING:
    from .cache.catalog import Cache
    from .cache.stream import Stream
    from .recipes.hub import push_to_hub
    from .recipes.pipeline import Pipeline, load_pipeline
    from .train.model import CBMF
    from .train.run import Run

__version__ = "0.1.0"
__all__ = [
    "CBMF",
    "Cache",
    "CbmfError",
    "Pipeline",
    "Run",
    "Stream",
    "__version__",
    "load_pipeline",
    "push_to_hub",
]

_HOMES = {
    "CBMF": "train.model",
    "Cache": "cache.catalog",
    "Pipeline": "recipes.pipeline",
    "Run": "train.run",
    "Stream": "cache.stream",
    "load_pipeline": "recipes.pipeline",
    "push_to_hub": "recipes.hub",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cbmf' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
