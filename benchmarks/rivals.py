"""What else one would run on the same vectors, written from descriptions; none of it is their code.

B pairs of a batch, L tokens, d width of an encoder, D shared width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from cbmf.cache.stream import Stream
from cbmf.train.pairs import PairTable

CLAMP = (0.01, 20.0)
"""Of the released code's temperature parameter; cosines are multiplied by its exponential."""


class Hdf5Pairs(Dataset[tuple[np.ndarray, np.ndarray]]):
    """(a) Pooled vectors read from the shards an item at a time, as tutorials on h5py do it.

    An item is an image with one of its captions, drawn anew, as in an epoch of ours. Files are
    opened by the process that reads them.
    """

    def __init__(self, left: Stream, right: Stream, table: PairTable) -> None:
        self.streams, self.table = (left, right), table
        self.files: dict[Path, h5py.Dataset] = {}
        self.starts = [
            np.cumsum(
                [0, *(stream.manifest.shards[k].items for k in range(stream.manifest.planned))]
            )
            for stream in self.streams
        ]

    def __len__(self) -> int:
        return len(self.table.left)

    def __getitem__(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        first, end = self.table.starts[place : place + 2]
        pair = int(torch.randint(int(first), int(end), ()))
        return self._read(0, self.table.left[place]), self._read(1, self.table.right[pair])

    def _read(self, side: int, position: int) -> np.ndarray:
        stream, starts = self.streams[side], self.starts[side]
        number = int(np.searchsorted(starts, position, side="right")) - 1
        row = int(position - starts[number])
        path = stream.path / stream.manifest.shards[number].name
        if path not in self.files:
            self.files[path] = h5py.File(path, "r")["pooled"]
        return self.files[path][row].astype(np.float32)


class RepeatedPairs(Dataset[tuple[Tensor, Tensor]]):
    """(b) Ready tensors, one pair an item: the image again for each of its captions."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return self.left[place], self.right[place]


def loader_batches(pairs: RepeatedPairs, batch_size: int) -> Iterator[Sequence[Tensor]]:
    """An epoch by torch's DataLoader, item by item."""
    return iter(DataLoader(pairs, batch_size, shuffle=True))


def indexed_batches(pairs: RepeatedPairs, batch_size: int) -> Iterator[Sequence[Tensor]]:
    """An epoch in which a batch is taken at once: kinder than what was released."""
    for places in torch.randperm(len(pairs)).split(batch_size):
        yield pairs.left[places], pairs.right[places]


class ReleasedModel(nn.Module):
    """(b) The released model with additive fusion, of torch's own modules.

    Projection heads (Linear, GELU, Linear, Dropout, LayerNorm), a context of 3 numbers an encoder
    through a shared MLP, LayerNorm, one TransformerEncoderLayer of torch's defaults, a residual
    around both, the mean over all tokens, padding included.
    """

    def __init__(self, left: int, right: int, width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(d, width),
                nn.GELU(),
                nn.Linear(width, width),
                nn.Dropout(0.1),
                nn.LayerNorm(width),
            )
            for d in (left, right)
        )
        self.contexts = nn.ParameterList(0.35 * torch.randn(1, 3) for _ in range(2))
        self.context_mlp = nn.Sequential(
            nn.Linear(3, 64),
            nn.ReLU(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, width),
            nn.LayerNorm(width),
        )
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(width, 4, batch_first=True)
        self.block = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.temperature = nn.Parameter(torch.tensor(0.07))

    def encode(self, side: int, values: Tensor) -> Tensor:
        """(B, L, d) -> unit rows (B, D)."""
        context = self.context_mlp(self.contexts[side])  # (1, D)
        fused = self.heads[side](values) + context[:, None]  # (B, L, D)
        return F.normalize((fused + self.block(self.norm(fused))).mean(1), dim=-1)

    def loss(self, left: Tensor, right: Tensor) -> Tensor:
        """Symmetric cross-entropy with hard targets."""
        scale = self.temperature.clamp(*CLAMP).exp()
        return info_nce(self.encode(0, left), self.encode(1, right), scale)


def info_nce(left: Tensor, right: Tensor, scale: Tensor | float) -> Tensor:
    """Mean of both directions; row i is the partner of row i. (B, D) each."""
    logits = scale * left @ right.T  # (B, B)
    partner = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2


def released_epoch(
    model: ReleasedModel, optimizer: torch.optim.Optimizer, batches: Iterator[Sequence[Tensor]]
) -> float:
    """The author's loop over an epoch's batches: plain, with the loss fetched every step."""
    model.train()
    total, count = 0.0, 0
    for left, right in batches:
        loss = model.loss(left, right)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(left)
        count += len(left)
    return total / count


def released_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW with what was released for all that is trained."""
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)


class FuseMix(nn.Module):
    """(c) FuseMix (Vouitsis et al. 2024): an MLP of inverted bottlenecks each side, a projection.

    LayerNorm, Linear to four times the width, GELU, Dropout 0.6, Linear back, with a residual.
    """

    def __init__(self, left: int, right: int, blocks: int = 4, width: int = 512) -> None:
        super().__init__()
        self.sides = nn.ModuleList(
            nn.Sequential(*(Bottleneck(d) for _ in range(blocks)), nn.Linear(d, width))
            for d in (left, right)
        )
        self.temperature = nn.Parameter(torch.tensor(0.07))

    def loss(self, left: Tensor, right: Tensor) -> Tensor:
        """Of 2B pairs, mixed half with half by one share for both sides: B pairs remain."""
        share = float(np.random.beta(1.0, 1.0))
        left, right = (
            share * one + (1 - share) * two for one, two in (_halves(left), _halves(right))
        )
        one, two = F.normalize(self.sides[0](left)), F.normalize(self.sides[1](right))
        return info_nce(one, two, 1 / self.temperature.clamp(0.001, 0.5))


class Bottleneck(nn.Module):
    """A block of FuseMix's MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(0.6),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, d) -> (B, d)."""
        return x + self.layers(x)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    half = len(x) // 2
    return x[:half], x[half : 2 * half]


def fusemix_optimizer(model: FuseMix) -> torch.optim.Optimizer:
    """AdamW, 0.1 decay on matrices."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999))


def plain_step(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Backward, and new weights."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
