"""Curves of a fit as a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..cache.errors import RunError
from ..cache.files import new_file, read_json, run_apart
from .config import SOLVED
from .history import read_history

CURVES_NAME = "curves.png"


def draw_run(run: Path, floor: Path) -> None:
    """Draw a run's curves.png in a process of its own: matplotlib loads Pillow, a fit must not.

    Args:
        run: The run's folder.
        floor: Folder of the linear heads; may be absent.

    Raises:
        RunError: If the drawing failed; the run itself is whole.
    """
    reason = run_apart(__name__, str(run), str(floor), folder=run)
    if reason:
        raise RunError(f"{run / CURVES_NAME} could not be drawn ({reason}); all else is finished")


def draw_curves(
    history: Sequence[dict[str, float]],
    floor: Sequence[dict[str, float]],
    path: Path,
    sides: tuple[str, str] = ("left", "right"),
    axis: str = "epoch",
) -> None:
    """Draw losses and validation recalls over epochs, or over the choices of what was solved.

    Args:
        history: Lines of history.jsonl.
        floor: Those of the linear heads, whose best mean recall is drawn as a level; may be empty.
        path: The PNG to write.
        sides: What the two sides are called, such as image and text.
        axis: What a line of the history is.
    """
    from matplotlib.figure import Figure

    epochs = [line["epoch"] for line in history]
    figure = Figure(figsize=(13, 4.2), dpi=120, layout="constrained")
    losses, recalls = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("val_loss", "validation")):
        losses.plot(epochs, [line[name] for line in history], marker=".", label=label)
    losses.set(xlabel=axis, ylabel="contrastive loss (nats a pair)", title="Loss")
    left, right = sides
    ways = (("left_to_right", f"{left} → {right}"), ("right_to_left", f"{right} → {left}"))
    for depth, style in ((10, ":"), (5, "--"), (1, "-")):
        for colour, (way, name) in zip(("C0", "C1"), ways, strict=True):
            values = [100 * line[f"{way}_r{depth}"] for line in history]
            recalls.plot(epochs, values, style, color=colour, label=f"{name} R@{depth}")
    means = [100 * line["val_recall"] for line in history]
    recalls.plot(epochs, means, color="k", linewidth=2, label="mean of the six")
    if floor:
        level = 100 * max(line["val_recall"] for line in floor)
        recalls.axhline(level, color="0.5", linestyle="-.", label="linear heads: their best mean")
    recalls.set(xlabel=axis, ylabel="recall (%)", title="Validation recall", ylim=(0, None))
    for axes in (losses, recalls):
        axes.grid(alpha=0.3)
    losses.legend(fontsize=8)
    recalls.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
    with new_file(path) as part:
        figure.savefig(part, format="png")


if __name__ == "__main__":
    _run, _floor = (Path(word) for word in sys.argv[1:])
    _level = read_history(_floor) if _floor.exists() else []
    _card = read_json(_run / "config.json")
    _first, _second, *_ = _card["encoders"]
    _sides = (_first["column"], _second["column"])
    _axis = "choice" if _card["method"] in SOLVED else "epoch"
    draw_curves(read_history(_run), _level, _run / CURVES_NAME, _sides, _axis)
