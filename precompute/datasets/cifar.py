"""CIFAR-10 and CIFAR-100: the official Python archive in place, its folder, or class folders."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...cache.errors import InputError
from ..images import Pixels, safe_tar_members
from .class_folders import has_class_folders, read_class_folders, spoken
from .labelled import LabelledImages, labelled_split
from .source import MissingError, SourceDataset, chosen_splits
from .unpickle import load_plain

MEMBER_LIMIT = 1024**3
"""Bytes of one file of the archive; a larger one is refused (a decompression bomb)."""
_SIDE = 32
_VALUES = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class _Form:
    name: str
    archives: tuple[str, ...]
    folder: str
    meta: str
    names_key: str
    label_key: str
    files: dict[str, tuple[str, ...]]
    """By split, the batches that it is made of."""


_CIFAR10 = _Form(
    name="cifar10",
    archives=("cifar-10-python.tar.gz", "cifar-10-python.tar"),
    folder="cifar-10-batches-py",
    meta="batches.meta",
    names_key="label_names",
    label_key="labels",
    files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
)
_CIFAR100 = _Form(
    name="cifar100",
    archives=("cifar-100-python.tar.gz", "cifar-100-python.tar"),
    folder="cifar-100-python",
    meta="meta",
    names_key="fine_label_names",
    label_key="fine_labels",
    files={"train": ("train",), "test": ("test",)},
)


def read_cifar10(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """CIFAR-10. Image ids are `<batch>/<index>`."""
    return _read(home, asked, _CIFAR10)


def read_cifar100(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """CIFAR-100 with its fine classes. Image ids are `<batch>/<index>`."""
    return _read(home, asked, _CIFAR100)


def _read(home: Path, asked: Sequence[str] | None, form: _Form) -> SourceDataset:
    folders = [home, home / form.folder]
    archives = [home] if home.is_file() else [home / name for name in form.archives]
    places = [f for f in folders if (f / form.meta).is_file()]
    places += [archive for archive in archives if archive.is_file()]
    if not places:
        if has_class_folders(home):
            return read_class_folders(home, form.name, asked)
        raise MissingError(f"{form.archives[0]}, {form.folder}/ or train/<class>/", home)
    place = places[0]
    there = _listed(place, form)
    splits_there = [split for split, files in form.files.items() if there & set(files)]
    gaps = {split: f"no {', '.join(files)}" for split, files in form.files.items()}
    if not splits_there or form.meta not in there:
        need = form.meta if splits_there else " or ".join(next(iter(form.files.values())))
        raise MissingError(need, place, ", ".join(sorted(there)) or "a file without batches")
    chosen = chosen_splits(splits_there, asked, place, gaps)
    classes, images = _batches(place, form, chosen)
    splits = [labelled_split(n, images[n], classes, splits_there, str(place)) for n in chosen]
    notes = [
        f"split {split} is not whole: no {name}"
        for split in chosen
        for name in form.files[split]
        if name not in there
    ]
    return SourceDataset(form.name, "labelled", place, splits, notes)


def _wanted(form: _Form) -> set[str]:
    return {form.meta, *(name for files in form.files.values() for name in files)}


def _listed(place: Path, form: _Form) -> set[str]:
    if place.is_dir():
        return {name for name in _wanted(form) if (place / name).is_file()}
    return {name for name, _ in _members(place, form, set())}


def _members(place: Path, form: _Form, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of this form in an archive; only of `names` the content."""
    try:
        with safe_tar_members(place) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.parent.name not in (form.folder, ""):
                    continue
                if path.name in names:
                    if member.size > MEMBER_LIMIT:
                        raise InputError(f"{place}: {member.name} is over {MEMBER_LIMIT} bytes")
                    file = archive.extractfile(member)
                    yield path.name, file.read() if file else b""
                elif path.name in _wanted(form):
                    yield path.name, b""
    except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(
            f"{place}: not a whole tar archive ({error}); get the file again"
        ) from error


def _contents(place: Path, form: _Form, names: set[str]) -> Iterator[tuple[str, bytes]]:
    if not place.is_dir():
        yield from ((name, content) for name, content in _members(place, form, names) if content)
        return
    for name in sorted(names):
        path = place / name
        if path.is_file():
            if path.stat().st_size > MEMBER_LIMIT:
                raise InputError(f"{path}: is over {MEMBER_LIMIT} bytes")
            yield name, path.read_bytes()


def _batches(
    place: Path, form: _Form, chosen: Sequence[str]
) -> tuple[list[str], dict[str, LabelledImages]]:
    """The names of the classes and the images of each chosen split; one batch at a time."""
    split_of = {name: split for split in chosen for name in form.files[split]}
    classes: list[str] = []
    images = {split: LabelledImages() for split in chosen}
    for name, content in _contents(place, form, {form.meta, *split_of}):
        where = f"{place}: {name}"
        loaded = load_plain(content, where)
        if name == form.meta:
            names = loaded.get(form.names_key)
            if not isinstance(names, list) or not names:
                raise InputError(f"{where}: not CIFAR's list of classes (no {form.names_key!r})")
            classes = [spoken(str(each)) for each in names]
        else:
            _add_batch(images[split_of[name]], name, loaded, form, where)
    for split, each in images.items():
        if each.labels and not 0 <= min(each.labels) <= max(each.labels) < len(classes):
            raise InputError(f"{place}: {split} has labels beyond the {len(classes)} classes")
    return classes, images


def _add_batch(
    images: LabelledImages, name: str, loaded: dict[str, Any], form: _Form, where: str
) -> None:
    values, labels = loaded.get("data"), loaded.get(form.label_key)
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] != _VALUES:
        raise InputError(f"{where}: not a CIFAR batch (no 'data' of {_VALUES} values an image)")
    if not isinstance(labels, list) or len(labels) != len(values):
        raise InputError(f"{where}: not a CIFAR batch (no {form.label_key!r} for {len(values)})")
    if not all(isinstance(label, int) for label in labels):
        raise InputError(f"{where}: not a CIFAR batch (labels that are no whole numbers)")
    planes = values.reshape(-1, 3, _SIDE, _SIDE)  # (N, 3, 32, 32)
    pictures = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # (N, 32, 32, 3)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        item_id = f"{name}/{index:05d}"
        images.add(item_id, Pixels(item_id, picture), label)
