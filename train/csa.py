"""CSA: canonical correlation analysis of the pairs, and a cosine weighted by the correlations.

B items, L tokens an item, N pairs, d_in width of an encoder (d and e of the two), S directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .aligner import EncoderSpec
from .config import FitConfig
from .model_config import ModelConfig
from .paired import PairedBanks
from .solved import Solved
from .streaming import StreamedPairs

SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625)
"""Of all directions, how many are kept: those that validation chooses among."""
FLAT = 1e-10
"""A variance below this share of the largest is none: its direction cannot be brought to 1."""


class CSA(Solved):
    """Canonical similarity analysis (Li et al., ICLR 2025).

    Both sides go into the directions of canonical correlation; of the first s of them, those of the
    highest correlations, the similarity is sum_i rho_i a_i b_i / (|a| |b|). For unit rows whose
    cosine is just that, each a_i is weighted with sqrt(rho_i), and what its length then lacks
    stands in a feature of its own side, where the other side has 0.
    """

    method = "csa"
    correlations: Tensor

    def __init__(self, encoders: Sequence[EncoderSpec], config: ModelConfig) -> None:
        """Without a solution: every two rows are orthogonal.

        Of the configuration layout, width (directions at most), standardise and the temperature
        matter. D is S + 2.
        """
        super().__init__(encoders, config)
        directions = min(config.width, *(spec.width for spec in encoders))
        self.heads = nn.ModuleList(nn.Linear(spec.width, directions) for spec in encoders)
        self.register_buffer("correlations", torch.zeros(directions))  # (S,)
        self.width = directions + len(encoders)

    def features(self, encoder: int, values: Tensor, mask: Tensor) -> Tensor:
        """Weighted canonical variates and what they lack, (B, D) float32; see Aligner.features."""
        a = self.heads[encoder](self.mean(encoder, values, mask)).float()  # (B, S)
        lacking = ((1 - self.correlations) * a.square()).sum(1, keepdim=True)  # (B, 1)
        beside = torch.zeros(len(a), len(self.encoders), device=a.device)
        beside[:, encoder] = 1
        lengths = lacking.clamp(min=torch.finfo(a.dtype).tiny).sqrt()
        return torch.cat([self.correlations.sqrt() * a, lengths * beside], dim=1)

    def solutions(
        self, train: PairedBanks | StreamedPairs, config: FitConfig
    ) -> Iterator[dict[str, float]]:
        """Solve once, then keep fewer and fewer of the directions."""
        mean, covariance = self._moments(train, config)
        left = self.encoders[0].width
        solution = canonical_directions(covariance, left)
        means = mean[:left], mean[left:]
        most = len(self.correlations)
        for kept in dict.fromkeys(max(1, round(share * most)) for share in SHARES):
            self.take(means, *solution, kept)
            yield {"directions": float(kept)}

    @torch.no_grad()
    def take(
        self,
        means: tuple[Tensor, Tensor],
        directions: tuple[Tensor, Tensor],
        correlations: Tensor,
        kept: int,
    ) -> None:
        """Take over a solution.

        Args:
            means: Of both sides, (d,) and (e,) float64.
            directions: Of both sides, (d, R) and (e, R) float64, best first.
            correlations: (R,) float64, descending.
            kept: How many directions count, at most S; all others are set to 0.
        """
        kept = min(kept, len(correlations))
        self.correlations.zero_()[:kept] = correlations[:kept].clamp(0, 1).float()
        for head, mean, matrix in zip(self.heads, means, directions, strict=True):
            assert isinstance(head, nn.Linear)
            head.weight.zero_()[:kept] = matrix[:, :kept].T.float()
            head.bias.zero_()[:kept] = -(mean @ matrix[:, :kept]).float()

    @torch.no_grad()
    def _moments(
        self, train: PairedBanks | StreamedPairs, config: FitConfig
    ) -> tuple[Tensor, Tensor]:
        """Mean (d + e,) and covariance (d + e, d + e) of pairs side by side, float64."""
        width = sum(spec.width for spec in self.encoders)
        device = self.temperature.log_scale.device
        count, total = 0, torch.zeros(width, dtype=torch.float64, device=device)
        square = torch.zeros(width, width, dtype=torch.float64, device=device)
        for banks, batch in train.batches(config, epoch=0):
            owner = torch.from_numpy(batch.owner).to(device)
            left = self.means(0, banks.left, batch.left)[owner]
            pairs = torch.cat([left, self.means(1, banks.right, batch.right)], dim=1).double()
            count += len(pairs)
            total += pairs.sum(0)
            square += pairs.T @ pairs
        mean = total / count
        return mean, square / count - torch.outer(mean, mean)


def canonical_directions(covariance: Tensor, left: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Canonical correlation analysis: whitened, the covariance across has a diagonal.

    Args:
        covariance: Of both sides together, (d + e, d + e) float64.
        left: d.

    Returns:
        Directions of both sides, (d, R) and (e, R), in which both have variance 1 and are not
        correlated but for equal places; and those correlations, (R,), descending. R is the lower
        of both sides' ranks.
    """
    one = _whitening(covariance[:left, :left])  # (d, r)
    two = _whitening(covariance[left:, left:])  # (e, q)
    u, correlations, v = torch.linalg.svd(one.T @ covariance[:left, left:] @ two, False)
    return (one @ u, two @ v.T), correlations


def _whitening(covariance: Tensor) -> Tensor:
    """(d, r): directions of variance 1 that are not correlated; r is the rank."""
    variances, directions = torch.linalg.eigh(covariance)
    there = variances > FLAT * variances.max()
    return directions[:, there] / variances[there].sqrt()
