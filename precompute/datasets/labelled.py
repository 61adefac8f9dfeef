"""From labelled images to a split: classes on every split, prompts on the one that is evaluated."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ...cache.errors import InputError
from ..dataset import LeftOut, SourceColumn, Split
from ..images import ImageSource
from .prompts import TEMPLATES, prompt_column
from .source import first_reason


@dataclass
class LabelledImages:
    """Images of one split, N of them, each with its class."""

    ids: list[str] = field(default_factory=list)
    sources: list[ImageSource] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, item_id: str, source: ImageSource, label: int) -> None:
        """Take one image."""
        self.ids.append(item_id)
        self.sources.append(source)
        self.labels.append(label)


def evaluation_split(there: Collection[str]) -> str | None:
    """The split that zero-shot classification is measured on: test, or val without a test."""
    return next((name for name in ("test", "val") if name in there), None)


def labelled_split(
    name: str, images: LabelledImages, classes: Sequence[str], there: Iterable[str], where: str
) -> Split:
    """A labelled split.

    Args:
        name: Name of the split.
        images: Its images.
        classes: K names, all different.
        there: All splits that the data set has, read or not.
        where: File or folder, for error lines.

    Raises:
        InputError: If there is no image.
    """
    if not images.ids:
        reason = first_reason(images.left_out)
        raise InputError(f"{where}: no image in split {name!r}; {reason}")
    columns = {
        "image": SourceColumn("image", images.ids, images.sources, labels=images.labels),
    }
    evaluated = name == evaluation_split(set(there))
    if evaluated:
        columns["prompt"] = prompt_column(classes)
    return Split(
        name=name,
        columns=columns,
        classes=list(classes),
        templates=list(TEMPLATES) if evaluated else [],
        left_out=images.left_out,
    )
