"""Rank of the best positive of each query, and what follows from ranks.

Q queries, C candidates, D width, P positives of all queries together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 2048
"""Queries, and candidates, whose scores are held at once: 16 MiB."""
TIE = 1e-6
"""Cosines closer than this are equal. Sums of float32 in another order differ by less, so two
copies of a candidate stay equal in whichever block they lie."""


@dataclass(frozen=True)
class Relation:
    """Some candidates of each query, in compressed rows."""

    offsets: np.ndarray
    """(Q + 1,) int64: query q has columns[offsets[q]:offsets[q + 1]]."""
    columns: np.ndarray
    """(P,) int64: candidates, ascending and all different within a query."""

    @classmethod
    def of_pairs(cls, queries: np.ndarray, candidates: np.ndarray, count: int) -> Relation:
        """The relation that pairs make; a pair that stands twice counts once.

        Args:
            queries: (P,) int64, each below `count`.
            candidates: (P,) int64.
            count: Q.
        """
        pairs = np.unique(np.stack([queries, candidates], axis=1).astype(np.int64), axis=0)
        offsets = np.searchsorted(pairs[:, 0], np.arange(count + 1))
        return cls(offsets.astype(np.int64), pairs[:, 1])

    @property
    def counts(self) -> np.ndarray:
        """(Q,) int64: candidates of each query."""
        return np.diff(self.offsets)

    def cells(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Row from 0, and column, of the entries of the queries start..stop-1."""
        rows = np.repeat(np.arange(stop - start), self.counts[start:stop])
        return rows, self.columns[self.offsets[start] : self.offsets[stop]]


def best_ranks(
    queries: Tensor,
    candidates: Tensor,
    positives: Relation,
    ignored: Relation | None = None,
    block: int = BLOCK,
) -> np.ndarray:
    """Rank of each query's best positive among the candidates, by inner product.

    Negatives that score the same as the best positive are not passed over: the rank is what the
    first positive of a randomly ordered tie has on average, rounded up. With p positives and t
    negatives in the tie that is t / (p + 1) places further back. Embeddings that are all alike thus
    get the rank that guessing gets, (C + 1) / (p + 1), and never 1.

    Scores are held for `block` x `block` at a time; no Q x C matrix is made.

    Args:
        queries: Unit rows, (Q, D) float32.
        candidates: Unit rows, (C, D) float32, on the same device.
        positives: At least one candidate of each query.
        ignored: Candidates that count neither for nor against a query (the query itself, where
            queries and candidates are of one set); none of them a positive.
        block: Queries and candidates at once.

    Returns:
        (Q,) int64, from 1.

    Raises:
        ValueError: If shapes do not fit, a query has no positive, or a value is not finite.
    """
    _check(queries, candidates, positives)
    best, tied = _best_scores(queries, candidates, positives, block)  # (Q,), (Q,)
    better, equal = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
    relations = [positives] if ignored is None else [positives, ignored]
    for start in range(0, len(queries), block):
        stop = min(start + block, len(queries))
        cells = [relation.cells(start, stop) for relation in relations]
        hidden = [np.concatenate(axis) for axis in zip(*cells, strict=True)]
        level = torch.from_numpy(best[start:stop, None]).to(queries.device)  # (block, 1)
        for first in range(0, len(candidates), block):
            scores = queries[start:stop] @ candidates[first : first + block].T  # (block, block)
            _hide(scores, hidden[0], hidden[1] - first)
            above = _count(scores > level + TIE)
            better[start:stop] += above
            equal[start:stop] += _count(scores >= level - TIE) - above
    return 1 + better - (-equal // (tied + 1))


def _check(queries: Tensor, candidates: Tensor, positives: Relation) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(
            f"queries {tuple(queries.shape)} and candidates {tuple(candidates.shape)} must be "
            "matrices of the same width"
        )
    if len(positives.offsets) != len(queries) + 1:
        raise ValueError(f"{len(positives.offsets) - 1} rows of positives, {len(queries)} queries")
    if not (positives.counts > 0).all():
        raise ValueError("every query needs at least one positive")
    if len(queries) and positives.columns.max() >= len(candidates):
        raise ValueError(f"a positive lies beyond the {len(candidates)} candidates")
    if not (queries.isfinite().all() and candidates.isfinite().all()):
        raise ValueError("embeddings must be finite; NaN has no rank")


def _best_scores(
    queries: Tensor, candidates: Tensor, positives: Relation, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score of each query's best positive, (Q,) float32, and how many positives score the same."""
    if not len(queries):
        return np.empty(0, np.float32), np.empty(0, np.int64)
    rows, columns = positives.cells(0, len(queries))
    scores = np.empty(len(columns), np.float32)  # (P,)
    for start in range(0, len(columns), block):
        part = slice(start, start + block)
        row, column = (torch.from_numpy(axis[part]).to(queries.device) for axis in (rows, columns))
        scores[part] = (queries[row] * candidates[column]).sum(1).cpu().numpy()
    best = np.maximum.reduceat(scores, positives.offsets[:-1])
    near = (scores >= best[rows] - TIE).astype(np.int64)
    return best, np.add.reduceat(near, positives.offsets[:-1])


def _count(cells: Tensor) -> np.ndarray:
    """True cells of each row, int64; NumPy counts bytes several times faster than torch does."""
    return np.count_nonzero(cells.cpu().numpy(), axis=1)


def _hide(scores: Tensor, rows: np.ndarray, columns: np.ndarray) -> None:
    """Set cells to minus infinity in place; columns outside the matrix are passed over."""
    inside = (columns >= 0) & (columns < scores.shape[1])
    row, column = (torch.from_numpy(a[inside]).to(scores.device) for a in (rows, columns))
    scores[row, column] = -torch.inf


def recall_at(ranks: np.ndarray, k: int) -> float:
    """Share of queries whose best positive is among the first k, 0 to 1 (recall@k of CLIP)."""
    return float((ranks <= k).mean())


def median_rank(ranks: np.ndarray) -> float:
    """Median of the ranks, from 1."""
    return float(np.median(ranks))


def mean_reciprocal_rank(ranks: np.ndarray) -> float:
    """Mean of 1 / rank, 0 to 1."""
    return float((1 / ranks).mean())


def chance_recall(positives: np.ndarray, candidates: np.ndarray, k: int) -> float:
    """Expected recall@k of a random order, 0 to 1.

    A query misses if none of its n positives is among the first k of N: C(N - n, k) / C(N, k),
    which is the product of (N - k - j) / (N - j) over j below n.

    Args:
        positives: n of each query, (Q,) int64, at least 1 and at most N.
        candidates: N of each query, (Q,) int64.
        k: Depth, at least 1.
    """
    missed = np.ones(len(positives))
    for j in range(int(positives.max(initial=0))):
        room = np.clip(candidates - k - j, 0, None) / np.maximum(candidates - j, 1)
        missed *= np.where(j < positives, room, 1.0)
    return float((1 - missed).mean())
