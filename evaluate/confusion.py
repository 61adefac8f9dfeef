"""Which classes a run takes for which, without having been taught any. K classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cache.catalog import Cache
from ..train.run import Run
from .classification import class_embeddings, confusion_matrix
from .systems import System, model_name
from .zero_shot import prepare


@dataclass(frozen=True)
class Confusion:
    """What became of the images of each class."""

    classes: list[str]
    """K names."""
    counts: np.ndarray
    """(K, K) int64: images of a class (row) that are taken for a class (column)."""

    @property
    def right(self) -> float:
        """Share of the images whose class is found, 0 to 1."""
        return float(np.trace(self.counts) / max(self.counts.sum(), 1))

    def worst(self, count: int) -> list[tuple[str, str, int, int]]:
        """The commonest mistakes: class, what it is taken for, how often, of how many images."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [
            (
                self.classes[row],
                self.classes[column],
                int(wrong[row, column]),
                int(self.counts[row].sum()),
            )
            for row, column in cells
            if wrong[row, column]
        ]


def zero_shot_confusion(cache: Cache, run: Run, dataset: str, split: str) -> Confusion:
    """The confusions of a run on a labelled split, by the first protocol of `zero-shot`.

    Raises:
        InputError, CacheError: As `evaluate_zero_shot`.
    """
    items = cache.items(dataset, split)
    task = prepare(cache, items, run)
    system = System(model_name(run), "model", run.model, task.images, task.prompts, run)
    images, prompts = system.embed(run.model.temperature.log_scale.device)
    chosen = task.protocols[0].prompts
    centres = class_embeddings(prompts[chosen.tolist()], task.classes[chosen], len(items.classes))
    return Confusion(items.classes, confusion_matrix(images, centres, task.labels))
