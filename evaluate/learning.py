"""How a fit went: its losses and its recall in validation, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping

from ..train.history import read_history
from ..train.run import BASELINES_NAME, Run
from .charts import Chart, line_chart
from .figures import Line


def learning_charts(run: Run) -> list[Chart]:
    """Loss and validation recall over the epochs of a fit.

    Raises:
        RunError: If the history is missing or damaged.
    """
    history = read_history(run.folder)
    epochs = [line["epoch"] for line in history]
    heads = run.folder / BASELINES_NAME / "linear"
    known = read_history(heads) if heads.exists() else []
    level = max((line["val_recall"] for line in known), default=None)

    def lines(names: Mapping[str, str]) -> list[Line]:
        return [
            Line(label, "model", [line[name] for line in history])
            for name, label in names.items()
            if all(name in line for line in history)
        ]

    best = max(history, key=lambda line: line["val_recall"])["epoch"] if history else None
    left, right = (spec.column for spec in run.model.encoders[:2])
    losses = {"train_loss": "training", "val_loss": "validation"}
    recalls = {"val_recall": "mean of R@1, 5, 10"} | {
        f"{way}_r{depth}": f"{name} R@{depth}"
        for way, name in (
            ("left_to_right", f"{left} → {right}"),
            ("right_to_left", f"{right} → {left}"),
        )
        for depth in (1, 10)
    }
    return [
        line_chart("Loss", lines(losses), epochs, names=("epoch", "nats a pair")),
        line_chart(
            "Recall in validation",
            lines(recalls),
            epochs,
            names=("epoch", "recall (%)"),
            factor=100,
            level=None if level is None else ("linear heads, best mean", level),
            mark=best,
        ),
    ]
