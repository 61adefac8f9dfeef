"""Data as people have them: doubled, orphaned, alone, all alike. A result, or a refusal."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from cbmf.cache.catalog import Cache
from cbmf.cache.files import read_json
from cbmf.precompute.scenes import demo_encoder

pytestmark = pytest.mark.slow

ENCODERS = ("--image", str(demo_encoder("demo-vit")), "--text", str(demo_encoder("demo-bert")))
WORDS = "red green blue small large left right circle square star ring cross".split()


def picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(grid, "RGB").resize((32, 32)).save(path)


def said(number):
    return " ".join(np.random.default_rng(number).choice(WORDS, 4))


def write_coco(root, images, captions, split="train"):
    """COCO's layout: images as (id, file), captions as (id, image id, text)."""
    for _, name in images:
        picture(root / f"{split}2017" / name, sum(name.encode()))
    table = {
        "images": [{"id": i, "file_name": name} for i, name in images],
        "annotations": [{"id": i, "image_id": image, "caption": c} for i, image, c in captions],
    }
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"captions_{split}2017.json").write_text(json.dumps(table))


def write_pairs(root, rows):
    """A table of (image, caption, split), its pictures drawn."""
    for image, _, _ in rows:
        if not (root / image).exists():
            picture(root / image, sum(image.encode()))
    with (root / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption", "split"), *rows])
    return root / "own.csv"


@pytest.fixture
def do(workshop, tmp_path):
    """Run a command on the cache of this test; its exit code and what it said."""

    def run(*words):
        code = workshop.run([*words, "--cache", str(tmp_path / "cache")])
        text = workshop.words_said()
        assert "Traceback" not in text and code in (0, 1, 2), text
        return code, text

    return run


def pairs_of(count, split, first=0):
    return [(f"{split}{k}.png", said(first + k), split) for k in range(count)]


def fit_and_score(do, tmp_path, *options):
    out = tmp_path / "run"
    code, text = do("fit", "--out", str(out), "--epochs", "2", *options)
    if code:
        return None, text
    code, text = do("evaluate", "all", "--run", str(out))
    return (None if code else read_json(out / "results" / "results.json")["results"]), text


def figures(results):
    return [value for r in results for row in r["rows"] for value in row["metrics"].values()]


def test_captions_of_no_image_and_images_of_no_caption_are_left_out(do, tmp_path):
    images = [(k, f"{k}.png") for k in range(6)]
    captions = [(k, k, said(k)) for k in range(5)]  # image 5 has none
    orphans = [(100, 77, "of an image that is not there")]
    write_coco(tmp_path / "coco", images, [*captions, *orphans])
    code, text = do("precompute", "coco", "--root", str(tmp_path / "coco"), *ENCODERS)
    assert code == 0, text
    items = Cache(tmp_path / "cache").items("coco2017", "train")
    assert sorted(items.columns["image"].ids) == [str(k) for k in range(5)]
    assert len(items.pairs.rows) == 5
    reasons = {(column, item): reason for column, item, reason in items.left_out}
    assert reasons["image", "5"], reasons
    assert "100" not in items.columns["text"].ids


def test_an_id_that_stands_twice_is_refused(do, tmp_path):
    for number, (images, captions) in enumerate(
        [
            ([(1, "a.png"), (1, "b.png")], [(1, 1, "x")]),
            ([(1, "a.png"), (1, "a.png")], [(1, 1, "x")]),
            ([(1, "a.png"), (2, "b.png")], [(1, 1, "x"), (1, 2, "y")]),
        ]
    ):
        write_coco(tmp_path / f"coco{number}", images, captions)
        code, text = do("precompute", "coco", "--root", str(tmp_path / f"coco{number}"), *ENCODERS)
        assert code == 1 and "stands twice" in text, text


def test_the_same_image_under_two_names_is_two_items_of_equal_vectors(do, tmp_path):
    rows = pairs_of(8, "train") + pairs_of(4, "test", 50)
    table = write_pairs(tmp_path, rows)
    shutil.copyfile(tmp_path / "train0.png", tmp_path / "train1.png")
    assert do("precompute", "pairs", "--root", str(table), *ENCODERS)[0] == 0
    cache = Cache(tmp_path / "cache")
    column = cache.items("own", "train").columns["image"]
    vectors = cache.find("own", "train", "image").pooled()
    first, second = (column.values.index(f"train{k}.png") for k in (0, 1))
    assert np.array_equal(vectors[first], vectors[second])
    results, text = fit_and_score(do, tmp_path)
    assert results, text


@pytest.mark.parametrize("count", [1, 2])
def test_a_split_of_one_or_two_items(do, tmp_path, count):
    table = write_pairs(
        tmp_path, [*pairs_of(12, "train"), *pairs_of(count, "val"), *pairs_of(count, "test")]
    )
    assert do("precompute", "pairs", "--root", str(table), *ENCODERS)[0] == 0
    results, text = fit_and_score(do, tmp_path)
    assert results is not None or "cbmf: " in text, text
    if results:
        assert all(map(math.isfinite, figures(results)))


def test_a_training_split_of_one_item_is_refused(do, tmp_path):
    table = write_pairs(tmp_path, [*pairs_of(1, "train"), *pairs_of(3, "val")])
    assert do("precompute", "pairs", "--root", str(table), *ENCODERS)[0] == 0
    results, text = fit_and_score(do, tmp_path)
    assert results is None and "cbmf: " in text, text


def test_a_batch_larger_than_the_data(do, tmp_path):
    table = write_pairs(tmp_path, [*pairs_of(12, "train"), *pairs_of(4, "test", 20)])
    assert do("precompute", "pairs", "--root", str(table), *ENCODERS)[0] == 0
    results, text = fit_and_score(do, tmp_path, "--batch-size", "65536")
    assert results, text
    assert all(map(math.isfinite, figures(results)))


def test_embeddings_that_are_all_alike_give_chance_and_no_more(do, tmp_path):
    rows = [
        (f"{split}{k}.png", "the same words", split)
        for split in ("train", "test")
        for k in range(20)
    ]
    table = write_pairs(tmp_path, rows)
    for image, _, _ in rows:
        shutil.copyfile(
            tmp_path / "train0.png", tmp_path / image
        ) if image != "train0.png" else None
    assert do("precompute", "pairs", "--root", str(table), *ENCODERS)[0] == 0
    results, text = fit_and_score(do, tmp_path)
    if results is None:
        assert "cbmf: " in text
        return
    for result in results:
        for row in result["rows"]:
            for name, value in row["metrics"].items():
                assert math.isfinite(value), (row["system"], name)
                if name.endswith("R@1"):
                    assert value <= 0.1, (row["system"], name, value)


def test_one_class_only(do, tmp_path):
    for split in ("train", "test"):
        for k in range(6):
            picture(tmp_path / "folder" / split / "star" / f"{k}.png", k)
    write_pairs(tmp_path, [*pairs_of(12, "train"), *pairs_of(4, "test", 20)])
    assert do("precompute", "pairs", "--root", str(tmp_path / "own.csv"), *ENCODERS)[0] == 0
    code, text = do("precompute", "imagefolder", "--root", str(tmp_path / "folder"), *ENCODERS)
    assert code == 0, text
    out = tmp_path / "run"
    assert do("fit", "--out", str(out), "--epochs", "1", "--dataset", "own")[0] == 0
    for name in ("zero-shot", "linear", "fine-tune"):
        code, text = do("evaluate", name, "--run", str(out), "--fine-tune-epochs", "1")
        assert code == 1 and "of 1 class" in text, text


def test_labels_out_of_range_are_one_line(do, tmp_path):
    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": ["cat", "dog"]}, 2))
    for name in ("data_batch_1", "test_batch"):
        table = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 7]}
        (folder / name).write_bytes(pickle.dumps(table, 2))
    code, text = do("precompute", "cifar10", "--root", str(tmp_path), *ENCODERS)
    assert code == 1 and "label" in text, text


def test_markup_in_captions_and_names_is_shown_as_it_stands(do, tmp_path):
    rows = [(f"[red]{k}[/].png", "[bold]<script>alert(1)</script>[/]", "train") for k in range(4)]
    table = write_pairs(tmp_path, rows)
    (tmp_path / "[red]0[/].png").write_bytes(b"no image")
    code, text = do("precompute", "pairs", "--root", str(table), *ENCODERS, "--max-failures", "1")
    assert code == 0 and "[red]0[/].png" in text, text
