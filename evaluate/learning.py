"""How a fit went: its losses and its recall in validation, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping

from ..train.config import SOLVED
from ..train.history import read_history
from ..train.run import BASELINES_NAME, Run
from .charts import Chart, line_chart
from .figures import Line


def learning_charts(run: Run) -> list[Chart]:
    """Loss and validation recall over the epochs of a fit, or over the choices of what was solved.

    Of a single one there is no curve.

    Raises:
        RunError: If the history is missing or damaged.
    """
    history = read_history(run.folder)
    if len(history) < 2:
        return []
    solved = run.config.method in SOLVED
    axis = "choice" if solved else "epoch"
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

    sign = 1 if run.config.stop_on == "val_recall" else -1
    best = max(history, key=lambda line: sign * line[run.config.stop_on])["epoch"]
    columns = list(dict.fromkeys(spec.column for spec in run.model.encoders))
    left, right = columns[:2] if len(columns) > 1 else ("left", "right")
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
        line_chart("Loss", lines(losses), epochs, names=(axis, "nats a pair")),
        line_chart(
            "Recall in validation",
            lines(recalls),
            epochs,
            names=(axis, "recall (%)"),
            factor=100,
            level=None if level is None else ("linear heads, best mean", level),
            mark=best,
        ),
    ]
