"""Raw texts and images come to the rows that the cache gives, through the right encoder alone."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import cbmf
from cbmf.cache.errors import InputError, RunError
from cbmf.evaluate.projection import project


@pytest.mark.parametrize("layout", ["pooled", "tokens"])
def test_raw_items_come_to_the_rows_of_the_cache(maker, drawn, layout):
    cache, run = maker(layout)
    pipeline = cbmf.load_pipeline(run.folder)
    items = cache.items("coco2017", "test")
    assert pipeline.encoders == {"demo-vit": "image", "demo-bert": "text"}
    folder = drawn / "coco"
    files = [next(folder.rglob(name.split("/")[-1])) for name in items.columns["image"].values]
    for number, (column, rows) in enumerate(
        (
            ("image", pipeline.embed_images(files)),
            ("text", pipeline.embed_texts(items.columns["text"].values)),
        )
    ):
        stream = cache.find("coco2017", "test", column)
        expected = project(run.model, number, stream).numpy()
        assert rows.shape == expected.shape and rows.dtype == np.float32
        assert (rows * expected).sum(1).min() > 0.99999
    cosines = pipeline.similarity(files[:3], ["a red circle", "a blue star"])
    assert cosines.shape == (3, 2) and np.abs(cosines).max() <= 1.00001


def test_an_opened_picture_is_as_good_as_a_file_and_nothing_gives_no_rows(maker, drawn):
    _, run = maker("pooled")
    pipeline = cbmf.load_pipeline(run)
    file = next((drawn / "coco").rglob("*.jpg"))
    with Image.open(file) as picture:
        assert np.array_equal(pipeline.embed_images([picture]), pipeline.embed_images([str(file)]))
    assert pipeline.embed_texts([]).shape == (0, run.model.width)


def test_a_model_takes_an_encoders_name_and_vectors_as_they_are(maker):
    cache, run = maker("pooled")
    model = cbmf.CBMF.from_pretrained(run.folder)
    import torch

    stream = cache.find("coco2017", "test", "text")
    vectors = torch.from_numpy(stream.pooled())
    with torch.inference_mode():
        rows = model.encode("demo-bert", vectors)
        assert torch.equal(rows, model.encode(1, vectors[:, None]))
    torch.testing.assert_close(rows, project(run.model, 1, stream))
    with pytest.raises(InputError, match="no encoder 'bert'; it has demo-vit, demo-bert"):
        model.encode("bert", vectors)


def test_another_encoder_a_missing_one_and_no_picture_are_one_line(maker, tmp_path):
    _, run = maker("pooled")
    with pytest.raises(RunError, match="not a run"):
        cbmf.load_pipeline(tmp_path / "none")
    moved = cbmf.load_pipeline(run, encoders={"demo-bert": str(tmp_path)})
    with pytest.raises(InputError, match=r"no config\.json"):
        moved.embed_texts(["a"])
    from cbmf.precompute.scenes import demo_encoder

    shutil.copytree(demo_encoder("demo-bert"), tmp_path / "other")
    from safetensors.torch import load_file, save_file

    path = tmp_path / "other" / "model.safetensors"
    weights = load_file(path)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + 1}, path, metadata={"format": "pt"})
    changed = cbmf.load_pipeline(run, encoders={"demo-bert": str(tmp_path / "other")})
    with pytest.raises(InputError, match=r"not the demo-bert that .* was fitted on"):
        changed.embed_texts(["a"])
    pipeline = cbmf.load_pipeline(run)
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"x\.jpg: not a readable image"):
        pipeline.embed_images([tmp_path / "x.jpg"])
    with pytest.raises(InputError, match="no text encoder 'vit'"):
        pipeline.embed_texts(["a"], encoder="vit")


def test_only_the_encoder_that_is_needed_is_loaded(maker):
    _, run = maker("pooled")
    script = f"""
import json, sys
import cbmf
pipeline = cbmf.load_pipeline({str(run.folder)!r})
pipeline.embed_texts(["a red circle"])
print(json.dumps([list(pipeline._loaded), "torchvision" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(done.stdout) == [["demo-bert"], False], done.stderr


def test_the_package_itself_loads_nothing_heavy():
    script = "import cbmf, sys; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
