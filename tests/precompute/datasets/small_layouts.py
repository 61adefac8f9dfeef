"""Small real files for layouts, and what the cache would keep of what is read from them."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cbmf.precompute.dataset import Split, arrange


def picture(path: Path) -> Path:
    """Write a small real image, folders and all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (len(path.name) * 7 % 256, 90, 30)).save(path)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def arranged(split: Split) -> dict[str, Any]:
    """All that the cache keeps of a split, by value."""
    ordered, pairs = arrange(split)
    columns = {
        name: (c.ids, [getattr(v, "name", v) for v in c.values], c.groups, c.labels)
        for name, c in ordered.columns.items()
    }
    if pairs is None:
        return {"columns": columns}
    table = [None if a is None else a.tolist() for a in (pairs.labels, pairs.scores)]
    return {"columns": columns, "rows": pairs.rows.tolist(), "judged": table}


def shuffled(items: list[Any]) -> list[Any]:
    mixed = list(items)
    random.Random(3).shuffle(mixed)
    assert mixed != items
    return mixed


def cifar_values(count: int) -> np.ndarray:
    """N rows of 3072 values: red is the row's number, green 100, blue 200, one white corner."""
    values = np.zeros((count, 3, 32, 32), np.uint8)
    values[:, 0] = np.arange(count)[:, None, None]
    values[:, 1], values[:, 2] = 100, 200
    values[:, :, 0, 31] = 255
    return values.reshape(count, 3072)
