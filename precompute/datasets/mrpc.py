"""MRPC: Microsoft's `msr_paraphrase_{train,test}.txt`, and GLUE's `train.tsv` and `dev.tsv`.

GLUE cut its train and dev out of Microsoft's train file. Where both are there, train and val are
GLUE's and test is Microsoft's. GLUE's `test.tsv` has no labels and is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..dataset import LeftOut, Split
from .listing import first_file
from .sentences import SentencePair, sentence_split, usable_pairs
from .source import MissingError, SourceDataset, chosen_splits
from .text_files import place, read_columns

_FILES = {
    "train": ("train.tsv", "msr_paraphrase_train.txt"),
    "val": ("dev.tsv",),
    "test": ("msr_paraphrase_test.txt",),
}


def read_mrpc(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """MRPC, labels 1 for a paraphrase and 0 for none.

    Raises:
        InputError: If there is no file of it, or no split that is asked for.
    """
    paths = {split: first_file(home, names) for split, names in _FILES.items()}
    there = {split: path for split, path in paths.items() if path is not None}
    if not there:
        raise MissingError("msr_paraphrase_train.txt, msr_paraphrase_test.txt (or train.tsv)", home)
    gaps = {split: f"no {' or '.join(names)}" for split, names in _FILES.items()}
    splits: list[Split] = []
    for split in chosen_splits(list(there), asked, home, gaps):
        left_out: list[LeftOut] = []
        pairs = usable_pairs(_rows(there[split], left_out), left_out, ["label"])
        splits.append(sentence_split(split, pairs, left_out, str(there[split])))
    return SourceDataset("mrpc", "sentence-pairs", home, splits)


def _rows(path: Path, left_out: list[LeftOut]) -> Iterator[SentencePair]:
    wanted = ("#1 string", "#2 string", "quality")
    for number, (left, right, label) in read_columns(path, wanted, left_out):
        yield SentencePair(place(path, number), left, right, label=label)
