"""What the demo's picture encoder knows: a linear probe on labelled scenes, beside random weights.

python -m benchmarks.demo_encoders
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cbmf.precompute.datasets.registry import read_dataset
from cbmf.precompute.encoders import EncoderOptions, FrozenEncoder
from cbmf.precompute.images import ImageSource
from cbmf.precompute.scenes import write_demo


def main() -> None:
    """Print the accuracy of a probe on the trained and on a random encoder."""
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder), train=1, val=1, test=1, sentences=2)
        splits = {s.name: s for s in read_dataset("imagefolder", Path(folder) / "scenes10").splits}
        encoder = FrozenEncoder("demo-vit", "image", EncoderOptions())
        for name in ("pretrained", "random"):
            if name == "random":
                torch.manual_seed(0)
                encoder.model = type(encoder.model)(encoder.model.config, add_pooling_layer=False)
                encoder.model.eval()
            found = {}
            for split in ("train", "test"):
                column = splits[split].columns["image"]
                sources = cast("Sequence[ImageSource]", column.values)
                pixels = np.stack([encoder.preprocess(source.open()) for source in sources])
                found[split] = encoder.encode_images(torch.from_numpy(pixels)).pooled, column.labels
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
            accuracy = probe.fit(*found["train"]).score(*found["test"])
            print(f"{name}: {accuracy:.3f} of {len(found['test'][1] or [])} pictures, 10 classes")


if __name__ == "__main__":
    main()
