import pytest
from small_layouts import arranged, picture, shuffled, write_json
from split_views import images, pairs

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets.registry import read_dataset

LISTS = {"train": "Flickr_8k.trainImages.txt", "dev": "Flickr_8k.devImages.txt"}
LISTS["test"] = "Flickr_8k.testImages.txt"
NAMES = [f"{i}_abc.jpg" for i in range(8)]
OF_SPLIT = {"train": NAMES[:4], "dev": NAMES[4:6], "test": NAMES[6:]}
TOKENS = [f"{name}#{k}\tCaption {k} of {name} ." for name in NAMES for k in range(2)]


@pytest.fixture
def flickr(tmp_path):
    """The official layout; two captions an image."""
    root = tmp_path / "Flickr8k"
    for name in NAMES:
        picture(root / "Flicker8k_Dataset" / name)
    text = root / "Flickr8k_text"
    text.mkdir()
    (text / "Flickr8k.token.txt").write_text("\n".join(TOKENS) + "\n")
    for part, names in OF_SPLIT.items():
        (text / LISTS[part]).write_text("\n".join(names) + "\n\n")
    return root


def view(found):
    return {s.name: (s.columns["image"].ids, s.columns["text"].ids) for s in found.splits}


def test_official_lists_make_train_val_and_test(flickr):
    found = read_dataset("flickr8k", flickr)
    assert view(found) == {
        ours: (names, [f"{n}#{k}" for n in names for k in range(2)])
        for ours, names in zip(("train", "val", "test"), OF_SPLIT.values(), strict=True)
    }
    test = found.splits[2]
    assert test.columns["text"].values[3] == "Caption 1 of 7_abc.jpg ."
    assert images(test)[0].name == "Flicker8k_Dataset/6_abc.jpg"
    assert pairs(test).ids[1] == ("6_abc.jpg", "6_abc.jpg#1")
    assert found.notes == []


def test_the_parent_of_the_folder_will_do(flickr, tmp_path):
    assert read_dataset("flickr8k", tmp_path).root == flickr


@pytest.mark.parametrize("folder", ["", "text"])
def test_texts_may_lie_in_the_root_or_in_text(flickr, folder):
    before = view(read_dataset("flickr8k", flickr))
    (flickr / folder).mkdir(exist_ok=True)
    for path in list((flickr / "Flickr8k_text").iterdir()):
        path.rename(flickr / folder / path.name)
    assert view(read_dataset("flickr8k", flickr)) == before


def test_order_of_lines_does_not_matter(flickr):
    before = [arranged(split) for split in read_dataset("flickr8k", flickr).splits]
    text = flickr / "Flickr8k_text"
    (text / "Flickr8k.token.txt").write_text("\n".join(shuffled(TOKENS)))
    (text / LISTS["train"]).write_text("\r\n".join(shuffled(OF_SPLIT["train"])))
    assert [arranged(split) for split in read_dataset("flickr8k", flickr).splits] == before


def test_captions_of_images_in_no_list_are_passed_over(flickr):
    before = view(read_dataset("flickr8k", flickr))
    with (flickr / "Flickr8k_text/Flickr8k.token.txt").open("a") as file:
        file.write("2258277193_586949ec62.jpg.1#0\tpeople waiting for the subway\n")
    found = read_dataset("flickr8k", flickr)
    assert view(found) == before
    assert not any(split.left_out for split in found.splits)


def test_listed_but_missing_and_undescribed_images_are_left_out(flickr):
    (flickr / "Flicker8k_Dataset" / NAMES[6]).unlink()
    with (flickr / "Flickr8k_text" / LISTS["test"]).open("a") as file:
        file.write(f"{NAMES[6]}\nunknown.jpg\n")
    table = flickr / "Flickr8k_text/Flickr8k.token.txt"
    table.write_text("\n".join([*TOKENS[:-2], f"{NAMES[7]}#0\t  ", f"{NAMES[7]}#1\tyes"]))
    (test,) = read_dataset("flickr8k", flickr, ["test"]).splits
    assert sorted((x.column, x.item_id, x.reason) for x in test.left_out) == [
        ("image", NAMES[6], "no such file"),
        ("image", "unknown.jpg", "no such file"),
        ("text", f"{NAMES[7]}#0", "empty caption"),
    ]
    assert test.columns["text"].ids == [f"{NAMES[7]}#1"]


def test_byte_order_mark_and_stray_bytes_do_not_stop_the_reading(flickr):
    table = flickr / "Flickr8k_text/Flickr8k.token.txt"
    lines = [line.encode() for line in TOKENS]
    lines[1] = b"0_abc.jpg#1\tcaf\xe9"
    lines.append(b"no tab here")
    table.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    train = read_dataset("flickr8k", flickr).splits[0]
    assert train.columns["text"].ids[:2] == ["0_abc.jpg#0", "1_abc.jpg#0"]
    assert [(x.item_id, x.reason) for x in train.left_out] == [
        ("Flickr8k.token.txt:2", "not UTF-8"),
        ("Flickr8k.token.txt:17", "not '<image>#<number><tab><caption>'"),
    ]


def kaggle(flickr, lines):
    for path in list((flickr / "Flickr8k_text").iterdir()):
        path.unlink()
    (flickr / "captions.txt").write_text("image,caption\n" + "\n".join(lines) + "\n")


def test_kaggles_captions_are_split_by_hash_with_a_note(flickr):
    lines = [f'{name},"one, ""two"" {k}"' for name in NAMES for k in range(2)]
    kaggle(flickr, lines)
    found = read_dataset("flickr8k", flickr)
    assert "hash" in found.notes[0]
    sizes = {s.name: len(s.columns["image"].ids) for s in found.splits}
    assert sum(sizes.values()) == 8 and set(sizes) == {"train", "val", "test"}
    assert found.splits[0].columns["text"].values[:2] == ['one, "two" 0', 'one, "two" 1']
    kaggle(flickr, shuffled(lines))
    again = read_dataset("flickr8k", flickr)
    assert [arranged(s) for s in again.splits] == [arranged(s) for s in found.splits]


def test_an_open_quote_in_kaggles_file_does_not_swallow_the_rest(flickr):
    kaggle(flickr, [f"{NAMES[0]},fine", f'{NAMES[1]},"open', f"{NAMES[2]},lost"])
    with pytest.raises(InputError, match=r"captions\.txt: line 4: .*quotes"):
        read_dataset("flickr8k", flickr)


def karpathy(flickr):
    entries = [
        {
            "filename": name,
            "split": {"dev": "val"}.get(part, part),
            "sentences": [{"raw": f"said {k}", "sentid": k} for k in range(2)],
        }
        for part, names in {"train": NAMES[:1], "dev": NAMES[1:2], "test": NAMES[2:]}.items()
        for name in names
    ]
    write_json(flickr / "dataset_flickr8k.json", {"images": entries, "dataset": "flickr8k"})


def test_official_lists_go_before_karpathys_split(flickr):
    before = view(read_dataset("flickr8k", flickr))
    karpathy(flickr)
    assert view(read_dataset("flickr8k", flickr)) == before


def test_karpathys_json_serves_where_lists_and_captions_are_missing(flickr):
    karpathy(flickr)
    for path in list((flickr / "Flickr8k_text").iterdir()):
        path.unlink()
    found = read_dataset("flickr8k", flickr)
    assert [len(s.columns["image"].ids) for s in found.splits] == [1, 1, 6]
    assert found.splits[0].columns["text"].ids == [f"{NAMES[0]}#0", f"{NAMES[0]}#1"]
    assert "Karpathy" in found.notes[0]


def test_a_missing_list_is_a_missing_split(flickr):
    (flickr / "Flickr8k_text" / LISTS["dev"]).unlink()
    assert list(view(read_dataset("flickr8k", flickr))) == ["train", "test"]
    with pytest.raises(InputError, match=r"no split 'val' \(no Flickr_8k.devImages.txt\)"):
        read_dataset("flickr8k", flickr, ["dev"])


def test_images_without_captions_and_captions_without_images_are_refused(flickr):
    (flickr / "Flicker8k_Dataset").rename(flickr / "away")
    with pytest.raises(InputError, match=r"found Flickr8k.token.txt, but no folder of images"):
        read_dataset("flickr8k", flickr)
    (flickr / "away").rename(flickr / "images")
    (flickr / "Flickr8k_text/Flickr8k.token.txt").unlink()
    with pytest.raises(InputError, match=r"found images/, but no captions .*get it: https://"):
        read_dataset("flickr8k", flickr)


def test_an_image_in_two_lists_is_refused(flickr):
    with (flickr / "Flickr8k_text" / LISTS["test"]).open("a") as file:
        file.write(NAMES[0])
    with pytest.raises(InputError, match="is listed in train too"):
        read_dataset("flickr8k", flickr)
