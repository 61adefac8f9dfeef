import zipfile

import pytest
from small_layouts import picture
from split_views import images, labels

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets.registry import read_dataset

WORDS = "n03\tcat, house cat\nn01\tcrane\nn02\tcrane, hoisting crane\nn09\tunused thing\n"
VAL = {"val_0.JPEG": "n02", "val_1.JPEG": "n01"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n01", "n02", "n03"):
        for number in range(2):
            picture(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes")
    for name in VAL:
        picture(root / "val/images" / name)
    picture(root / "test/images/test_0.JPEG")
    lines = [f"{name}\t{wnid}\t0\t0\t9\t9" for name, wnid in VAL.items()]
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    (root / "wnids.txt").write_text("n02\nn03\nn01\nn09\n")
    (root / "words.txt").write_text(WORDS)
    return root


def pack(folder):
    path = folder.parent / "zipped" / "tiny-imagenet-200.zip"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(folder.parent).as_posix())
        archive.writestr("__MACOSX/tiny-imagenet-200/train/n01/images/._x.JPEG", b"")
    return path


def test_train_and_val_have_the_classes_that_have_images(folder):
    found = read_dataset("tiny-imagenet", folder.parent)
    train, val = found.splits
    assert (found.name, [s.name for s in found.splits]) == ("tiny-imagenet", ["train", "val"])
    assert train.classes == ["crane (n01)", "crane (n02)", "cat"]
    assert train.columns["image"].ids[:3] == [
        "train/n01/images/n01_0.JPEG",
        "train/n01/images/n01_1.JPEG",
        "train/n02/images/n02_0.JPEG",
    ]
    assert labels(train) == [0, 0, 1, 1, 2, 2]
    assert val.columns["image"].ids == ["val/images/val_0.JPEG", "val/images/val_1.JPEG"]
    assert labels(val) == [1, 0]
    assert "prompt" in val.columns and "prompt" not in train.columns


def test_zip_and_folder_read_alike(folder):
    archive = pack(folder)
    found = read_dataset("tiny-imagenet", folder)
    for root in (archive, archive.parent):
        zipped = read_dataset("tiny-imagenet", root)
        for ours, theirs in zip(zipped.splits, found.splits, strict=True):
            assert ours.columns["image"].ids == theirs.columns["image"].ids
            assert labels(ours) == labels(theirs)
            digests = [[v.digest() for v in images(s)] for s in (ours, theirs)]
            assert digests[0] == digests[1]
        assert images(zipped.splits[0])[0].open().size == (8, 6)


def test_annotated_but_missing_and_unlabelled_images_are_left_out(folder):
    (folder / "val/images/val_0.JPEG").unlink()
    picture(folder / "val/images/val_7.JPEG")
    val = read_dataset("tiny-imagenet", folder).splits[1]
    assert sorted((x.item_id, x.reason) for x in val.left_out) == [
        ("val/images/val_0.JPEG", "no such file"),
        ("val/images/val_7.JPEG", "no label in val/val_annotations.txt"),
    ]


def test_folders_that_are_no_class_are_noted(folder):
    picture(folder / "train/stray/images/x.JPEG")
    found = read_dataset("tiny-imagenet", folder)
    assert len(found.splits[0].columns["image"].ids) == 6
    assert found.notes == ["images of 'stray' are not read: not in wnids.txt"]


def test_val_in_class_folders_is_read(folder):
    (folder / "val/val_annotations.txt").unlink()
    for name, wnid in VAL.items():
        (folder / "val" / wnid).mkdir()
        (folder / "val/images" / name).rename(folder / "val" / wnid / name)
    val = read_dataset("tiny-imagenet", folder).splits[1]
    assert labels(val) == [0, 1]


def test_halves_are_named(folder):
    (folder / "val/val_annotations.txt").unlink()
    found = read_dataset("tiny-imagenet", folder)
    assert [s.name for s in found.splits] == ["train"]
    with pytest.raises(InputError, match=r"no split 'val' \(no images with val/val_annotations"):
        read_dataset("tiny-imagenet", folder, ["val"])
    (folder / "words.txt").unlink()
    with pytest.raises(InputError, match=r"found wnids.txt, but no words.txt; get it: http"):
        read_dataset("tiny-imagenet", folder)


def test_a_cut_archive_is_one_line(folder):
    path = pack(folder)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="not a readable zip archive"):
        read_dataset("tiny-imagenet", path.parent)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(InputError, match=r"found an archive, but no wnids\.txt"):
        read_dataset("tiny-imagenet", path.parent)
