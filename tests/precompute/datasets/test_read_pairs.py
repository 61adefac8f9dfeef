import csv
import json

import pytest
from small_layouts import arranged, picture, shuffled
from split_views import images, pair_labels, pair_scores, pairs

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets.registry import read_dataset


@pytest.fixture
def folder(tmp_path):
    for number in range(20):
        picture(tmp_path / "own" / "pics" / f"{number}.jpg")
    return tmp_path / "own"


def write_csv(path, header, rows, mark=""):
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        csv.writer(file).writerows([header, *rows])
    return path


ROWS = [[f"pics/{i}.jpg", f'a "thing", no. {i}.{k}'] for i in range(20) for k in range(2)]


def by_image(found):
    return {
        image: sorted(
            split.columns["text"].values[split.columns["text"].ids.index(text)]
            for left, text in pairs(split).ids
            if left == image
        )
        for split in found.splits
        for image in split.columns["image"].ids
    }


EXPECTED = {f"pics/{i}.jpg": [f'a "thing", no. {i}.{k}' for k in range(2)] for i in range(20)}


def test_csv_groups_captions_of_an_image_and_splits_by_hash(folder):
    table = write_csv(folder / "My Captions!.csv", ["Image Path", "Caption"], ROWS, "\ufeff")
    found = read_dataset("pairs", table)
    assert (found.name, found.kind) == ("my-captions", "image-text")
    assert [split.name for split in found.splits] == ["train", "val", "test"]
    assert by_image(found) == EXPECTED
    assert "hash" in found.notes[0]
    assert images(found.splits[0])[0].open().size == (8, 6)


def test_csv_tsv_and_jsonl_say_the_same_in_any_order(folder):
    write_csv(folder / "a.csv", ["image", "caption"], ROWS)
    mixed = shuffled(ROWS)
    lines = ["caption\tfile_name", *(f"{text}\t./{path}" for path, text in mixed)]
    (folder / "b.tsv").write_text("\r\n".join(lines))
    lines = [json.dumps({"text": text, "img": path, "more": [1]}) for path, text in mixed]
    (folder / "c.jsonl").write_text("\n".join(lines))
    views = [
        [arranged(split) for split in read_dataset("pairs", folder / name).splits]
        for name in ("a.csv", "b.tsv", "c.jsonl")
    ]
    assert views[0] == views[1] == views[2]


def test_a_folder_with_one_table_will_do_and_with_two_will_not(folder):
    write_csv(folder / "a.csv", ["image", "caption"], ROWS)
    assert read_dataset("pairs", folder).name == "a"
    write_csv(folder / "b.csv", ["image", "caption"], ROWS)
    with pytest.raises(InputError, match=r"holds a\.csv, b\.csv; name one"):
        read_dataset("pairs", folder)


def test_columns_split_id_and_image_id_are_kept(folder):
    header = ["id", "image_id", "image", "caption", "split"]
    rows = [
        ["c1", "i1", "pics/1.jpg", "one", "train"],
        ["c2", "i1", "pics/1.jpg", "uno", "TRAIN"],
        ["c3", "i2", "pics/2.jpg", "two", "validation"],
        ["c4", "i3", "pics/3.jpg", "three", "holdout"],
    ]
    found = read_dataset("pairs", write_csv(folder / "a.csv", header, rows))
    train, val = found.splits
    assert pairs(train).ids == [("i1", "c1"), ("i1", "c2")]
    assert (val.name, pairs(val).ids) == ("val", [("i2", "c3")])
    assert [(x.item_id, x.reason) for x in train.left_out] == [
        ("a.csv:5", "split 'holdout' is none of train, val, test")
    ]
    assert found.notes == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["1", "pics/1.jpg", "a", "train"], ["2", "pics/1.jpg", "b", "val"]], "one split"),
        ([["1", "pics/1.jpg", "a", "train"], ["1", "pics/2.jpg", "b", "train"]], "stands twice"),
        ([["1", "pics/1.jpg", "a", "train"], ["1", "pics/1.jpg", "b", "train"]], "stands twice"),
    ],
)
def test_contradictions_are_refused(folder, rows, message):
    table = write_csv(folder / "a.csv", ["id", "image", "caption", "split"], rows)
    with pytest.raises(InputError, match=message):
        read_dataset("pairs", table)


def test_one_image_id_for_two_images_is_refused(folder):
    rows = [["i", "pics/1.jpg", "a"], ["i", "pics/2.jpg", "b"]]
    table = write_csv(folder / "a.csv", ["image_id", "image", "caption"], rows)
    with pytest.raises(InputError, match="image_id 'i' is given to 2 images"):
        read_dataset("pairs", table)


def test_the_index_column_of_pandas_is_no_id(folder):
    rows = [[str(i), *row] for i, row in enumerate(ROWS)]
    found = read_dataset("pairs", write_csv(folder / "a.csv", ["", "image", "caption"], rows))
    assert by_image(found) == EXPECTED


def test_three_images_fill_three_splits(folder):
    found = read_dataset("pairs", write_csv(folder / "a.csv", ["image", "caption"], ROWS[:6]))
    assert [len(split.columns["image"].ids) for split in found.splits] == [1, 1, 1]


def test_paths_that_leave_the_folder_are_left_out(folder, tmp_path):
    outside = picture(tmp_path / "secret.jpg")
    (folder / "pics/link.jpg").symlink_to(outside)
    (folder / "pics/inner.jpg").symlink_to(folder / "pics/1.jpg")
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    paths = ["../secret.jpg", "pics/../../other.jpg", str(outside), "pics/link.jpg"]
    paths += ["linked/secret.jpg", "http://x.org/a.jpg", "C:\\a.jpg", "nul\0.jpg", "none/a.jpg"]
    rows = [[path, "caption", "test"] for path in [*paths, "pics/inner.jpg", "./pics/1.jpg"]]
    table = folder / "a.jsonl"
    keys = ("image", "caption", "split")
    table.write_text("\n".join(json.dumps(dict(zip(keys, r, strict=True))) for r in rows))
    (test,) = read_dataset("pairs", table).splits
    assert test.columns["image"].ids == ["pics/inner.jpg", "pics/1.jpg"]
    reasons = [x.reason for x in test.left_out]
    assert len(reasons) == len(paths)
    assert [reason.split()[0:4] for reason in reasons[:2]] == [["its", "path", "leads", "out"]] * 2
    assert "absolute" in reasons[2] and "link" in reasons[3] and "link" in reasons[4]
    assert "web address" in reasons[5] and "absolute" in reasons[6]
    assert reasons[7:] == ["no such file"] * 2


def test_bad_lines_are_left_out_with_their_number(folder):
    good = [json.dumps({"image": f"pics/{i}.jpg", "caption": "c"}) for i in range(5)]
    lines = [line.encode() for line in good]
    lines += [b"{broken", b'{"image": "pics/6.jpg", "caption": "caf\xe9"}', b"[1]", b""]
    lines += [b'{"caption": "c"}', b'{"image": "pics/7.jpg"}', b"[" * 9999]
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))
    found = read_dataset("pairs", folder)
    left = [(x.item_id, x.reason) for split in found.splits for x in split.left_out]
    assert sorted(left) == [
        ("a.jsonl:10", "no image path"),
        ("a.jsonl:11", "empty caption"),
        ("a.jsonl:12", "not a JSON object"),
        ("a.jsonl:6", "not a JSON object"),
        ("a.jsonl:7", "not UTF-8"),
        ("a.jsonl:8", "not a JSON object"),
        ("pics/7.jpg", "no caption"),
    ]


def test_rows_of_another_width_are_left_out(folder):
    table = folder / "a.csv"
    table.write_text("image,caption\npics/1.jpg,fine\npics/2.jpg,a dog, running\n")
    found = read_dataset("pairs", table)
    assert [x.reason for x in found.splits[0].left_out] == ["3 columns, the header has 2"]


def test_unknown_columns_are_listed(folder):
    table = write_csv(folder / "a.csv", ["picture_of", "words"], [["a", "b"]])
    with pytest.raises(InputError, match=r"'picture_of', 'words' hold neither .* rename them"):
        read_dataset("pairs", table)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.jsonl", b"\n\n", "no line is a JSON object"),
        ("a.csv", "image,caption\n".encode("utf-16"), "is UTF-16"),
        ("a.csv", b"image,caption\n", "no usable row"),
        ("a.csv", b'image,caption\npics/1.jpg,"open\n', "line 2"),
    ],
)
def test_unusable_tables_are_one_line(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_dataset("pairs", folder / name)
    assert "\n" not in str(error.value)


def test_another_ending_and_a_missing_file_are_refused(folder):
    (folder / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"ends with '\.xlsx'; expected \.csv"):
        read_dataset("pairs", folder / "a.xlsx")
    with pytest.raises(InputError, match="no table of pairs"):
        read_dataset("pairs", folder / "none.csv")


def test_two_text_columns_give_one_column_of_texts(tmp_path):
    rows = [["a", "b", "1"], ["b", "c", ""], ["d", "d", "0"], ["e", "", "1"], ["f", "g", "maybe"]]
    table = write_csv(tmp_path / "own.csv", ["Sentence1", "Sentence2", "label"], rows)
    found = read_dataset("pairs", table)
    assert found.kind == "sentence-pairs"
    texts = {i: t for s in found.splits for i, t in zip(*text_column(s), strict=True)}
    got = {
        (texts[left], texts[right], label)
        for s in found.splits
        for (left, right), label in zip(pairs(s).ids, pair_labels(s), strict=True)
    }
    assert got == {("a", "b", 1), ("b", "c", -1), ("d", "d", 0)}
    assert sorted(x.reason for s in found.splits for x in s.left_out) == [
        "empty sentence",
        "label 'maybe' is not 0 or 1",
    ]


def text_column(split):
    return split.columns["text"].ids, split.columns["text"].values


def test_no_text_stands_in_two_splits(tmp_path):
    rows = [[f"t{i}", f"t{i + 1 if i % 3 else i}", str(i / 100)] for i in range(300)]
    table = write_csv(tmp_path / "own.csv", ["text1", "text2", "score"], rows)
    found = read_dataset("pairs", table)
    seen = [set(split.columns["text"].values) for split in found.splits]
    assert len(seen) == 3
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert sum(len(pair_scores(split)) for split in found.splits) == 300
    write_csv(table, ["text1", "text2", "score"], shuffled(rows))
    again = read_dataset("pairs", table)
    assert [arranged(s) for s in again.splits] == [arranged(s) for s in found.splits]


def test_a_split_column_splits_texts(tmp_path):
    rows = [["a", "b", "train"], ["c", "d", "test"]]
    table = write_csv(tmp_path / "own.csv", ["question1", "question2", "split"], rows)
    found = read_dataset("pairs", table, ["test"])
    assert [(s.name, list(s.columns["text"].values)) for s in found.splits] == [
        ("test", ["c", "d"])
    ]
    with pytest.raises(InputError, match="no split 'val'; there is train, test"):
        read_dataset("pairs", table, ["val"])


def test_a_name_of_another_data_set_is_not_taken(folder):
    table = write_csv(folder / "cifar10.csv", ["image", "caption"], ROWS)
    assert read_dataset("pairs", table).name == "cifar10-pairs"
