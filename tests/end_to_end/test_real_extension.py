"""MobileNetV2, a convolutional encoder, joins a run of DeiT and MiniLM on real images."""

import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cbmf.cache.catalog import Cache
from cbmf.cli import app
from cbmf.evaluate.projection import project
from cbmf.evaluate.results import read_results
from cbmf.train.run import Run

SHARED = os.environ.get("CBMF_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(SHARED is None, reason="CBMF_REAL_DATA is not set"),
]
DEIT, MOBILE = "deit-tiny-patch16-224", "mobilenet-v2-1.0-224-torchvision"


def test_a_convolutional_encoder_joins_a_run_that_stays_as_it_is(tmp_path):
    shared = Path(SHARED or "")
    cache = ("--cache", str(tmp_path / "cache"))

    def cbmf(*words):
        done = CliRunner().invoke(app, [*map(str, words), *cache])
        assert done.exit_code == 0, done.output

    encoders = [("--text", "all-MiniLM-L6-v2"), ("--image", DEIT), ("--image", MOBILE)]
    named = [word for kind, name in encoders for word in (kind, shared / "weights" / name)]
    data = ("--root", shared / "data" / "flickr8k", "--limit", 100)
    cbmf("precompute", "flickr8k", *data, *named)
    plain = ("--epochs", 8, "--set", "batch_size=50", "--set", "baseline=false")
    cbmf("fit", "--left", DEIT, *plain, "--out", tmp_path / "base")
    cbmf("fit", "--extend", tmp_path / "base", "--add", MOBILE, "--out", tmp_path / "new")
    cbmf("evaluate", "retrieval", "--run", tmp_path / "new")
    base, new = Run.load(tmp_path / "base"), Run.load(tmp_path / "new")
    for place, column in enumerate(("image", "text")):
        name = base.model.encoders[place].name
        stream = Cache(tmp_path / "cache").find(base.dataset, "test", column, encoder=name)
        assert torch.equal(project(base.model, place, stream), project(new.model, place, stream))
    tables = [r for r in read_results(new.folder / "results") if r.protocol == "standard"]
    assert [table.encoders["image"] for table in tables] == [DEIT, MOBILE]
    for table in tables:
        model, chance = (
            table.row(kind).metrics["text_to_image/R@10"] for kind in ("model", "chance")
        )
        assert model > 2 * chance
