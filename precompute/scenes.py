"""The demo's data: generated scenes and captions in the file layouts of the real data sets."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..cache.errors import InputError
from ..cache.files import PART, full_disk_is_one_line
from .drawing import (
    BACKGROUNDS,
    KINDS,
    WIDTH,
    Scene,
    Thing,
    attribute_count,
    changed,
    draw_scene,
    draw_thing,
    paint,
    pick,
)

CLASSES: tuple[str, ...] = KINDS
"""Class names (and folders) of the labelled set `scenes10`, in the order of their labels."""
CAPTIONS_PER_IMAGE = 5
DEMO_ENCODERS: tuple[str, ...] = ("demo-vit", "demo-bert", "demo-roberta")
"""Names of the encoders that ship with the package; see docs/demo-encoders.md."""

_NAMES: dict[str, tuple[str, ...]] = {
    "boat": ("boat", "boat", "sailboat", "ship"),
    "car": ("car", "car", "automobile"),
    "flower": ("flower", "flower", "blossom"),
    "house": ("house", "house", "cottage", "home"),
    "mushroom": ("mushroom", "mushroom", "toadstool"),
    "umbrella": ("umbrella", "umbrella", "parasol"),
}
"""What a thing may be called; the kinds that are absent have one name."""
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
_PLACES: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "in a meadow", "on a lawn"),
    "night": ("at night", "in the dark", "under the night sky"),
    "sand": ("on the sand", "on the beach", "in the desert"),
    "sea": ("on the sea", "in the water", "on the ocean"),
    "sky": ("in the sky", "among the clouds", "up in the air"),
    "snow": ("in the snow", "on a snowy field", "on a winter day"),
}
_TEMPLATES: dict[str, tuple[str, ...]] = {
    "alone": (
        "{a} {where}",
        "there is {a} {where}",
        "a photo of {a} {where}",
        "a picture of {a} {where}",
        "{where} we see {a}",
    ),
    "beside": (
        "{a} to the left of {b} {where}",
        "{where} {b} is to the right of {a}",
        "a photo of {a} and {b} {where}",
        "a picture with {a} on the left and {b} on the right {where}",
        "there is {a} next to {b} {where}",
    ),
    "stacked": (
        "{a} above {b} {where}",
        "{where} {b} is below {a}",
        "a photo of {a} and {b} {where}",
        "a picture with {a} at the top and {b} at the bottom {where}",
        "there is {b} under {a} {where}",
    ),
    "below": (
        "{a} to the left of {b} with {c} below them {where}",
        "{where} {a} and {b} are above {c}",
        "a photo of {a}, {b} and {c} {where}",
        "a picture with {a} and {b} at the top and {c} at the bottom {where}",
        "three things {where}: {c}, {a} and {b}",
    ),
    "above": (
        "{a} to the left of {b} with {c} above them {where}",
        "{where} {a} and {b} are below {c}",
        "a photo of {c}, {a} and {b} {where}",
        "a picture with {c} at the top and {a} and {b} at the bottom {where}",
        "three things {where}: {a}, {b} and {c}",
    ),
}
_FULL = frozenset({"size", "colour", "place"})
_DETAILS = (_FULL, _FULL - {"size"}, _FULL - {"place"}, frozenset({"colour"}), frozenset({"place"}))
"""What the five captions of a scene name beside the kinds of its things."""


def captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five captions of a scene, no two of one phrasing, from all its attributes to a few."""
    templates = rng.permutation(_TEMPLATES[scene.layout])
    return [_caption(scene, str(t), d, rng) for t, d in zip(templates, _DETAILS, strict=True)]


def paraphrases(first: Scene, second: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """One caption of each scene, both naming every attribute, in two different phrasings."""
    one = pick(rng, _TEMPLATES[first.layout])
    other = pick(rng, [t for t in _TEMPLATES[second.layout] if t != one])
    return _caption(first, one, _FULL, rng), _caption(second, other, _FULL, rng)


def _caption(scene: Scene, template: str, details: frozenset[str], rng: np.random.Generator) -> str:
    names = [_noun_phrase(thing, details, rng) for thing in scene.things]
    where = pick(rng, _PLACES[scene.background]) if "place" in details else ""
    text = template.format(where=where, **dict(zip("abc", names, strict=False)))
    return " ".join(text.replace(" :", ":").split()) + pick(rng, ("", "."))


def _noun_phrase(thing: Thing, details: frozenset[str], rng: np.random.Generator) -> str:
    words = [pick(rng, _NAMES.get(thing.kind, (thing.kind,)))]
    if "colour" in details:
        words.insert(0, thing.colour)
    if "size" in details:
        words.insert(0, pick(rng, _SIZE_WORDS[thing.size]))
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def write_demo(
    root: Path,
    *,
    train: int = 2000,
    val: int = 300,
    test: int = 300,
    labelled_train: int = 40,
    labelled_test: int = 20,
    sentences: int = 400,
    seed: int = 0,
) -> None:
    """Write the demo's four data sets, each in the layout of the real one it stands for.

    `coco/` (COCO 2017, Karpathy's split), `scenes10/` (class folders), `paraphrase/` (GLUE QQP) and
    `similarity/` (STS benchmark). The same settings give the same bytes, and files that hold them
    already are left as they are: a second run, or one after an interruption, is safe.

    Args:
        root: Folder to write to; made if absent.
        train: Captioned scenes to train on.
        val: Captioned scenes to validate on.
        test: Captioned scenes to test on.
        labelled_train: Labelled pictures of each class to train on.
        labelled_test: Labelled pictures of each class to test on.
        sentences: Rows of each file of sentence pairs.
        seed: Decides everything that is drawn by lot.

    Raises:
        InputError: If `root` holds a demo of other settings.
        DiskFullError: If the disk has no room.
    """
    settings = {
        "version": 1, "train": train, "val": val, "test": test, "labelled_train": labelled_train,
        "labelled_test": labelled_test, "sentences": sentences, "seed": seed,
    }  # fmt: skip
    _claim(root / "demo.json", settings)
    _write_coco(root / "coco", {"train": train, "val": val, "test": test}, seed)
    for part, count in enumerate((labelled_train, labelled_test)):
        _write_labelled(root / "scenes10" / ("train", "test")[part], count, [seed, 1, part])
    for part, name in enumerate(("train.tsv", "dev.tsv")):
        rows = _paraphrase_rows(sentences, np.random.default_rng([seed, 2, part]))
        _write_rows(root / "paraphrase" / name, rows)
    for part, name in enumerate(("train", "dev", "test")):
        rows = _similarity_rows(sentences, np.random.default_rng([seed, 3, part]))
        _write_rows(root / "similarity" / f"sts-{name}.csv", rows)


def _claim(receipt: Path, settings: dict[str, int]) -> None:
    """Note what the folder holds, and refuse one that holds something else."""
    text = json.dumps(settings) + "\n"
    if receipt.exists() and receipt.read_text() != text:
        raise InputError(
            f"{receipt.parent}: holds a demo of other settings ({receipt.read_text().strip()}); "
            "choose another folder"
        )
    _write(receipt, text.encode())


def _write_coco(root: Path, counts: dict[str, int], seed: int) -> None:
    rng = np.random.default_rng([seed, 0])
    scenes = _different_scenes(sum(counts.values()), rng)
    splits = [split for split, count in counts.items() for _ in range(count)]
    images: list[dict[str, Any]] = []
    for imgid, (scene, split) in enumerate(zip(scenes, splits, strict=True)):
        folder, name = "train2017" if split == "train" else "val2017", f"{imgid + 1:012d}.jpg"
        picture = paint(scene, np.random.default_rng([seed, 4, imgid]))
        _write_picture(root / folder / name, picture, format="JPEG", quality=92, subsampling=0)
        sentences = [
            {"raw": text, "tokens": re.findall(r"\w+", text), "imgid": imgid, "sentid": sentid}
            for sentid, text in enumerate(captions(scene, rng), start=CAPTIONS_PER_IMAGE * imgid)
        ]
        sentids = [sentence["sentid"] for sentence in sentences]
        images.append(
            {"filepath": folder, "filename": name, "imgid": imgid, "cocoid": imgid + 1,
             "split": split, "sentids": sentids, "sentences": sentences}
        )  # fmt: skip
    karpathy = {"dataset": "coco", "images": images}
    _write(root / "dataset_coco.json", json.dumps(karpathy).encode())
    for folder in ("train2017", "val2017"):
        official = _official([image for image in images if image["filepath"] == folder])
        path = root / "annotations" / f"captions_{folder}.json"
        _write(path, json.dumps(official).encode())


def _different_scenes(count: int, rng: np.random.Generator) -> list[Scene]:
    """Scenes no two of which a full caption would describe alike."""
    scenes: dict[Scene, None] = {}
    while len(scenes) < count:
        scenes[draw_scene(rng)] = None
    return list(scenes)


def _official(images: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Entries of Karpathy's file as the content of a file of COCO's own."""
    size = {"width": WIDTH, "height": WIDTH}
    rows = [(image["cocoid"], image["filename"], image["sentences"]) for image in images]
    return {
        "images": [{"id": image, "file_name": name, **size} for image, name, _ in rows],
        "annotations": [
            {"id": sentence["sentid"], "image_id": image, "caption": sentence["raw"]}
            for image, _, sentences in rows
            for sentence in sentences
        ],
    }


def _write_labelled(root: Path, count: int, seeds: list[int]) -> None:
    rng = np.random.default_rng(seeds)
    for kind in CLASSES:
        for i in range(count):
            scene = Scene((draw_thing(rng, kind),), "alone", pick(rng, BACKGROUNDS))
            _write_picture(root / kind / f"{i:04d}.png", paint(scene, rng), format="PNG")


def _paraphrase_rows(count: int, rng: np.random.Generator) -> list[list[str]]:
    """Header and rows of GLUE QQP: half paraphrases, a quarter each one change or another scene."""
    rows = [["id", "qid1", "qid2", "question1", "question2", "is_duplicate"]]
    for i in range(count):
        scene, other = draw_scene(rng), draw_scene(rng)
        second = (scene, changed(scene, 1, rng), scene, other)[i % 4]
        texts = paraphrases(scene, second, rng)
        same = str(int(second == scene))
        rows.append([str(i), str(2 * i), str(2 * i + 1), *texts, same])
    return rows


def _similarity_rows(count: int, rng: np.random.Generator) -> list[list[str]]:
    """Rows of the STS benchmark: the score is the share of attributes in common, times five."""
    rows = []
    for i in range(count):
        scene = draw_scene(rng)
        changes = int(rng.integers(attribute_count(scene) + 1))
        texts = paraphrases(scene, changed(scene, changes, rng), rng)
        score = 5 * (1 - changes / attribute_count(scene))
        rows.append(["main-captions", "demo", "2017", f"{i:04d}", f"{score:.3f}", *texts])
    return rows


def _write_rows(path: Path, rows: list[list[str]]) -> None:
    _write(path, "".join("\t".join(row) + "\n" for row in rows).encode())


def _write_picture(path: Path, picture: Image.Image, **options: Any) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; leave one that already holds this content as it is."""
    if path.is_file() and path.read_bytes() == content:
        return
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    with full_disk_is_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)


def demo_encoder(name: str) -> Path:
    """The folder of one of `DEMO_ENCODERS`, which transformers' Auto classes load.

    Raises:
        ValueError: If there is no encoder of that name.
    """
    if name not in DEMO_ENCODERS:
        raise ValueError(f"no demo encoder {name!r}; there are {', '.join(DEMO_ENCODERS)}")
    return Path(__file__).parent / "demo_encoders" / name
