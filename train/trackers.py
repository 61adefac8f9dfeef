"""Experiment trackers by way of accelerate: TensorBoard, Weights & Biases, MLflow and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.errors import InputError
from .loop import Progress, Report
from .run import RUNS

PROJECT = "cbmf"
FOLDER_NAME = "trackers"
"""In the run's folder, where trackers that write files put theirs."""


class Tracked:
    """A report that hands every epoch's values on to trackers too."""

    def __init__(
        self, report: Report, names: Sequence[str], folder: Path | None, settings: Mapping[str, Any]
    ) -> None:
        """Look the trackers up; they begin with the first epoch.

        Args:
            report: Hears everything.
            names: As accelerate names them: `tensorboard`, `wandb`, `mlflow`, `comet_ml`, `aim`,
                `clearml`, `dvclive`, `swanlab`, `trackio`.
            folder: The run's folder; trackers that write files put theirs in it. None: in ./runs.
            settings: What the trackers shall show of the configuration.

        Raises:
            InputError: If a tracker is unknown, or its package is not installed.
        """
        self.report, self.folder, self.settings = report, folder, settings
        self._classes = [_class(name) for name in names]
        self._trackers: list[Any] = []

    def __call__(self, progress: Progress) -> None:
        """Report, and log an epoch's values under the model's method."""
        self.report(progress)
        if not progress.values:
            return
        if not self._trackers:
            self._trackers = [self._begun(kind) for kind in self._classes]
        values = {f"{progress.stage}/{key}": value for key, value in progress.values.items()}
        for tracker in self._trackers:
            tracker.log(values, step=progress.epoch)

    def _begun(self, kind: Any) -> Any:
        own = {"logging_dir": str((self.folder or RUNS) / FOLDER_NAME)}
        tracker = kind(PROJECT, **(own if kind.requires_logging_directory else {}))
        if hasattr(tracker, "start"):
            tracker.start()
        tracker.store_init_configuration(dict(_plain(self.settings)))
        return tracker

    def finish(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.finish()


def _plain(settings: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted names; what trackers cannot show as it is, in words."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _plain(value, f"{within}{key}.")
        else:
            yield f"{within}{key}", value if isinstance(value, int | float | str) else str(value)


def _class(name: str) -> Any:
    from accelerate.tracking import (  # type: ignore[import-untyped]
        LOGGER_TYPE_TO_CLASS,
        get_available_trackers,
    )

    known = {str(getattr(key, "value", key)): kind for key, kind in LOGGER_TYPE_TO_CLASS.items()}
    if name not in known:
        raise InputError(f"--tracker {name!r} is unknown; there are {', '.join(sorted(known))}")
    if name not in {str(getattr(key, "value", key)) for key in get_available_trackers()}:
        raise InputError(f"--tracker {name}: not installed; pip install {name.replace('_', '-')}")
    return known[name]
