"""Captions without images, in COCO's and Flickr8k's files."""

import pytest
from small_layouts import arranged, shuffled, write_json

from cbmf.cache.errors import InputError
from cbmf.precompute.contents import build_items
from cbmf.precompute.dataset import limited
from cbmf.precompute.datasets import text_files
from cbmf.precompute.datasets.registry import read_dataset

NAMES = [f"{i}_abc.jpg" for i in range(8)]
OF_SPLIT = {"trainImages": NAMES[:4], "devImages": NAMES[4:6], "testImages": NAMES[6:]}


def official(root, year="2017", parts=("train", "val")):
    """The official json files alone: three images a part, two captions each."""
    for number, part in enumerate(parts, 1):
        notes = [
            {
                "id": 1000 * number + 10 * i + k,
                "image_id": 100 * number + i,
                "caption": f"{k} of {i}\n",
            }
            for i in range(3)
            for k in range(2)
        ]
        write_json(root / "annotations" / f"captions_{part}{year}.json", {"annotations": notes})
    return root


@pytest.fixture
def flickr(tmp_path):
    """The texts of the official layout alone; two captions an image."""
    text = tmp_path / "flickr8k" / "Flickr8k_text"
    text.mkdir(parents=True)
    lines = [f"{name}#{k}\tCaption {k} of {name} ." for name in NAMES for k in range(2)]
    (text / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for part, names in OF_SPLIT.items():
        (text / f"Flickr_8k.{part}.txt").write_text("\n".join(names) + "\n")
    return text.parent


def test_cocos_json_files_are_enough(tmp_path):
    found = read_dataset("coco-text", official(tmp_path))
    assert (found.name, found.kind) == ("coco-text", "caption-texts")
    assert [split.name for split in found.splits] == ["train", "val"]
    val = found.splits[1]
    assert set(val.columns) == {"text"} and val.pairs is None
    assert val.columns["text"].ids == ["2000", "2001", "2010", "2011", "2020", "2021"]
    assert val.columns["text"].values[3] == "1 of 1"
    assert val.columns["text"].groups == ["200", "200", "201", "201", "202", "202"]
    assert found.notes == ["captions of COCO 2017"]
    assert [s.name for s in read_dataset("coco-text", tmp_path, ["validation"]).splits] == ["val"]


def test_2017_goes_before_2014_and_half_of_a_year_will_do(tmp_path):
    official(tmp_path, "2014")
    assert read_dataset("coco-text", tmp_path).notes == ["captions of COCO 2014"]
    official(tmp_path, "2017", ["val"])
    found = read_dataset("coco-text", tmp_path)
    assert found.notes == ["captions of COCO 2017"]
    assert [split.name for split in found.splits] == ["val"]
    with pytest.raises(InputError, match="no split 'train'"):
        read_dataset("coco-text", tmp_path, ["train"])


def test_karpathys_file_alone_gives_three_splits(tmp_path):
    images = [
        {
            "filepath": "val2014", "filename": f"COCO_val2014_{i:012d}.jpg", "cocoid": i,
            "split": part, "sentences": [{"sentid": 10 * i + k, "raw": f"{k}"} for k in range(2)],
        }
        for i, part in enumerate(["train", "restval", "val", "test"])
    ]  # fmt: skip
    write_json(tmp_path / "dataset_coco.json", {"images": images})
    official(tmp_path)
    found = read_dataset("coco-text", tmp_path)
    texts = {split.name: split.columns["text"] for split in found.splits}
    assert {name: column.ids for name, column in texts.items()} == {
        "train": ["0", "1", "10", "11"], "val": ["20", "21"], "test": ["30", "31"],
    }  # fmt: skip
    assert texts["train"].groups == ["0", "0", "1", "1"]
    assert "Karpathy's split" in found.notes[0]


def test_flickrs_texts_are_enough(flickr):
    found = read_dataset("flickr8k-text", flickr)
    assert (found.name, found.kind) == ("flickr8k-text", "caption-texts")
    assert {split.name: split.columns["text"].groups for split in found.splits} == {
        ours: [name for name in names for _ in range(2)]
        for ours, names in zip(("train", "val", "test"), OF_SPLIT.values(), strict=True)
    }
    assert found.splits[2].columns["text"].values[3] == "Caption 1 of 7_abc.jpg ."


def test_without_lists_flickrs_images_are_split_by_their_hash(flickr):
    for path in (flickr / "Flickr8k_text").glob("Flickr_8k.*"):
        path.unlink()
    found = read_dataset("flickr8k-text", flickr)
    groups = [group for split in found.splits for group in split.columns["text"].groups]
    assert sorted(set(groups)) == NAMES and len(groups) == 16
    assert "by the hash" in found.notes[0]


@pytest.mark.parametrize("name", ["coco-text", "flickr8k-text"])
def test_what_is_missing_is_named(name, tmp_path):
    wanted = {"coco-text": r"no annotations/captions_\{train,val\}", "flickr8k-text": "no captions"}
    with pytest.raises(InputError, match=rf"{name}: {wanted[name]}.*get it: http"):
        read_dataset(name, tmp_path)


def test_unusable_captions_are_left_out_with_the_reason(tmp_path):
    table = official(tmp_path, parts=["val"]) / "annotations" / "captions_val2017.json"
    document = text_files.read_json(table)
    document["annotations"][0]["caption"] = "  "
    document["annotations"][1]["caption"] = 7
    write_json(table, document)
    split = read_dataset("coco-text", tmp_path).splits[0]
    assert len(split.columns["text"].ids) == 4
    reasons = {entry.item_id: entry.reason for entry in split.left_out}
    assert reasons == {"1000": "empty caption", "1001": "caption is no text"}


def test_captions_of_an_image_lie_together_whatever_the_order_of_the_file(tmp_path):
    table = official(tmp_path, parts=["val"]) / "annotations" / "captions_val2017.json"
    split = read_dataset("coco-text", tmp_path).splits[0]
    items, ordered = build_items("coco-text", split, None)
    groups = items.columns["text"].groups
    assert groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert (
        len({(g, image) for g, image in zip(groups, ordered.columns["text"].groups, strict=True)})
        == 3
    )
    document = text_files.read_json(table)
    document["annotations"] = shuffled(document["annotations"])
    write_json(table, document)
    again = read_dataset("coco-text", tmp_path).splits[0]
    assert arranged(again) == arranged(split)
    assert build_items("coco-text", again, None)[0].digest() == items.digest()


def test_a_trial_has_all_captions_of_some_images(flickr):
    split = read_dataset("flickr8k-text", flickr).splits[0]
    trial = limited(split, 2).columns["text"]
    assert len(trial.ids) == 4 and len(set(trial.groups)) == 2
    more = limited(split, 3).columns["text"]
    assert set(trial.ids) < set(more.ids)
