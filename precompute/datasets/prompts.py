"""Class names as texts: the bare name, then the 18 templates that CLIP uses for CIFAR."""

from __future__ import annotations

from collections.abc import Sequence

from ..dataset import SourceColumn

_PHRASES = (
    "a photo of {} {{}}.",
    "a blurry photo of {} {{}}.",
    "a black and white photo of {} {{}}.",
    "a low contrast photo of {} {{}}.",
    "a high contrast photo of {} {{}}.",
    "a bad photo of {} {{}}.",
    "a good photo of {} {{}}.",
    "a photo of {} small {{}}.",
    "a photo of {} big {{}}.",
)

TEMPLATES: tuple[str, ...] = (
    "{}",
    *(phrase.format(article) for article in ("a", "the") for phrase in _PHRASES),
)
"""The bare name first; `{}` stands for the name of the class."""


def prompt_column(classes: Sequence[str]) -> SourceColumn:
    """Every class in every template: K classes x T templates texts, ids `<class>/<template>`.

    Args:
        classes: K names, all different.
    """
    ids: list[str] = []
    texts: list[str] = []
    labels: list[int] = []
    templates: list[int] = []
    for label, name in enumerate(classes):
        for number, template in enumerate(TEMPLATES):
            ids.append(f"{name}/{number}")
            texts.append(template.replace("{}", name))
            labels.append(label)
            templates.append(number)
    groups = [classes[label] for label in labels]
    return SourceColumn("text", ids, texts, groups, labels, templates)
