"""Tiny ImageNet: `tiny-imagenet-200.zip` read in place, or its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ...cache.errors import InputError
from ..dataset import LeftOut
from ..images import IMAGE_ENDINGS
from .captions import NO_FILE
from .class_folders import distinct
from .labelled import LabelledImages, labelled_split
from .listing import FolderTree, Tree, zip_tree
from .source import MissingError, SourceDataset, chosen_splits, encodable, printable

_ARCHIVE = "tiny-imagenet-200.zip"
_FOLDER = "tiny-imagenet-200"
_WNIDS = "wnids.txt"
_WORDS = "words.txt"
_VAL = "val/val_annotations.txt"


def read_tiny_imagenet(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """Tiny ImageNet, train and val (its test has no labels). Image ids are paths below its folder.

    Classes are those of wnids.txt that have an image, in the order of their wnids.

    Raises:
        InputError: If it is not there or not whole, or a split that is asked for is not.
    """
    tree, place = _tree(home)
    names = tree.names()
    if _WORDS not in names:
        raise MissingError(_WORDS, place, _WNIDS)
    wnids = set(tree.read(_WNIDS).decode("utf-8", "replace").split())
    wnid_of, left_out = _labels(tree, names)
    found = {split: set(of_split.values()) for split, of_split in wnid_of.items()}
    strangers = sorted(set().union(*found.values()) - wnids)
    used = sorted(set().union(*found.values()) & wnids)
    if not used:
        raise InputError(f"{place}: no image of a class that {_WNIDS} names")
    classes = _class_names(tree, used)
    label_of = {wnid: label for label, wnid in enumerate(used)}
    there = [split for split in found if found[split] & wnids]
    gaps = {"train": "no images", "val": f"no images with {_VAL}"}
    splits = []
    for split in chosen_splits(there, asked, place, gaps | {"test": "it has no labels"}):
        images = LabelledImages(left_out=left_out[split])
        for path, wnid in wnid_of[split].items():
            if wnid in label_of:
                images.add(path, tree.image(path), label_of[wnid])
        splits.append(labelled_split(split, images, classes, there, str(place)))
    notes = [f"images of {w[:40]!r} are not read: not in {_WNIDS}" for w in strangers]
    notes += [f"split {name} is not read: {gaps[name]}" for name in found if name not in there]
    return SourceDataset("tiny-imagenet", "labelled", place, splits, notes)


def _tree(home: Path) -> tuple[Tree, Path]:
    for folder in (home, home / _FOLDER):
        if (folder / _WNIDS).is_file():
            return FolderTree(folder), folder
    archive = home if home.is_file() else home / _ARCHIVE
    if not archive.is_file():
        raise MissingError(f"{_ARCHIVE} or {_FOLDER}/{_WNIDS}", home)
    tree = zip_tree(archive, _WNIDS)
    if tree is None:
        raise MissingError(_WNIDS, archive, "an archive")
    return tree, archive


def _labels(
    tree: Tree, names: Sequence[str]
) -> tuple[dict[str, dict[str, str]], dict[str, list[LeftOut]]]:
    """By split, the wnid of each image; and what is left out."""
    left_out: dict[str, list[LeftOut]] = {"train": [], "val": []}
    wnid_of: dict[str, dict[str, str]] = {"train": {}, "val": {}}
    annotated = _annotations(tree) if _VAL in names else {}
    missing = set(annotated)
    for path in names:
        split, _, rest = path.partition("/")
        if split not in wnid_of or PurePosixPath(path).suffix.lower() not in IMAGE_ENDINGS:
            continue
        wnid = annotated.get(path) if annotated and split == "val" else rest.partition("/")[0]
        missing.discard(path)
        if not encodable(path):
            reason = "its name is not UTF-8; rename the file"
        elif wnid is None:
            reason = f"no label in {_VAL}"
        else:
            wnid_of[split][path] = wnid
            continue
        left_out[split].append(LeftOut("image", printable(path), reason))
    left_out["val"] += [LeftOut("image", path, NO_FILE) for path in sorted(missing)]
    return wnid_of, left_out


def _annotations(tree: Tree) -> dict[str, str]:
    """The wnid of each image of val, by its path."""
    wnid_of: dict[str, str] = {}
    for line in tree.read(_VAL).decode("utf-8", "replace").split("\n"):
        name, tab, rest = line.rstrip("\r").partition("\t")
        if tab:
            wnid_of[f"val/images/{name}"] = rest.partition("\t")[0].strip()
    return wnid_of


def _class_names(tree: Tree, wnids: Sequence[str]) -> list[str]:
    """The first synonym of each class in words.txt, or the wnid where it has none."""
    words: dict[str, str] = {}
    wanted = set(wnids)
    for line in tree.read(_WORDS).decode("utf-8", "replace").split("\n"):
        wnid, _, synonyms = line.rstrip("\r").partition("\t")
        if wnid in wanted:
            words[wnid] = synonyms.partition(",")[0].strip()
    return distinct(wnids, [words.get(wnid) or wnid for wnid in wnids])
