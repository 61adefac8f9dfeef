"""Class folders: `<split>/<class>/<image>`, in a folder or in a zip archive.

Classes are the folders that hold an image in any split, in the order of their names.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...cache.errors import InputError
from ..dataset import LeftOut
from ..images import IMAGE_ENDINGS
from .labelled import LabelledImages, labelled_split
from .listing import FolderTree, Tree
from .source import (
    SPLIT_OF,
    MissingError,
    SourceDataset,
    chosen_splits,
    encodable,
    printable,
    slug,
)


def read_imagefolder(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """Any folder of `{train,val,test}/<class>/*`; its name is the data set's.

    Raises:
        InputError: If it has no such folders, or no split that is asked for.
    """
    return read_class_folders(home, slug(os.path.basename(os.path.abspath(home))), asked)


def has_class_folders(home: Path) -> bool:
    """Whether a folder of a split's name lies in `home`."""
    return home.is_dir() and any((home / name).is_dir() for name in SPLIT_OF)


def read_class_folders(home: Path, name: str, asked: Sequence[str] | None) -> SourceDataset:
    """The class folders in `home`, as the data set `name`.

    Raises:
        InputError: If there are none, or no split that is asked for.
    """
    if not has_class_folders(home):
        raise MissingError("folders train/<class>/, val/<class>/ or test/<class>/", home)
    return read_class_tree(FolderTree(home), home, name, asked, spoken)


def spoken(folder: str) -> str:
    """The name of a class as people say it."""
    return " ".join(folder.replace("_", " ").split())


def read_class_tree(
    tree: Tree,
    home: Path,
    name: str,
    asked: Sequence[str] | None,
    name_of: Callable[[str], str],
) -> SourceDataset:
    """The class folders of a tree.

    Args:
        tree: The files.
        home: Where the data set lies, for error lines.
        name: Name of the data set in the cache.
        asked: Splits asked for, or None for all.
        name_of: From a class's folder to its name.
    """
    listed: dict[str, list[str]] = {}
    folders: dict[str, str] = {}
    for path in tree.names():
        folder, _, rest = path.partition("/")
        split = SPLIT_OF.get(folder, "")
        is_image = Path(path).suffix.lower() in IMAGE_ENDINGS
        if split and "/" in rest and is_image and not rest.startswith("."):
            if folders.setdefault(split, folder) != folder:
                raise InputError(
                    f"{home}: {folders[split]}/ and {folder}/ are both split {split}; keep one"
                )
            listed.setdefault(split, []).append(path)
    if not listed:
        raise InputError(f"{home}: no image below a folder <split>/<class>/")
    found = sorted({path.split("/")[1] for paths in listed.values() for path in paths})
    class_folders = [folder for folder in found if encodable(folder)]
    label_of = {folder: label for label, folder in enumerate(class_folders)}
    classes = distinct(class_folders, [name_of(folder) for folder in class_folders])
    splits = [
        labelled_split(split, _images(tree, listed[split], label_of), classes, listed, str(home))
        for split in chosen_splits(list(listed), asked, home)
    ]
    return SourceDataset(name, "labelled", home, splits)


def _images(tree: Tree, paths: Sequence[str], label_of: Mapping[str, int]) -> LabelledImages:
    images = LabelledImages()
    for path in paths:
        if encodable(path):
            images.add(path, tree.image(path), label_of[path.split("/")[1]])
        else:
            reason = "its name is not UTF-8; rename the file"
            images.left_out.append(LeftOut("image", printable(path), reason))
    return images


def distinct(folders: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names made different: where two classes share one, the folder's name is added."""
    times = Counter(names)
    return [
        name if name and times[name] == 1 else f"{name} ({folder})".strip()
        for folder, name in zip(folders, names, strict=True)
    ]
