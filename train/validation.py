"""Validation loss and recall of a model on held-out pairs.

N left items, M right items, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from .aligner import Aligner
from .batches import Batch, epoch_batches
from .config import FitConfig
from .data import PairedBanks
from .encoding import encode_items
from .loss import contrastive_loss
from .model_config import LossConfig
from .pairs import PairTable

RECALL_DEPTHS = (1, 5, 10)
QUERY_BLOCK = 512
"""Queries whose scores are held at once."""


@dataclass(frozen=True)
class Links:
    """What groups alone do not tell of N left and M right items, each (K, 2) int64: left, right."""

    partners: Tensor
    """Pairs that lead from group to group."""
    same: Tensor
    """One item on both sides, which is no candidate of itself."""

    def flipped(self) -> Links:
        """The same, seen from the right."""
        return Links(self.partners.flip(1), self.same.flip(1))


def batch_loss(
    left: Tensor, right: Tensor, batch: Batch, scale: Tensor, config: LossConfig
) -> Tensor:
    """The contrastive loss of a batch whose items have been encoded, a scalar in nats."""
    crossing = batch.right_group is not None  # pairs lead from group to group
    alone = len(np.unique(batch.group)) == len(batch.group) and not crossing
    group = None if alone else _tensor(batch.group, left)
    right_group = None if batch.right_group is None else _tensor(batch.right_group, left)
    owner = _tensor(batch.owner, left)
    return contrastive_loss(left, right, owner, group, scale, config, right_group)


def encoder_pairs(sides: Sequence[int], held: int = 0) -> list[tuple[int, int]]:
    """Every two encoders, a left one before a right one; none of two that are held.

    Args:
        sides: Of each encoder, 0 for left and 1 for right.
        held: How many of the first are held.
    """
    both = [pair for pair in combinations(range(len(sides)), 2) if pair[1] >= held]
    return [(one, two) if sides[one] <= sides[two] else (two, one) for one, two in both]


def mean_loss(
    rows: Sequence[Tensor],
    sides: Sequence[int],
    held: int,
    batch: Batch,
    scale: Tensor,
    config: LossConfig,
) -> Tensor:
    """The mean of the contrastive losses of every two encoders, a scalar in nats.

    Two encoders of different sides are compared over the pairs; two of one side over the items of
    that side, each with itself.

    Args:
        rows: Of each encoder the unit rows of the batch's items of its side, (B or C, D).
        sides: Of each encoder, 0 for left and 1 for right.
        held: How many of the first encoders do not learn: no loss between them.
        batch: What the items are.
        scale: 1 / tau, above 0.
        config: Of the loss.
    """
    losses = []
    for one, two in encoder_pairs(sides, held):
        compared = batch if sides[one] != sides[two] else batch.within(sides[one])
        losses.append(batch_loss(rows[one], rows[two], compared, scale, config))
    return losses[0] if len(losses) == 1 else torch.stack(losses).mean()


@torch.inference_mode()
def validate(model: Aligner, data: PairedBanks, config: FitConfig) -> dict[str, float]:
    """Loss in nats and recalls (shares, 0 to 1) of the model in evaluation mode.

    The loss is that of training, over fixed batches of the same size. Of pairs of one column no
    text finds itself, as the other encoder sees it, unless it is paired with itself. With more than
    two encoders each recall is the mean over every two of different sides; encoders that are held
    are not compared with each other.
    """
    was_training = model.training
    model.eval()
    table = data.table
    rights, place = np.unique(table.right, return_inverse=True)
    rows = [
        encode_items(model, encoder, bank, positions)  # (N or M, D)
        for encoder, (bank, positions) in enumerate(data.items(table.left, rights))
    ]
    model.train(was_training)
    like, scale, held = rows[0], model.temperature.scale(), model.held
    total, pairs = torch.zeros((), device=like.device), 0
    for batch in epoch_batches(table, config, epoch=0):
        at = (np.searchsorted(table.left, batch.left), np.searchsorted(rights, batch.right))
        taken = [each[_tensor(at[side], like)] for each, side in zip(rows, data.sides, strict=True)]
        loss = mean_loss(taken, data.sides, held, batch, scale, config.loss)
        total += loss * len(batch.owner)
        pairs += len(batch.owner)
    kind = np.empty(len(rights), np.int64)
    kind[place] = table.group[table.owner] if table.right_group is None else table.right_group
    links = _links(table, rights, place, like)
    groups = _tensor(table.group, like), _tensor(kind, like)
    found = [
        recall(rows[one], rows[two], *groups, links)
        for one, two in encoder_pairs(data.sides, held)
        if data.sides[one] != data.sides[two]
    ]
    recalls = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
    mean = sum(recalls.values()) / len(recalls)
    return {"val_loss": total.item() / pairs, "val_recall": mean, **recalls}


def _links(table: PairTable, rights: np.ndarray, place: np.ndarray, like: Tensor) -> Links | None:
    """Of a table's left items and its M right ones (positions, ascending); `place` of each pair's.

    None where the groups tell everything.
    """
    if table.itself is None:
        return None
    crossing = table.right_group is not None
    partners = np.stack([table.owner, place], axis=1) if crossing else np.empty((0, 2), np.int64)
    one = np.flatnonzero(np.isin(table.itself, rights))  # -1 is in no bank
    same = np.stack([one, np.searchsorted(rights, table.itself[one])], axis=1)
    return Links(_tensor(partners, like), _tensor(same, like))


def recall(
    left: Tensor,
    right: Tensor,
    left_group: Tensor,
    right_group: Tensor,
    links: Links | None = None,
) -> dict[str, float]:
    """Share of queries with a partner among the first 1, 5 and 10 candidates, in both directions.

    Members of a query's own group are its partners; the best of them counts. A candidate with the
    partner's very score ranks before it, so that a model that makes all alike scores nothing.

    Args:
        left: Unit rows, (N, D).
        right: Unit rows, (M, D).
        left_group: (N,) int64.
        right_group: (M,) int64.
        links: Partners and the items themselves, where groups do not tell.

    Returns:
        `left_to_right_r1` and so on, 0 to 1.
    """
    forth = _ranks(left, right, left_group, right_group, links)
    back = _ranks(right, left, right_group, left_group, links and links.flipped())
    return {
        f"{name}_r{depth}": (rank < depth).double().mean().item()
        for name, rank in (("left_to_right", forth), ("right_to_left", back))
        for depth in RECALL_DEPTHS
    }


def _ranks(
    query: Tensor, candidate: Tensor, of_query: Tensor, of_candidate: Tensor, links: Links | None
) -> Tensor:
    """Candidates before the best partner of each query: (N, D), (M, D) -> (N,) int32."""
    ranks = []
    for first in range(0, len(query), QUERY_BLOCK):
        scores = query[first : first + QUERY_BLOCK] @ candidate.T  # (block, M)
        other = of_query[first : first + QUERY_BLOCK, None] != of_candidate[None]
        if links is not None:
            other[_within(links.partners, first)] = False
            same = _within(links.same, first)
            other[same], scores[same] = False, -torch.inf
        best = scores.masked_fill(other, -torch.inf).amax(1, keepdim=True)
        ranks.append(((scores >= best) & other).sum(1, dtype=torch.int32))
    return torch.cat(ranks)


def _within(links: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Rows, counted from `first`, and columns of the links (K, 2) of a block of queries."""
    inside = links[(links[:, 0] >= first) & (links[:, 0] < first + QUERY_BLOCK)]
    return inside[:, 0] - first, inside[:, 1]


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)
