"""Which items of a batch are padded together. N items of a batch."""

from __future__ import annotations

import numpy as np

PART_TOKENS = {"cpu": 30, "cuda": 16_384}
"""What one part more costs by itself, in the tokens that could be computed instead: on a GPU, which
waits for each of its kernels to be launched, many."""
MOST_TOKENS = {"cpu": 2048, "cuda": 2**20}
"""Of a part, padding included: larger ones leave a processor's cache, or fill a GPU's memory."""


def parts_by_length(lengths: np.ndarray, device: str) -> list[np.ndarray]:
    """Part the items so that little is padded, in as few parts as that pays for.

    Args:
        lengths: Tokens of each item, (N,) int64.
        device: Type of the device that computes: `cpu` or `cuda`.

    Returns:
        Places of the items of each part, int64; every item is in one part.
    """
    if not len(lengths):
        return []
    order = np.argsort(lengths, kind="stable")
    distinct, counts = np.unique(lengths, return_counts=True)
    edges = np.concatenate([[0], np.cumsum(counts)])  # (distinct + 1,), in items
    cost = PART_TOKENS.get(device, PART_TOKENS["cuda"])
    least = np.zeros(len(edges))  # of all items shorter than a distinct length, in tokens
    cut = np.zeros(len(edges), np.int64)
    for end in range(1, len(edges)):
        tried = least[:end] + distinct[end - 1] * (edges[end] - edges[:end]) + cost
        cut[end] = int(tried.argmin())
        least[end] = tried[cut[end]]
    most = MOST_TOKENS.get(device, MOST_TOKENS["cuda"])
    parts: list[np.ndarray] = []
    end = len(distinct)
    while end:
        items = order[edges[cut[end]] : edges[end]]
        pieces = -(-len(items) * max(int(distinct[end - 1]), 1) // most)
        parts += reversed(np.array_split(items, min(pieces, len(items))))
        end = int(cut[end])
    return parts[::-1]
