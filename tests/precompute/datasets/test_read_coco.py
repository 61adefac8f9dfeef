from pathlib import Path

import pytest
from small_layouts import arranged, picture, shuffled, write_json
from split_views import images, pairs

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets import text_files
from cbmf.precompute.datasets.registry import read_dataset


def official(root, year="2017", parts=("train", "val")):
    """Three images a part, two captions each."""
    for number, part in enumerate(parts):
        ids = [100 * (number + 1) + i for i in range(3)]
        stem = "" if year == "2017" else f"COCO_{part}2014_"
        names = {i: f"{stem}{i:012d}.jpg" for i in ids}
        for name in names.values():
            picture(root / f"{part}{year}" / name)
        annotations = [
            {"id": 10 * i + k, "image_id": i, "caption": f" caption {k} of {i}.\n"}
            for i in ids
            for k in range(2)
        ]
        images = [{"id": i, "file_name": name, "height": 6} for i, name in names.items()]
        write_json(
            root / "annotations" / f"captions_{part}{year}.json",
            {"info": {}, "images": images, "annotations": annotations},
        )
    return root


def change(path, edit):
    content = text_files.read_json(path)
    edit(content)
    write_json(path, content)


def test_official_layout_gives_images_captions_and_pairs_by_coco_ids(tmp_path):
    found = read_dataset("coco", official(tmp_path))
    assert (found.name, found.kind) == ("coco2017", "image-text")
    assert [split.name for split in found.splits] == ["train", "val"]
    val = found.splits[1]
    assert val.columns["image"].ids == ["200", "201", "202"]
    assert images(val)[1].name == "val2017/000000000201.jpg"
    assert images(val)[1].open().size == (8, 6)
    assert val.columns["text"].ids == ["2000", "2001", "2010", "2011", "2020", "2021"]
    assert val.columns["text"].values[3] == "caption 1 of 201."
    assert val.columns["text"].groups == ["200", "200", "201", "201", "202", "202"]
    assert pairs(val).ids[:3] == [("200", "2000"), ("200", "2001"), ("201", "2010")]
    assert val.left_out == []


def test_2017_goes_before_2014_unless_2014_is_named(tmp_path):
    official(tmp_path, "2014")
    assert read_dataset("coco", tmp_path).name == "coco2014"
    official(tmp_path, "2017")
    assert read_dataset("coco", tmp_path).name == "coco2017"
    explicit = read_dataset("coco2014", tmp_path)
    assert explicit.name == "coco2014"
    name = images(explicit.splits[0])[0].name
    assert name == "train2014/COCO_train2014_000000000100.jpg"


def test_order_of_entries_does_not_matter(tmp_path):
    official(tmp_path)
    before = [arranged(split) for split in read_dataset("coco", tmp_path).splits]

    def mix(content):
        content["images"] = shuffled(content["images"])
        content["annotations"] = shuffled(content["annotations"])

    change(tmp_path / "annotations/captions_train2017.json", mix)
    assert [arranged(split) for split in read_dataset("coco", tmp_path).splits] == before


def test_missing_image_is_left_out_once_and_its_captions_with_it(tmp_path):
    official(tmp_path)
    (tmp_path / "val2017/000000000201.jpg").unlink()
    (val,) = read_dataset("coco", tmp_path, ["val"]).splits
    assert [(x.column, x.item_id, x.reason) for x in val.left_out] == [
        ("image", "201", "no such file")
    ]
    assert val.columns["text"].ids == ["2000", "2001", "2020", "2021"]


@pytest.mark.parametrize("caption", ["", " \n\t", None, 7, "\ud800"])
def test_unusable_caption_is_left_out_with_its_reason(tmp_path, caption):
    official(tmp_path)
    table = tmp_path / "annotations/captions_val2017.json"
    change(table, lambda c: c["annotations"][0].update(caption=caption))
    (val,) = read_dataset("coco", tmp_path, ["val"]).splits
    (left,) = val.left_out
    assert (left.column, left.item_id) == ("text", "2000")
    if caption is None or (isinstance(caption, str) and not caption.strip()):
        assert left.reason == "empty caption"


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "sub/../../secret.jpg"])
def test_a_path_in_the_annotations_never_leaves_the_folder(tmp_path, name):
    root = official(tmp_path / "coco")
    picture(tmp_path / "secret.jpg")
    picture(root / "secret.jpg")
    table = root / "annotations/captions_val2017.json"
    change(table, lambda c: c["images"][0].update(file_name=name))
    (val,) = read_dataset("coco", root, ["val"]).splits
    assert val.columns["image"].ids == ["201", "202"]
    assert [x.reason for x in val.left_out] == ["no such file"]


def test_captions_without_images_name_the_folder_and_where_to_get_it(tmp_path):
    official(tmp_path)
    for part in ("train", "val"):
        (tmp_path / f"{part}2017").rename(tmp_path / f"away-{part}")
    with pytest.raises(InputError, match=r"found captions_train2017.json.*no train2017/") as error:
        read_dataset("coco", tmp_path)
    assert "cocodataset.org" in str(error.value) and "\n" not in str(error.value)


def test_images_without_captions_name_the_files(tmp_path):
    picture(tmp_path / "val2017/000000000001.jpg")
    with pytest.raises(InputError, match=r"found val2017/, but no .*captions_val2017.json"):
        read_dataset("coco", tmp_path)


def test_half_a_split_is_passed_over_unless_asked_for(tmp_path):
    official(tmp_path)
    (tmp_path / "train2017").rename(tmp_path / "away")
    found = read_dataset("coco", tmp_path)
    assert [split.name for split in found.splits] == ["val"]
    assert found.notes == ["split train is not read: no folder train2017"]
    with pytest.raises(InputError, match=r"no split 'train' \(no folder train2017\); there is val"):
        read_dataset("coco", tmp_path, ["train"])


def test_nothing_there_names_all_places_and_the_address(tmp_path):
    with pytest.raises(InputError, match=r"no annotations/captions_.*cocodataset\.org"):
        read_dataset("coco", tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"images": []},
        {"images": [{"id": 1}], "annotations": []},
        {"images": ["x"], "annotations": []},
        {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"id": 1}]},
        {"images": [{"id": None, "file_name": "a.jpg"}], "annotations": []},
        {"images": [{"id": 1, "file_name": "a.jpg"}] * 2, "annotations": []},
        {"images": [], "annotations": []},
    ],
)
def test_wrong_structure_is_one_line(tmp_path, content):
    official(tmp_path)
    write_json(tmp_path / "annotations/captions_val2017.json", content)
    with pytest.raises(InputError, match=r"captions_val2017\.json: ") as error:
        read_dataset("coco", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}", b"[" * 100_000, b""])
def test_no_json_is_one_line(tmp_path, content):
    official(tmp_path)
    (tmp_path / "annotations/captions_val2017.json").write_bytes(content)
    with pytest.raises(InputError, match="not readable JSON"):
        read_dataset("coco", tmp_path)


def test_a_huge_json_is_refused_unread(tmp_path, monkeypatch):
    official(tmp_path)
    monkeypatch.setattr(text_files, "JSON_LIMIT", 10)
    with pytest.raises(InputError, match="is refused"):
        read_dataset("coco", tmp_path)


def karpathy_entry(number, folder, split):
    return {
        "filepath": folder,
        "filename": f"COCO_{folder}_{number:012d}.jpg",
        "imgid": number,
        "cocoid": number,
        "split": split,
        "sentids": [number * 10],
        "sentences": [{"raw": f"caption of {number}", "sentid": number * 10, "tokens": []}],
    }


KARPATHY = [
    karpathy_entry(1, "train2014", "train"),
    karpathy_entry(2, "val2014", "restval"),
    karpathy_entry(3, "val2014", "val"),
    karpathy_entry(4, "val2014", "test"),
]


@pytest.mark.parametrize("folder", ["", "karpathy", "annotations"])
def test_karpathys_split_is_read_where_its_json_lies(tmp_path, folder):
    write_json(tmp_path / folder / "dataset_coco.json", {"images": KARPATHY, "dataset": "coco"})
    for entry in KARPATHY:
        picture(tmp_path / entry["filepath"] / entry["filename"])
    found = read_dataset("coco", tmp_path)
    assert found.name == "coco2014"
    assert [(s.name, s.columns["image"].ids) for s in found.splits] == [
        ("train", ["1", "2"]),
        ("val", ["3"]),
        ("test", ["4"]),
    ]
    assert pairs(found.splits[0]).ids == [("1", "10"), ("2", "20")]
    assert found.notes


def test_karpathys_images_are_found_by_id_among_those_of_2017(tmp_path):
    write_json(tmp_path / "dataset_coco.json", {"images": KARPATHY, "dataset": "coco"})
    for number, part in ((1, "train"), (2, "train"), (3, "val"), (4, "train")):
        picture(tmp_path / f"{part}2017" / f"{number:012d}.jpg")
    found = read_dataset("coco", tmp_path)
    assert found.name == "coco2017"
    assert [images(s)[0].name for s in found.splits] == [
        "train2017/000000000001.jpg",
        "val2017/000000000003.jpg",
        "train2017/000000000004.jpg",
    ]
    assert not any(split.left_out for split in found.splits)


def test_karpathys_train_is_passed_over_without_its_folder(tmp_path):
    write_json(tmp_path / "dataset_coco.json", {"images": KARPATHY, "dataset": "coco"})
    for entry in KARPATHY[1:]:
        picture(tmp_path / entry["filepath"] / entry["filename"])
    assert [split.name for split in read_dataset("coco", tmp_path).splits] == ["val", "test"]
    with pytest.raises(InputError, match=r"no split .train. \(no folder train2014"):
        read_dataset("coco", tmp_path, ["train"])


@pytest.mark.parametrize("images", [None, [{}], [7], [{**KARPATHY[0], "split": ["x"]}]])
def test_a_broken_karpathy_file_is_one_line(tmp_path, images):
    path = write_json(tmp_path / "dataset_coco.json", {"images": images})
    picture(tmp_path / "val2014/COCO_val2014_000000000003.jpg")
    with pytest.raises(InputError, match=Path(path).name):
        read_dataset("coco", tmp_path)
