"""An index over a stream's rows, for sets that are too large to be looked through each time.

It needs faiss (the extra `faiss`), and lies beside the kept rows in RUN/projections; a file of
another run, or a damaged one, is not read. n items of a stream, D width, Q queries, k found ones.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cache.errors import InputError, RunError
from ..cache.stream import Stream
from ..train.aligner import Aligner
from ..train.run import Run
from ..train.weights import read_tensors
from .projections import keep, projected, rows_path

FEW_ITEMS = 10_000
"""Up to so many are looked through whole."""
PROBED, LEARNED = 64, 50
"""Of the index's lists, how many are looked into for a query; items a list that their centres are
learned from."""
INDEX = "index"


def require_faiss() -> Any:
    """The package faiss.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise InputError(
            "--index faiss: faiss is not installed; pip install 'cbmf[faiss]', or leave --index "
            "out for an exact search"
        ) from error
    return faiss


def indexed(
    run: Run, model: Aligner, encoder: int, stream: Stream, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and places of each query's k nearest items, nearly always the true ones.

    The index holds the rows in float16, parted into lists; it is made once and kept.

    Args:
        run: Whose folder keeps it.
        model: Of the run.
        encoder: Which of `model.encoders` the stream is of.
        stream: Complete, of the model's layout and width.
        queries: Unit rows, (Q, D) float32.
        k: At least 1.

    Returns:
        (Q, k) float32 and (Q, k) int64; a place is -1 where fewer were found.

    Raises:
        InputError: If faiss is not installed.
    """
    faiss = require_faiss()
    path = rows_path(run, model, encoder, stream).with_suffix(".faiss.safetensors")
    index = _read(faiss, path, len(stream), model.width)
    if index is None:
        index = _build(faiss, projected(run, model, encoder, stream).cpu().numpy())
        keep(path, {INDEX: torch.from_numpy(faiss.serialize_index(index))})
    cosines, places = index.search(np.ascontiguousarray(queries, np.float32), min(k, len(stream)))
    return cosines, places


def _build(faiss: Any, rows: np.ndarray) -> Any:
    """An index over rows (n, D) float32."""
    count, width = rows.shape
    half, product = faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    if count <= FEW_ITEMS:
        index = faiss.IndexScalarQuantizer(width, half, product)
    else:
        lists = 2 * math.isqrt(count)
        coarse = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFScalarQuantizer(coarse, width, lists, half, product)
        index.nprobe = PROBED
    some = np.random.default_rng(0).permutation(count)[: LEARNED * 2 * math.isqrt(count)]
    index.train(rows[np.sort(some)])
    index.add(rows)
    return index


def _read(faiss: Any, path: Path, count: int, width: int) -> Any | None:
    """The index in a file; None if it is absent or damaged, or of other rows."""
    try:
        whole = read_tensors(path)[0].get(INDEX)
        if whole is None or whole.dtype != torch.uint8:
            return None
        index = faiss.deserialize_index(whole.numpy())
    except (RunError, RuntimeError):  # faiss raises RuntimeError over what it cannot read
        return None
    return index if (index.ntotal, index.d) == (count, width) else None
