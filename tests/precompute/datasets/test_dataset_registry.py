import pytest

from cbmf.cache.errors import InputError
from cbmf.precompute.datasets.registry import DATASETS, read_dataset
from cbmf.precompute.datasets.seeded import seeded_pair_splits, seeded_splits
from cbmf.precompute.datasets.source import slug

HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


def mrpc(folder):
    folder.mkdir(parents=True)
    (folder / "msr_paraphrase_test.txt").write_text(HEADER + "1\t1\t2\ta\tb\n")
    return folder


def test_an_unknown_name_gets_the_names_and_a_suggestion(tmp_path):
    with pytest.raises(InputError, match=r"'flickr8'; did you mean flickr8k\?.*cifar10.*stsb"):
        read_dataset("flickr8", tmp_path)
    with pytest.raises(InputError, match=r"'zzz'.*There are: cifar10"):
        read_dataset("zzz", tmp_path)


def test_every_entry_says_what_it_is_and_where_to_get_it():
    for reader in DATASETS.values():
        assert reader.kind in ("image-text", "labelled", "sentence-pairs", "caption-texts")
        assert reader.description and "\n" not in reader.description
        assert reader.source.startswith(("http", "your own"))


def test_without_a_root_the_environment_then_data_is_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CBMF_DATA", raising=False)
    here = mrpc(tmp_path / "data" / "mrpc")
    assert read_dataset("mrpc", None).root == here
    there = mrpc(tmp_path / "elsewhere" / "MRPC")
    monkeypatch.setenv("CBMF_DATA", str(tmp_path / "elsewhere"))
    assert read_dataset("mrpc", None).root == there
    monkeypatch.setenv("CBMF_DATA", str(tmp_path / "none"))
    with pytest.raises(InputError, match=str(tmp_path / "none" / "mrpc")):
        read_dataset("mrpc", None)


@pytest.mark.parametrize("name", ["MRPC", "mrpc", "MSR-Paraphrase-Corpus"])
def test_a_parent_folder_will_do(tmp_path, name):
    folder = mrpc(tmp_path / name)
    assert read_dataset("mrpc", tmp_path).root == folder
    assert read_dataset("mrpc", folder).root == folder


def test_all_places_that_were_looked_at_are_named(tmp_path):
    (tmp_path / "MRPC").mkdir()
    with pytest.raises(InputError) as error:
        read_dataset("mrpc", tmp_path)
    assert f"in {tmp_path}, {tmp_path / 'MRPC'}; get it" in str(error.value)


def test_hash_splits_are_near_their_shares_and_never_move_an_item():
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    few = seeded_splits((f"i{n}" for n in range(1000)), shares)
    many = seeded_splits((f"i{n}" for n in range(3000)), shares)
    assert all(many[key] == split for key, split in few.items())
    sizes = [sum(s == name for s in many.values()) / 3000 for name in shares]
    assert sizes == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


@pytest.mark.parametrize("count", range(3, 12))
def test_no_hash_split_is_empty(count):
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    for start in range(0, 200, 20):
        split_of = seeded_splits((f"k{n}" for n in range(start, start + count)), shares)
        assert set(split_of.values()) == set(shares) and len(split_of) == count


def test_a_giant_group_of_texts_goes_to_train():
    giant = [("hub", f"g{n}") for n in range(300)]
    small = [(f"a{n}", f"b{n}") for n in range(300)]
    splits = seeded_pair_splits([*giant, *small], {"train": 0.5, "val": 0.5})
    assert set(splits[:300]) == {"train"}
    assert 100 < splits[300:].count("val") < 200


def test_slugs_are_plain():
    assert slug("My Captions (v2)") == "my-captions-v2"
    assert slug("../..") == "own" and slug("Ünï") == "n"
