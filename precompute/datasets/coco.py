"""COCO captions, 2014 and 2017: the official splits, or Karpathy's where its json lies by.

Layout: `annotations/captions_{train,val}{year}.json` and the folders `{train,val}{year}` of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...cache.errors import InputError
from ..dataset import Split
from ..images import ImageFile, ImageSource
from .captions import NO_FILE, Caption, caption_split
from .karpathy import KarpathyImage, read_karpathy
from .listing import file_names, first_file, first_folder
from .source import SPLIT_ORDER, MissingError, SourceDataset, chosen_splits, encodable
from .text_files import read_json

_PARTS = ("train", "val")
KARPATHY_FILES = (
    "dataset_coco.json",
    "karpathy/dataset_coco.json",
    "annotations/dataset_coco.json",
)
"""Where Karpathy's split file may lie."""
_UNFIT = "not as in COCO's captions ('images' with id and file_name, 'annotations' with id, image_id and caption)"  # noqa: E501


def read_coco(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """COCO of the year that is there, 2017 before 2014."""
    return _read(home, asked, ("2017", "2014"))


def read_coco2017(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """COCO of 2017."""
    return _read(home, asked, ("2017",))


def read_coco2014(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """COCO of 2014."""
    return _read(home, asked, ("2014",))


def _read(home: Path, asked: Sequence[str] | None, years: Sequence[str]) -> SourceDataset:
    karpathy = first_file(home, KARPATHY_FILES)
    halves: list[MissingError] = []
    for year in years:
        folders = _image_folders(home, year)
        if karpathy is not None and folders:
            return _karpathy(home, asked, year, karpathy, folders)
        tables = caption_files(home, year)
        if any(part in tables for part in folders):
            return _official(home, asked, year, tables, folders)
        if karpathy is not None or folders or tables:
            halves.append(_half(home, year, karpathy, tables, folders))
    if halves:
        raise max(halves, key=lambda half: len(half.found))
    part = years[0] if len(years) == 1 else "{2017,2014}"
    raise MissingError(
        f"annotations/captions_{{train,val}}{part}.json with {{train,val}}{part}/", home
    )


def _image_folders(home: Path, year: str) -> dict[str, Path]:
    found = {p: first_folder(home, (f"{p}{year}", f"images/{p}{year}")) for p in _PARTS}
    return {part: folder for part, folder in found.items() if folder is not None}


def caption_files(home: Path, year: str) -> dict[str, Path]:
    """By official split the file of captions, of those that are there."""
    names = {p: f"captions_{p}{year}.json" for p in _PARTS}
    found = {p: first_file(home, (f"annotations/{name}", name)) for p, name in names.items()}
    return {part: path for part, path in found.items() if path is not None}


def _half(
    home: Path,
    year: str,
    karpathy: Path | None,
    tables: Mapping[str, Path],
    folders: Mapping[str, Path],
) -> MissingError:
    if folders:
        found = ", ".join(f"{folder.name}/" for folder in folders.values())
        need = ", ".join(f"annotations/captions_{part}{year}.json" for part in folders)
        return MissingError(f"{need} (captions)", home, found)
    files = [*([karpathy] if karpathy else []), *tables.values()]
    need = ", ".join(f"{part}{year}/" for part in tables or _PARTS)
    return MissingError(f"{need} (images)", home, ", ".join(path.name for path in files))


def _official(
    home: Path,
    asked: Sequence[str] | None,
    year: str,
    tables: Mapping[str, Path],
    folders: Mapping[str, Path],
) -> SourceDataset:
    gaps = {
        part: f"no folder {part}{year}" if part in tables else f"no captions_{part}{year}.json"
        for part in _PARTS
        if (part in tables) != (part in folders)
    }
    there = [part for part in _PARTS if part in tables and part in folders]
    chosen = chosen_splits(there, asked, home, gaps)
    splits = [_official_split(home, part, tables[part], folders[part]) for part in chosen]
    notes = [f"split {part} is not read: {gap}" for part, gap in gaps.items() if not asked]
    return SourceDataset(f"coco{year}", "image-text", home, splits, notes)


def _official_split(home: Path, name: str, table: Path, folder: Path) -> Split:
    document = read_json(table)
    here = file_names(folder)
    images: dict[str, ImageSource | str] = {}
    for image_id, file_name in records(table, document, "images", "id", "file_name"):
        if image_id in images:
            raise InputError(f"{table}: image id {image_id} stands twice; get the file again")
        images[image_id] = _located(home, {folder: here}, [str(file_name)])
    captions = (
        Caption(item_id, str(image_id), text)
        for item_id, image_id, text in records(
            table, document, "annotations", "id", "image_id", "caption"
        )
    )
    return caption_split(name, images, captions, [], str(table))


def records(table: Path, document: Any, key: str, *fields: str) -> Iterator[tuple[Any, ...]]:
    """The fields of each entry of the list `key`; the first of them, the id, as a string."""
    entries = document.get(key) if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{table}: {_UNFIT}: no list {key!r}")
    for number, entry in enumerate(entries):
        try:
            item_id, *rest = (entry[field] for field in fields)
        except (KeyError, TypeError) as error:
            raise InputError(f"{table}: {_UNFIT}: {key}[{number}] lacks {error}") from error
        if not isinstance(item_id, int | str) or not encodable(str(item_id)):
            raise InputError(f"{table}: {_UNFIT}: {key}[{number}] has id {item_id!r}")
        yield str(item_id), *rest


def _located(
    home: Path, listings: Mapping[Path, set[str]], names: Sequence[str]
) -> ImageSource | str:
    """The image under the first name that one of the folders lists; a path is never such a name."""
    for folder, here in listings.items():
        for name in names:
            if name in here and encodable(name):
                return ImageFile(home, (folder / name).relative_to(home).as_posix())
    return NO_FILE


def _karpathy(
    home: Path,
    asked: Sequence[str] | None,
    year: str,
    table: Path,
    folders: Mapping[str, Path],
) -> SourceDataset:
    entries = [entry for entry in read_karpathy(table) if entry.coco_id]
    if not entries:
        raise InputError(f"{table}: no image has a cocoid; this is not the split file of COCO")
    needs = {name: {e.folder for e in entries if e.split == name} for name in SPLIT_ORDER}
    own_year = all(f.endswith(year) for f in set().union(*needs.values()))
    have = {folder.name for folder in folders.values()}
    gaps = {
        name: f"no folder {', '.join(sorted(need - have))}"
        for name, need in needs.items()
        if own_year and need - have
    }
    there = [name for name in SPLIT_ORDER if needs[name] and name not in gaps]
    if not there:
        gap = ", ".join(sorted(set().union(*needs.values()) - have))
        raise MissingError(f"{gap} (images)", home, f"{table.name}, {', '.join(sorted(have))}")
    chosen = chosen_splits(there, asked, home, gaps)
    listings = {folder: file_names(folder) for folder in folders.values()}
    splits = [
        _karpathy_split(home, name, [e for e in entries if e.split == name], year, listings, table)
        for name in chosen
    ]
    notes = [f"Karpathy's split ({table.name}), train with restval"]
    notes += [f"split {name} is not read: {gap}" for name, gap in gaps.items() if not asked]
    return SourceDataset(f"coco{year}", "image-text", home, splits, notes)


def _karpathy_split(
    home: Path,
    name: str,
    entries: Sequence[KarpathyImage],
    year: str,
    listings: Mapping[Path, set[str]],
    table: Path,
) -> Split:
    images: dict[str, ImageSource | str] = {}
    captions: list[Caption] = []
    for entry in entries:
        named = {folder: here for folder, here in listings.items() if folder.name == entry.folder}
        source = _located(home, named, [entry.file_name])
        if isinstance(source, str):
            source = _located(home, listings, _names_by_id(entry.coco_id, year))
        images[entry.coco_id] = source
        captions += [Caption(i, entry.coco_id, text) for i, text in entry.captions]
    return caption_split(name, images, captions, [], str(table))


def _names_by_id(coco_id: str, year: str) -> list[str]:
    number = coco_id.zfill(12)
    if year == "2017":
        return [f"{number}.jpg"]
    return [f"COCO_{part}{year}_{number}.jpg" for part in _PARTS]
