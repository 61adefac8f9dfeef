"""Small sets of sentence pairs, their text encoders, and cosines the slow way."""

import numpy as np
import torch
from tiny_caches import identity_of, spec_of

from cbmf.train.aligner import Aligner, EncoderSpec

PAIRS = [(0, 1), (2, 3), (1, 0), (4, 4), (5, 3)]


def text_encoder(name: str, pool: str | None = None) -> EncoderSpec:
    spec = spec_of(name, "text", "text")
    return EncoderSpec(spec.name, "text", "text", identity_of(name, pool), spec.width)


QUILL, TONGUE = text_encoder("quill"), text_encoder("tongue")


def vectors(seed: int, count: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 10)).astype(np.float32)


def by_hand(one: np.ndarray, two: np.ndarray, pairs: list[tuple[int, int]]) -> list[float]:
    """Cosines of left rows in one matrix with right rows in another."""
    return [
        float(one[i] @ two[j] / np.linalg.norm(one[i]) / np.linalg.norm(two[j])) for i, j in pairs
    ]


def embedded(model: Aligner, encoder: int, values: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        x = torch.from_numpy(values)[:, None]
        return model.encode(encoder, x, torch.ones(len(values), 1, dtype=torch.bool)).numpy()
