"""Parts of a split that a test knows to be there."""

from typing import cast

from cbmf.precompute.dataset import SourcePairs, Split
from cbmf.precompute.images import ImageSource


def pairs(split: Split) -> SourcePairs:
    assert split.pairs is not None
    return split.pairs


def pair_labels(split: Split) -> list[int]:
    labels = pairs(split).labels
    assert labels is not None
    return labels


def pair_scores(split: Split) -> list[float]:
    scores = pairs(split).scores
    assert scores is not None
    return scores


def images(split: Split) -> list[ImageSource]:
    return [cast(ImageSource, source) for source in split.columns["image"].values]


def labels(split: Split) -> list[int]:
    found = split.columns["image"].labels
    assert found is not None
    return found
