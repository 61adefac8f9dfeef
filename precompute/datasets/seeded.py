"""Splits for data sets that come without: by a hash of each item's id, the same on every machine.

The hash alone decides, so a data set that grows never moves an item from one split to another
(save among so few that a split would have been empty).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..dataset import hash_key

GIANT_SHARE = 0.05
GIANT_PAIRS = 100
"""A group of texts with more of the pairs than both goes to train: it would swamp another split."""


def seeded_splits(
    keys: Iterable[str], shares: Mapping[str, float], seed: int = 0
) -> dict[str, str]:
    """The split of each key.

    Args:
        keys: Ids of images, or of groups of texts.
        shares: Share of each split, together 1, the largest first.
        seed: Another one gives other splits.

    Returns:
        By key, the name of its split. No split is empty when there are as many keys as splits;
        fewer keys all go to the first split.
    """
    points = {key: _point(key, seed) for key in keys}
    if len(points) < len(shares):
        return dict.fromkeys(points, next(iter(shares)))
    split_of = {key: _split_at(point, shares) for key, point in points.items()}
    for empty in [name for name in shares if name not in split_of.values()]:
        sizes = Counter(split_of.values())
        donor = max(shares, key=lambda name: sizes[name])
        moved = max((k for k in points if split_of[k] == donor), key=lambda k: (points[k], k))
        split_of[moved] = empty
    return split_of


def splits_with_rest(
    usable: Iterable[str], rest: Iterable[str], shares: Mapping[str, float], seed: int = 0
) -> dict[str, str]:
    """As `seeded_splits` of the usable keys; the rest, to be left out, go to the first split."""
    return dict.fromkeys(rest, next(iter(shares))) | seeded_splits(usable, shares, seed)


def _point(key: str, seed: int) -> float:
    return int.from_bytes(hash_key(f"split{seed or ''}\0{key}"), "big") / 2**64


def _split_at(point: float, shares: Mapping[str, float]) -> str:
    end = 0.0
    for name, share in shares.items():
        end += share
        if point < end:
            return name
    return next(reversed(list(shares)))


def seeded_pair_splits(
    pairs: Sequence[tuple[str, str]], shares: Mapping[str, float], seed: int = 0
) -> list[str]:
    """The split of each pair of texts, such that no text stands in two splits.

    Texts that are joined by pairs, directly or over others, stay together. A giant group of them
    goes to the first split.

    Args:
        pairs: P pairs of text ids.
        shares: Share of each split, together 1, the largest first.
        seed: Another one gives other splits.
    """
    group_of = _groups(pairs)
    groups = [group_of[left] for left, _ in pairs]
    sizes = Counter(groups)
    limit = max(GIANT_PAIRS, GIANT_SHARE * len(pairs))
    split_of = seeded_splits((g for g, size in sizes.items() if size <= limit), shares, seed)
    first = next(iter(shares))
    return [split_of.get(group, first) for group in groups]


def _groups(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """By text id, the smallest id among all texts that it is joined with (union-find)."""
    parent: dict[str, str] = {}

    def top(item: str) -> str:
        while parent.setdefault(item, item) != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for left, right in pairs:
        low, high = sorted((top(left), top(right)))
        parent[high] = low
    return {item: top(item) for item in list(parent)}
