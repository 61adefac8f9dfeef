import os

import pytest
from small_layouts import picture
from split_views import labels

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets.prompts import TEMPLATES, prompt_column
from cbmf.precompute.datasets.registry import read_dataset


def fill(root, names):
    for name in names:
        picture(root / name)
    return root


def test_classes_are_those_with_images_in_any_split(tmp_path):
    names = ["train/b_b/1.jpg", "train/a/1.jpg", "val/c/deep/er/2.JPEG", "test/a/3.png"]
    root = fill(tmp_path / "My Scenes", names)
    (root / "train/empty").mkdir()
    (root / "train/a/notes.txt").write_text("x")
    (root / "train/a/.hidden.jpg").write_text("x")
    (root / "train/loose.jpg").write_text("x")
    found = read_dataset("imagefolder", root)
    assert (found.name, found.kind) == ("my-scenes", "labelled")
    train, val, test = found.splits
    assert train.classes == val.classes == test.classes == ["a", "b b", "c"]
    assert train.columns["image"].ids == ["train/a/1.jpg", "train/b_b/1.jpg"]
    assert labels(train) == [0, 1]
    assert val.columns["image"].ids == ["val/c/deep/er/2.JPEG"]
    assert [("prompt" in s.columns) for s in found.splits] == [False, False, True]


def test_prompts_go_to_val_where_there_is_no_test(tmp_path):
    root = fill(tmp_path, ["train/a/1.jpg", "validation/a/1.jpg"])
    (val,) = read_dataset("imagefolder", root, ["val"]).splits
    assert val.columns["prompt"].ids[:2] == ["a/0", "a/1"]
    assert val.columns["image"].ids == ["validation/a/1.jpg"]


def test_classes_do_not_depend_on_the_splits_asked_for(tmp_path):
    root = fill(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "test/b/1.jpg"])
    (test,) = read_dataset("imagefolder", root, ["test"]).splits
    assert (test.classes, labels(test)) == (["a", "b"], [1])


def test_folders_that_are_said_alike_stay_two_classes(tmp_path):
    root = fill(tmp_path, ["test/a_b/1.jpg", "test/a b/1.jpg"])
    (test,) = read_dataset("imagefolder", root).splits
    assert test.classes == ["a b (a b)", "a b (a_b)"]


def test_a_name_that_is_not_utf8_is_left_out(tmp_path):
    root = fill(tmp_path, ["test/a/1.jpg"])
    try:
        os.rename(root / "test/a/1.jpg", os.fsencode(root / "test/a") + b"/\xff.jpg")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    picture(root / "test/a/2.jpg")
    (test,) = read_dataset("imagefolder", root).splits
    assert test.columns["image"].ids == ["test/a/2.jpg"]
    assert [x.item_id for x in test.left_out] == ["test/a/\\udcff.jpg"]


def test_what_is_missing_or_doubled_is_named(tmp_path):
    with pytest.raises(InputError, match="no folders train/<class>/"):
        read_dataset("imagefolder", tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no image below a folder"):
        read_dataset("imagefolder", tmp_path)
    fill(tmp_path, ["train/a/1.jpg", "val/a/1.jpg"])
    with pytest.raises(InputError, match="no split 'test'; there is train, val"):
        read_dataset("imagefolder", tmp_path, ["test"])
    fill(tmp_path, ["dev/a/1.jpg"])
    with pytest.raises(InputError, match="are both split val"):
        read_dataset("imagefolder", tmp_path)


def test_a_folder_that_is_a_link_to_itself_ends(tmp_path):
    root = fill(tmp_path, ["test/a/1.jpg"])
    (root / "test/a/loop").symlink_to(root / "test/a", target_is_directory=True)
    (test,) = read_dataset("imagefolder", root).splits
    assert "test/a/1.jpg" in test.columns["image"].ids


def test_templates_are_the_bare_name_and_clips_eighteen():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 19
    assert TEMPLATES[:3] == ("{}", "a photo of a {}.", "a blurry photo of a {}.")
    assert TEMPLATES[-1] == "a photo of the big {}."
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_prompts_hold_each_class_in_each_template():
    column = prompt_column(["cat", "{}"])
    assert len(column.ids) == len(set(column.ids)) == 38
    assert column.values[0] == "cat" and column.values[18] == "a photo of the big cat."
    assert column.values[20] == "a photo of a {}."
    assert column.labels == [0] * 19 + [1] * 19
    assert column.templates == [*range(19), *range(19)]
