"""Finding things in a cache: data sets, splits, items and streams."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from .errors import CacheError, StreamError
from .items import ITEMS_NAME, Items, read_items
from .manifest import MANIFEST_NAME
from .stream import Stream

ENVIRONMENT_NAME = "CBMF_CACHE"
DEFAULT_ROOT = "embeddings"


def default_root() -> Path:
    """`$CBMF_CACHE`, else `./embeddings`."""
    return Path(os.environ.get(ENVIRONMENT_NAME) or DEFAULT_ROOT)


class Cache:
    """A folder of embeddings: `<root>/<dataset>/<split>/<stream>`."""

    def __init__(self, root: Path | str | None = None) -> None:
        """Look at a cache; nothing is read or made yet. None stands for `default_root()`."""
        self.root = default_root() if root is None else Path(root)
        self._items: dict[tuple[Path, int, int], Items] = {}

    def splits(self) -> list[tuple[str, str]]:
        """Every (dataset, split) that has items, sorted."""
        return sorted(
            (path.parent.parent.name, path.parent.name)
            for path in self.root.glob(f"*/*/{ITEMS_NAME}")
        )

    def folder(self, dataset: str, split: str) -> Path:
        """Where a split lies, whether it is there or not."""
        return self.root / dataset / split

    def items(self, dataset: str, split: str) -> Items:
        """The items of a split as they were last read.

        Raises:
            CacheError: If the cache does not have the split; says what it has.
        """
        path = self.folder(dataset, split) / ITEMS_NAME
        if not path.exists():
            known = ", ".join("/".join(pair) for pair in self.splits()) or "nothing"
            raise CacheError(
                f"{self.root} has no {dataset}/{split}; it has {known}. "
                f"Make it with cbmf precompute {dataset}"
            )
        return self._read(path)

    def _read(self, path: Path) -> Items:
        """The items in a file, read once as long as the file stays as it is."""
        found = path.stat()
        key = (path, found.st_mtime_ns, found.st_ino)
        if key not in self._items:
            self._items[key] = read_items(path)
        return self._items[key]

    def items_of(self, stream: Stream) -> Items:
        """The items whose rows a stream counts: the present ones, or the older ones it was made of.

        Raises:
            StreamError: If none of the split's items fit.
        """
        for path in [stream.path.parent / ITEMS_NAME, *stream.path.parent.glob("items-*.h5")]:
            if path.exists() and is_over(stream, items := self._read(path)):
                return items
        raise StreamError(
            f"{stream.path}: made of other items than {stream.path.parent} has; "
            f"run cbmf precompute {stream.dataset} again"
        )

    def streams(self, dataset: str, split: str, column: str | None = None) -> list[Stream]:
        """The streams of a split, complete or not, sorted by folder name."""
        folders = sorted(self.folder(dataset, split).glob(f"{column or '*'}@*"))
        return [Stream(path) for path in folders if (path / MANIFEST_NAME).exists()]

    def find(
        self,
        dataset: str,
        split: str,
        column: str,
        *,
        encoder: str | None = None,
        identity: str | None = None,
        layout: str | None = None,
        grid: int | Literal["any"] | None = "any",
    ) -> Stream:
        """The one complete stream over a split's present items that fits.

        Args:
            dataset: Name in the cache.
            split: Name of the split.
            column: Column that the stream is over.
            encoder: The encoder's short name, or a part of the folder's name that only one has.
            identity: `Stream.identity` that it must have.
            layout: `tokens` for one that holds tokens; `pooled` takes either, a pooled one first.
            grid: With `tokens`, the grid that it must have; None for patches that are not averaged.

        Raises:
            CacheError: If no stream fits, or several do; says which there are.
            StreamError: If only an incomplete stream fits, or only streams of other encoders.
        """
        items = self.items(dataset, split)
        items.column(column)
        where = f"{self.folder(dataset, split)}"
        present = [s for s in self.streams(dataset, split, column) if is_over(s, items)]
        if not present:
            raise CacheError(
                f"{where}: no {column} embeddings; run cbmf precompute {dataset} with an encoder"
            )
        fitting = [s for s in present if identity in (None, s.identity)]
        if not fitting:
            have = ", ".join(sorted({s.path.name for s in present}))
            raise StreamError(f"{where}: none is of the encoder that is asked for; it has {have}")
        if encoder is not None:
            exact = [s for s in fitting if encoder in (s.encoder, s.path.name)]
            fitting = exact or [s for s in fitting if encoder in s.path.name]
        if layout == "tokens":
            fitting = [s for s in fitting if s.layout == "tokens" and grid in ("any", s.grid)]
        if not fitting:
            words = [encoder, layout, None if grid == "any" else f"grid {grid}"]
            wanted = " ".join(filter(None, words))
            have = ", ".join(f"{s.path.name} ({described(s)})" for s in present)
            raise CacheError(f"{where}: no {column} stream fits {wanted!r}; it has {have}")
        return _one(where, [s for s in fitting if s.complete] or fitting)


def is_over(stream: Stream, items: Items) -> bool:
    """Whether a stream's rows count these items."""
    spec = stream.manifest.spec
    column = items.columns.get(spec.column)
    return column is not None and column.digest() == spec.items_digest


def described(stream: Stream) -> str:
    """Layout and grid in words."""
    return stream.layout if stream.grid is None else f"{stream.layout}, grid {stream.grid}"


def _one(where: str, fitting: list[Stream]) -> Stream:
    exact = {stream.identity for stream in fitting}
    if len(exact) > 1:
        names = ", ".join(stream.path.name for stream in fitting)
        raise CacheError(f"{where}: several streams fit, name one: {names}")
    chosen = min(fitting, key=lambda s: (s.layout != "pooled", s.dtype != "float16", s.path.name))
    chosen.require_complete()
    return chosen
