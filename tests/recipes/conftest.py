"""A small run on drawn pictures, made by the three stages, with the encoders that are shipped."""

import pytest
import torch

from cbmf.cache.catalog import Cache
from cbmf.evaluate.suite import evaluate
from cbmf.precompute.encoders import EncoderOptions
from cbmf.precompute.pipeline import PrecomputeOptions
from cbmf.precompute.scenes import write_demo
from cbmf.precompute.stage import Request, precompute
from cbmf.train.config import preset
from cbmf.train.fit import fit

SMALL = {"epochs": 3, "width": 32, "ffn_width": 64, "batch_size": 32}


class Quiet:
    """Hears everything, says nothing."""

    def __getattr__(self, name):
        return lambda *args, **options: None


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Folder of the drawn data sets."""
    root = tmp_path_factory.mktemp("drawn")
    write_demo(root, train=60, val=16, test=20, labelled_train=2, labelled_test=2, sentences=4)
    return root


@pytest.fixture(scope="session")
def maker(drawn, tmp_path_factory):
    """Cache and run of a layout, made once."""
    made = {}

    def make(layout):
        if layout not in made:
            folder = tmp_path_factory.mktemp(layout)
            options = EncoderOptions(layout=layout, grid=4 if layout == "tokens" else None)
            request = Request(
                "coco",
                root=drawn / "coco",
                text=("demo-bert",),
                image=("demo-vit",),
                cache_root=folder / "cache",
                options=PrecomputeOptions(encoder=options, dtype="float32"),
            )
            precompute(request, Quiet())
            cache = Cache(folder / "cache")
            run = fit(cache, preset("best", layout=layout, **SMALL), out=folder / "run-0")
            evaluate(cache, run, ["retrieval"])
            made[layout] = cache, run
        return made[layout]

    return make
