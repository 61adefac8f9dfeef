import base64
import hashlib
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from cbmf.cache.items import Column, Items
from cbmf.precompute.contents import build_items
from cbmf.precompute.datasets.registry import read_dataset
from cbmf.recipes.pictures import SIDE, find_pictures


def save(path, colour=(200, 30, 60), size=(400, 300)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def items_of(names, paths, dataset="mine"):
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    table = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    return Items(dataset, "test", {"image": Column("image", list(names), list(names), table)})


def opened(uri):
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("below", ["", "set", "file"])
def test_a_picture_is_found_below_the_root_or_a_folder_in_it(tmp_path, below):
    home = tmp_path / "set" if below == "set" else tmp_path
    path = save(home / "photos" / "a.png")
    root = save(tmp_path / "table.png") if below == "file" else tmp_path
    pictures = find_pictures(items_of(["photos/a.png"], [path]), "image", root)
    small = opened(pictures.thumbnail(0))
    assert pictures.missing == "" and max(small.size) == SIDE and small.size[0] > small.size[1]


def test_no_name_leads_out_of_the_root(tmp_path):
    secret = save(tmp_path / "secret.png")
    inside = save(tmp_path / "root" / "ok.png")
    (tmp_path / "root" / "link.png").symlink_to(secret)
    names = ["ok.png", "../secret.png", str(secret), "link.png", "a\0b.png", "http://x/a.png"]
    items = items_of(names, [inside, *[secret] * 5])
    pictures = find_pictures(items, "image", tmp_path / "root")
    assert pictures.thumbnail(0) is not None
    assert [pictures.thumbnail(row) for row in range(1, 6)] == [None] * 5


def test_another_picture_under_the_name_is_not_shown(tmp_path):
    path = save(tmp_path / "a.png")
    items = items_of(["a.png"], [path])
    save(path, (0, 0, 255))
    assert find_pictures(items, "image", tmp_path).thumbnail(0) is None


def test_what_is_no_picture_is_not_shown(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("no picture")
    assert find_pictures(items_of(["a.png"], [path]), "image", tmp_path).thumbnail(0) is None


def test_without_a_root_it_says_how_to_get_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("CBMF_DATA", str(tmp_path / "none"))
    items = items_of(["a.png"], [save(tmp_path / "a.png")])
    assert "--root" in find_pictures(items, "image", None).missing
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in find_pictures(items, "image", empty).missing


def test_pictures_in_an_archive_are_found_by_the_reader(tmp_path):
    source = tmp_path / "tiny-imagenet-200"
    for number in range(2):
        wnid = f"n0000000{number}"
        for part in (f"train/{wnid}/images/{wnid}_0.JPEG", f"val/images/val_{number}.JPEG"):
            save(source / part, (90 * number, 9, 9), (64, 64))
    (source / "wnids.txt").write_text("n00000000\nn00000001\n")
    (source / "words.txt").write_text("n00000000\tcat\nn00000001\tdog\n")
    (source / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn00000000\t0\t0\t1\t1\nval_1.JPEG\tn00000001\t0\t0\t1\t1\n"
    )
    (tmp_path / "zipped").mkdir()
    archive = tmp_path / "zipped" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(source.rglob("*")):
            file.write(path, path.relative_to(tmp_path))
    (val,) = read_dataset("tiny-imagenet", tmp_path / "zipped", ["val"]).splits
    items, _ = build_items("tiny-imagenet", val, None)
    pictures = find_pictures(items, "image", tmp_path / "zipped")
    assert pictures.thumbnail(0) and pictures.thumbnail(1)
