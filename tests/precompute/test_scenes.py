import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from cbmf.cache.errors import InputError
from cbmf.precompute.drawing import attribute_count, changed, draw_scene, paint
from cbmf.precompute.scenes import (
    CAPTIONS_PER_IMAGE,
    CLASSES,
    DEMO_ENCODERS,
    captions,
    demo_encoder,
    write_demo,
)

SMALL = {"train": 12, "val": 4, "test": 5, "labelled_train": 3, "labelled_test": 2, "sentences": 20}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, **SMALL)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_one_seed_gives_the_same_bytes_and_another_seed_other_bytes(demo: Path, tmp_path: Path):
    write_demo(tmp_path / "again", **SMALL)
    write_demo(tmp_path / "other", **SMALL, seed=1)
    first, again, other = contents(demo), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert first == again
    assert first.keys() == other.keys()
    assert not any(first[name] == other[name] for name in first)


def test_a_second_run_touches_no_file_and_mends_a_broken_one(tmp_path: Path):
    write_demo(tmp_path, **SMALL)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    broken = tmp_path / "coco" / "val2017" / "000000000013.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    write_demo(tmp_path, **SMALL)
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    assert broken.read_bytes() == whole
    assert {p for p in after if after[p] != before[p]} == {broken}


def test_a_folder_with_a_demo_of_other_settings_is_refused(demo: Path):
    with pytest.raises(InputError, match="other settings"):
        write_demo(demo, **SMALL, seed=7)


def test_karpathys_file_has_five_captions_an_image_and_the_three_splits(demo: Path):
    images = json.loads((demo / "coco" / "dataset_coco.json").read_text())["images"]
    assert Counter(i["split"] for i in images) == {"train": 12, "val": 4, "test": 5}
    for image in images:
        assert len(image["sentences"]) == CAPTIONS_PER_IMAGE == 5
        assert image["sentids"] == [s["sentid"] for s in image["sentences"]]
        assert all(s["raw"] == s["raw"].lower() for s in image["sentences"])
        assert all(s["tokens"] == s["raw"].translate(NO_MARKS).split() for s in image["sentences"])
        with Image.open(demo / "coco" / image["filepath"] / image["filename"]) as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")


NO_MARKS = str.maketrans("", "", ".,:")


def test_cocos_own_files_say_what_karpathys_says(demo: Path):
    karpathy = json.loads((demo / "coco" / "dataset_coco.json").read_text())["images"]
    for folder in ("train2017", "val2017"):
        path = demo / "coco" / "annotations" / f"captions_{folder}.json"
        official = json.loads(path.read_text())
        mine = [image for image in karpathy if image["filepath"] == folder]
        assert {i["id"]: i["file_name"] for i in official["images"]} == {
            i["cocoid"]: i["filename"] for i in mine
        }
        assert [(a["image_id"], a["caption"]) for a in official["annotations"]] == [
            (i["cocoid"], s["raw"]) for i in mine for s in i["sentences"]
        ]


def test_labelled_classes_are_balanced(demo: Path):
    for split, count in (("train", 3), ("test", 2)):
        pictures = (demo / "scenes10" / split).glob("*/*.png")
        assert Counter(p.parent.name for p in pictures) == dict.fromkeys(CLASSES, count)


def test_half_of_the_paraphrase_pairs_are_paraphrases(demo: Path):
    for name in ("train.tsv", "dev.tsv"):
        header, *pairs = rows(demo / "paraphrase" / name)
        assert header == ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]
        assert Counter(pair[5] for pair in pairs) == {"0": 10, "1": 10}
        assert all(len(pair) == 6 and pair[3] != pair[4] for pair in pairs)


def test_similarity_scores_lie_in_zero_to_five(demo: Path):
    for split in ("train", "dev", "test"):
        pairs = rows(demo / "similarity" / f"sts-{split}.csv")
        assert [len(pair) for pair in pairs] == [7] * 20
        scores = [float(pair[4]) for pair in pairs]
        assert 0 <= min(scores) < 2 and 3 < max(scores) <= 5


def test_changed_changes_as_many_attributes_as_asked():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = draw_scene(rng)
        for count in range(attribute_count(scene) + 1):
            other = changed(scene, count, rng)
            pairs = zip(scene.things, other.things, strict=True)
            named = [
                pair
                for a, b in pairs
                for pair in zip(vars(a).items(), vars(b).items(), strict=True)
            ]
            different = sum(a != b for a, b in named) + (scene.background != other.background)
            assert different == count
            assert len({thing.kind for thing in other.things}) == len(other.things)


def test_the_first_caption_names_every_colour():
    rng = np.random.default_rng(0)
    for _ in range(100):
        scene = draw_scene(rng)
        first = captions(scene, rng)[0]
        assert all(f" {thing.colour} " in f" {first} " for thing in scene.things)


def test_the_demo_encoders_are_small():
    sizes = [p.stat().st_size for n in DEMO_ENCODERS for p in demo_encoder(n).rglob("*")]
    assert 0 < sum(sizes) < 6_000_000


def test_an_unknown_encoder_is_refused_by_name():
    with pytest.raises(ValueError, match="demo-clip"):
        demo_encoder("demo-clip")


@pytest.mark.parametrize("name", ["demo-bert", "demo-roberta"])
def test_text_encoders_tell_sentences_apart(name: str):
    folder = demo_encoder(name)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    texts = ["a photo of a red car.", "a photo of a red automobile.", "a blue fish in the snow"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model.eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(2)
    car, automobile, fish = (states * mask).sum(dim=1) / mask.sum(dim=1)
    assert states.dtype == torch.float32 and torch.isfinite(states).all()
    assert tokenizer.unk_token_id not in tokens["input_ids"]
    near, far = (torch.cosine_similarity(car, other, dim=0) for other in (automobile, fish))
    assert near > far + 0.3


def test_the_image_encoder_knows_the_classes(demo: Path):
    folder = demo_encoder("demo-vit")
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()

    def encode(split: str) -> torch.Tensor:  # (10 classes, pictures, D)
        paths = sorted((demo / "scenes10" / split).glob("*/*.png"))
        pixels = processor([Image.open(p) for p in paths], return_tensors="pt")["pixel_values"]
        assert pixels.shape[1:] == (3, 64, 64)
        with torch.inference_mode():
            return model(pixels).last_hidden_state.mean(dim=1).unflatten(0, (len(CLASSES), -1))

    centres, test = encode("train").mean(dim=1), encode("test").flatten(0, 1)
    assert torch.isfinite(test).all()
    nearest = torch.cdist(test, centres).argmin(dim=1)
    labels = torch.arange(len(CLASSES)).repeat_interleave(2)
    assert (nearest == labels).float().mean() > 0.5  # chance is 0.1


def test_pictures_of_one_scene_differ_a_little():
    rng = np.random.default_rng(3)
    scene = draw_scene(rng)
    one, other = (np.asarray(paint(scene, rng), dtype=float) for _ in range(2))
    assert 0 < np.abs(one - other).mean() < 60
