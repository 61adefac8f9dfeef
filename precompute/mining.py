"""Mining pairs of texts that mean the same, from their sentence vectors (paper, IV.B).

N texts, D width, P pairs. No N x N matrix is ever held.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache.errors import InputError

DEFAULT_MINER = "sentence-transformers/all-MiniLM-L6-v2"
CANDIDATES = ("image", "all")
DEFAULT_PARTNERS = 5
QUERY_BLOCK, CANDIDATE_BLOCK = 1024, 16_384
"""Texts whose scores are held at once: 64 MiB."""

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class MiningOptions:
    """Which texts make a pair."""

    miner: str = DEFAULT_MINER
    """Sentence encoder: hub name or folder. Its vector of a text is the mean over its tokens."""
    threshold: float = 0.7
    """Cosine from which on two texts are a pair, -1 to 1."""
    candidates: str = "image"
    """`image`: texts of one image, as in the author's code; `all`: any two texts of a split."""
    partners: int | None = None
    """With `all`, the best partners that each text brings; None: 5."""
    identity: bool = False
    """Whether each text is a pair with itself too, as in the author's code."""

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise InputError(f"--threshold is a cosine from -1 to 1, got {self.threshold}")
        if self.candidates not in CANDIDATES:
            raise InputError(
                f"--candidates {self.candidates!r} is unknown; choose one of "
                f"{', '.join(CANDIDATES)}"
            )
        if self.partners is not None and self.candidates != "all":
            raise InputError("--partners goes with --candidates all; add it, or leave --partners")
        if self.partners is not None and self.partners < 1:
            raise InputError(f"--partners must be at least 1, got {self.partners}")

    def record(self, miner: str, miner_identity: str) -> str:
        """How pairs were mined, as `Pairs.mined` has it.

        Args:
            miner: Short name of the sentence encoder.
            miner_identity: `Stream.identity` of its vectors.
        """
        table = {
            "miner": miner,
            "miner_identity": miner_identity,
            "threshold": self.threshold,
            "candidates": self.candidates,
            "partners": self._partners() if self.candidates == "all" else None,
            "identity": self.identity,
        }
        return json.dumps(table, sort_keys=True)

    def _partners(self) -> int:
        return self.partners or DEFAULT_PARTNERS

    def mine(
        self,
        vectors: np.ndarray,
        groups: np.ndarray,
        device: torch.device,
        report: Report = lambda done, total: None,
    ) -> np.ndarray:
        """The pairs among N texts, as places in `vectors`.

        Args:
            vectors: (N, D) float32, of any length above 0.
            groups: (N,) int64, equal for texts of one image.
            device: Where scores are computed.
            report: Called now and then with how many texts are compared, of how many.

        Returns:
            (P, 2) int64, each unordered pair once: sorted, left place at most the right one.
        """
        unit = F.normalize(torch.from_numpy(vectors).float().to(device), dim=1)
        if self.candidates == "image":
            pairs = _within_groups(unit, groups, self.threshold)
        else:
            pairs = _nearest(unit, self.threshold, self._partners(), report)
        own = np.repeat(np.arange(len(vectors))[:, None], 2 if self.identity else 0, axis=1)
        found = np.concatenate([pairs, own.reshape(-1, 2)])
        return np.unique(np.sort(found, axis=1), axis=0)


@dataclass(frozen=True)
class Mined:
    """What was mined of a split."""

    split: str
    threshold: float
    texts: int
    pairs: int
    """Unordered pairs, those of a text with itself apart."""
    identity: int
    """Pairs of a text with itself."""
    paired: int
    """Texts with a partner other than themselves."""

    @classmethod
    def of(cls, split: str, threshold: float, rows: np.ndarray, texts: int) -> Mined:
        """The tally of P pairs (P, 2) of so many texts."""
        others = rows[rows[:, 0] != rows[:, 1]]
        same = len(rows) - len(others)
        return cls(split, threshold, texts, len(others), same, len(np.unique(others)))


def _within_groups(unit: Tensor, groups: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs of one group from a cosine on, (P, 2): each text with the next, the second next..."""
    order = np.argsort(groups, kind="stable")
    kind, found = groups[order], [np.empty((0, 2), np.int64)]
    for step in range(1, int(np.unique(kind, return_counts=True)[1].max(initial=0))):
        places = np.flatnonzero(kind[step:] == kind[:-step])
        rows = np.stack([order[places], order[places + step]], axis=1)
        found += [block[_cosines(unit, block) >= threshold] for block in _blocks(rows)]
    return np.concatenate(found)


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // CANDIDATE_BLOCK) or 1)


def _cosines(unit: Tensor, rows: np.ndarray) -> np.ndarray:
    """(P,) float32, of pairs (P, 2)."""
    left, right = (unit[torch.from_numpy(side).to(unit.device)] for side in rows.T)
    return (left * right).sum(1).cpu().numpy()


def _nearest(unit: Tensor, threshold: float, partners: int, report: Report) -> np.ndarray:
    """Each text with its best partners from a cosine on, (P, 2); exact, in blocks."""
    found = [np.empty((0, 2), np.int64)]
    for first in range(0, len(unit), QUERY_BLOCK):
        query = unit[first : first + QUERY_BLOCK]
        scores, places = _best(query, first, unit, partners)
        row, column = (scores >= threshold).nonzero(as_tuple=True)
        found.append(torch.stack([row + first, places[row, column]], dim=1).cpu().numpy())
        report(first + len(query), len(unit))
    return np.concatenate(found)


def _best(query: Tensor, first: int, unit: Tensor, partners: int) -> tuple[Tensor, Tensor]:
    """Cosines and places of the best partners of each of B texts, themselves apart, (B, K)."""
    scores = query.new_empty(len(query), 0)
    places = torch.empty(len(query), 0, dtype=torch.int64, device=unit.device)
    own = torch.arange(first, first + len(query), device=unit.device)[:, None]  # (B, 1)
    for start in range(0, len(unit), CANDIDATE_BLOCK):
        block = unit[start : start + CANDIDATE_BLOCK]
        here = torch.arange(start, start + len(block), device=unit.device)[None]  # (1, block)
        cosines = (query @ block.T).masked_fill(own == here, -torch.inf)  # (B, block)
        best, at = cosines.topk(min(partners, len(block)), dim=1)
        scores, places = torch.cat([scores, best], 1), torch.cat([places, at + start], 1)
        scores, kept = scores.topk(min(partners, scores.shape[1]), dim=1)
        places = places.gather(1, kept)
    return scores, places
