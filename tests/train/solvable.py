"""Pairs of vectors in memory, for methods that are solved."""

import numpy as np
import torch

from cbmf.train.aligner import EncoderSpec
from cbmf.train.bank import Bank
from cbmf.train.paired import PairedBanks
from cbmf.train.pairs import PairTable


def specs(*widths):
    names = (("vit", "image"), ("bert", "text"), ("roberta", "text"))
    return [
        EncoderSpec(name, kind, kind, name[0] * 64, width)
        for (name, kind), width in zip(names, widths, strict=False)
    ]


def pairs_of(left, right):
    """Left vector i with right vector i, (N, d) and (N, e)."""
    rows = np.arange(len(left))
    banks = (Bank(rows, torch.from_numpy(v.astype(np.float32)), None) for v in (left, right))
    table = PairTable(left=rows, starts=np.arange(len(left) + 1), right=rows, group=rows)
    return PairedBanks(*banks, table)


def related(count, hidden=3, widths=(6, 5), noise=0.5, seed=0):
    """Two views of hidden causes, (N, d) and (N, e), neither of mean 0."""
    random = np.random.default_rng(seed)
    cause = random.normal(size=(count, hidden))
    return [
        cause @ random.normal(size=(hidden, width))
        + noise * random.normal(size=(count, width))
        + random.normal(size=width)
        for width in widths
    ]


def encode(model, encoder, vectors):
    """Unit rows, (N, D), of vectors (N, d)."""
    values = torch.from_numpy(np.asarray(vectors, dtype=np.float32))[:, None]
    with torch.no_grad():
        return model.eval().encode(encoder, values, torch.ones(values.shape[:2], dtype=torch.bool))
