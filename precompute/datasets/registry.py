"""Every data set that can be read, and the one function that reads them."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...cache.errors import InputError
from .caption_texts import read_coco_text, read_flickr8k_text
from .cifar import read_cifar10, read_cifar100
from .class_folders import read_imagefolder
from .coco import read_coco, read_coco2014, read_coco2017
from .flickr8k import read_flickr8k
from .karpathy import WHERE as KARPATHY
from .mrpc import read_mrpc
from .pairs import read_pairs
from .qqp import read_qqp
from .source import MissingError, SourceDataset
from .stsb import read_stsb
from .tables import TableOptions
from .tiny_imagenet import read_tiny_imagenet

__all__ = ["DATASETS", "Reader", "SourceDataset", "read_dataset"]

DATA_VARIABLE = "CBMF_DATA"
_COCO = "https://cocodataset.org/#download"
_GLUE = "https://dl.fbaipublicfiles.com/glue/data"
_COCO_FOLDERS = ("coco", "mscoco", "coco2017", "coco2014", "cococaptions")


@dataclass(frozen=True)
class Reader:
    """A data set that can be read."""

    read: Callable[[Path, Sequence[str] | None], SourceDataset]
    """From its folder (or file) and the splits asked for (None for all)."""
    kind: str
    """`image-text`, `labelled`, `sentence-pairs` or `caption-texts`."""
    description: str
    """One line for people."""
    source: str
    """Where to get it: address and file names."""
    folders: tuple[str, ...] = ()
    """Usual names of its folder, letters and digits only, lower case."""


DATASETS: dict[str, Reader] = {
    "coco": Reader(
        read_coco,
        "image-text",
        "COCO captions, 2017 or 2014, or Karpathy's split of them",
        f"{_COCO}: train2017.zip, val2017.zip, annotations_trainval2017.zip (or 2014); "
        f"Karpathy's dataset_coco.json: {KARPATHY}",
        _COCO_FOLDERS,
    ),
    "coco2017": Reader(
        read_coco2017,
        "image-text",
        "COCO captions of 2017",
        f"{_COCO}: train2017.zip, val2017.zip, annotations_trainval2017.zip",
        ("coco2017", "coco", "mscoco", "cococaptions"),
    ),
    "coco2014": Reader(
        read_coco2014,
        "image-text",
        "COCO captions of 2014",
        f"{_COCO}: train2014.zip, val2014.zip, annotations_trainval2014.zip",
        ("coco2014", "coco", "mscoco", "cococaptions"),
    ),
    "flickr8k": Reader(
        read_flickr8k,
        "image-text",
        "Flickr8k: 8,000 images with five captions each",
        "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k: Flickr8k_Dataset.zip, "
        f"Flickr8k_text.zip; Karpathy's dataset_flickr8k.json: {KARPATHY}",
        ("flickr8k", "flickr8kdataset"),
    ),
    "coco-text": Reader(
        read_coco_text,
        "caption-texts",
        "pairs of COCO captions that mean the same, mined; needs no images",
        f"{_COCO}: annotations_trainval2017.zip (or 2014); Karpathy's dataset_coco.json: "
        f"{KARPATHY}",
        _COCO_FOLDERS,
    ),
    "flickr8k-text": Reader(
        read_flickr8k_text,
        "caption-texts",
        "the same of Flickr8k",
        "https://github.com/jbrownlee/Datasets/releases/tag/Flickr8k: Flickr8k_text.zip; "
        f"Karpathy's dataset_flickr8k.json: {KARPATHY}",
        ("flickr8ktext", "flickr8k", "flickr8kdataset"),
    ),
    "pairs": Reader(
        read_pairs,
        "image-text",
        "your own CSV, TSV or JSONL: image path and caption, or two texts",
        "your own file, with columns image and caption, or text1 and text2",
        ("pairs",),
    ),
    "imagefolder": Reader(
        read_imagefolder,
        "labelled",
        "your own images in {train,val,test}/<class>/",
        "your own folder, with train/<class>/ and test/<class>/",
    ),
    "cifar10": Reader(
        read_cifar10,
        "labelled",
        "CIFAR-10: 10 classes, 32 x 32 pixels",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        ("cifar10", "cifar10python"),
    ),
    "cifar100": Reader(
        read_cifar100,
        "labelled",
        "CIFAR-100: 100 classes, 32 x 32 pixels",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        ("cifar100", "cifar100python"),
    ),
    "tiny-imagenet": Reader(
        read_tiny_imagenet,
        "labelled",
        "Tiny ImageNet: 200 classes, 64 x 64 pixels",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        ("tinyimagenet", "tinyimagenet200"),
    ),
    "qqp": Reader(
        read_qqp,
        "sentence-pairs",
        "Quora question pairs: duplicate or not",
        f"{_GLUE}/QQP-clean.zip: train.tsv, dev.tsv; or "
        "http://qim.fs.quoracdn.net/quora_duplicate_questions.tsv",
        ("qqp", "qqpclean", "quora", "quoraquestionpairs"),
    ),
    "mrpc": Reader(
        read_mrpc,
        "sentence-pairs",
        "Microsoft's paraphrase corpus: paraphrase or not",
        "https://dl.fbaipublicfiles.com/senteval/senteval_data/msr_paraphrase_train.txt "
        "and msr_paraphrase_test.txt there",
        ("mrpc", "msrp", "msrparaphrasecorpus"),
    ),
    "stsb": Reader(
        read_stsb,
        "sentence-pairs",
        "STS Benchmark: similarity 0 to 5",
        "http://ixa2.si.ehu.eus/stswiki/images/4/48/Stsbenchmark.tar.gz: sts-train.csv, "
        f"sts-dev.csv, sts-test.csv; or {_GLUE}/STS-B.zip",
        ("stsbenchmark", "stsb", "sts"),
    ),
}
"""By the name that the command line takes."""


def read_dataset(
    name: str,
    root: Path | None,
    splits: Sequence[str] | None = None,
    table: TableOptions | None = None,
) -> SourceDataset:
    """Read a data set from its official layout; no image is opened.

    Args:
        name: One of DATASETS.
        root: Its folder, archive or table, or a folder that holds it under a usual name; None for
            `$CBMF_DATA/<name>`, or `./data/<name>` where that is not set.
        splits: Splits to read; None for all that are there.
        table: Of `pairs`: how the table is to be read.

    Returns:
        The splits in the order train, val, test.

    Raises:
        InputError: If there is no such data set, or it is not there, or only half of it, or it is
            damaged, or a split that is asked for is missing.
    """
    if name not in DATASETS:
        raise InputError(_unknown(name))
    if table is not None and name != "pairs":
        raise InputError(f"{name}: columns and the seed of splits are for pairs alone")
    reader = DATASETS[name]
    missing: list[MissingError] = []
    for home in _homes(name, reader, root):
        try:
            own = name == "pairs"
            found = read_pairs(home, splits, table) if own else reader.read(home, splits)
            return _named(name, found)
        except MissingError as error:
            missing.append(error)
        except OSError as error:
            raise InputError(f"{error.filename or home}: {error.strerror or error}") from error
    half = next((error for error in missing if error.found), None)
    if half is not None:
        raise InputError(f"{name}: {half}; get it: {reader.source}") from half
    places = ", ".join(str(error.home) for error in missing)
    raise InputError(f"{name}: no {missing[0].what} in {places}; get it: {reader.source}")


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), DATASETS, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"no data set {name!r}{hint} There are: {', '.join(sorted(DATASETS))}"


def _homes(name: str, reader: Reader, root: Path | None) -> list[Path]:
    """Where to look, in order: the root, then folders in it under the data set's usual names."""
    if root is not None:
        base = _absolute(root)
        return [base, *_usual(base, reader)]
    base = data_folder()
    own = base / name
    return list(dict.fromkeys([own, *_usual(base, reader), *_usual(own, reader)]))


def data_folder() -> Path:
    """Where data sets lie for which no root is given: `$CBMF_DATA`, else `./data`."""
    return _absolute(os.environ.get(DATA_VARIABLE) or "data")


def existing_home(name: str) -> Path | None:
    """The folder in which a data set is looked for first without a root; None if there is none."""
    homes = _homes(name, DATASETS[name], None) if name in DATASETS else []
    return next((home for home in homes if home.is_dir()), None)


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _usual(base: Path, reader: Reader) -> list[Path]:
    if not base.is_dir():
        return []
    try:
        entries = sorted(entry.name for entry in os.scandir(base) if entry.is_dir())
    except OSError as error:
        raise InputError(f"{base}: {error.strerror or error}") from error
    plain = {entry: re.sub(r"[^a-z0-9]", "", entry.lower()) for entry in entries}
    return [base / entry for usual in reader.folders for entry in entries if plain[entry] == usual]


def _named(name: str, dataset: SourceDataset) -> SourceDataset:
    """The data set, its name in the cache never that of another one that we know."""
    known = {*DATASETS, "demo"}
    if name in ("pairs", "imagefolder") and dataset.name in known - {name}:
        return replace(dataset, name=f"{dataset.name}-{name}")
    return dataset
