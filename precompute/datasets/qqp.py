"""QQP: GLUE's train and dev tables, or Quora's `quora_duplicate_questions.tsv`.

Names may carry more (`glue_qqp_train_sample.tsv`), and a table may have only the columns question1,
question2, is_duplicate. Quora's file has no splits: questions joined by pairs stay together and the
groups are split 90/10, which is GLUE's proportion. GLUE's `test.tsv` has no labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...cache.errors import InputError
from ..dataset import LeftOut, Split
from .listing import file_names
from .seeded import seeded_pair_splits
from .sentences import SentencePair, parted, sentence_split, text_id, usable_pairs
from .source import MissingError, SourceDataset, chosen_splits
from .text_files import place, read_columns

_GLUE = {"train": ("train.tsv", "train"), "val": ("dev.tsv", "dev|val|validation")}
_NEED = "train.tsv and dev.tsv (or quora_duplicate_questions.tsv)"
_SHARES = {"train": 0.9, "val": 0.1}


def read_qqp(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """QQP, labels 1 for a duplicate and 0 for none. GLUE's tables before Quora's file.

    Raises:
        InputError: If there is no file of it, or no split that is asked for.
    """
    if not home.is_dir():
        raise MissingError(_NEED, home)
    names = sorted(name for name in file_names(home) if name.endswith(".tsv"))
    original = [name for name in names if name.startswith("quora_duplicate_questions")]
    others = [name for name in names if name not in original]
    tables = {split: _match(home, others, *form) for split, form in _GLUE.items()}
    there = [split for split, name in tables.items() if name]
    if there:
        gaps = {split: f"no {exact}" for split, (exact, _) in _GLUE.items() if split not in there}
        splits: list[Split] = []
        for split in chosen_splits(there, asked, home, gaps):
            path, left_out = home / tables[split], list[LeftOut]()
            pairs = usable_pairs(_rows(path, left_out), left_out, ["label"])
            splits.append(sentence_split(split, pairs, left_out, str(path)))
        return SourceDataset("qqp", "sentence-pairs", home, splits)
    if original:
        return _seeded(home, asked, home / original[0])
    raise MissingError(_NEED, home)


def _match(home: Path, names: Sequence[str], exact: str, words: str) -> str:
    """The table of that exact name, else the only one with such a word in its name, else empty."""
    if exact in names:
        return exact
    found = [n for n in names if re.search(rf"(?:^|[_.-])(?:{words})(?:[_.-])", n)]
    if len(found) > 1:
        raise InputError(f"{home}: {' and '.join(found)} may both be {exact}; leave one there")
    return found[0] if found else ""


def _rows(path: Path, left_out: list[LeftOut]) -> Iterator[SentencePair]:
    wanted = ("question1", "question2", "is_duplicate")
    for number, (left, right, label) in read_columns(path, wanted, left_out):
        yield SentencePair(place(path, number), left, right, label=label)


def _seeded(home: Path, asked: Sequence[str] | None, path: Path) -> SourceDataset:
    left_out: list[LeftOut] = []
    pairs = usable_pairs(_rows(path, left_out), left_out, ["label"])
    ids = [(text_id(str(pair.left)), text_id(str(pair.right))) for pair in pairs]
    split_of = seeded_pair_splits(ids, _SHARES)
    chosen = chosen_splits(list(dict.fromkeys(split_of)) or ["train"], asked, home)
    splits = parted(chosen, pairs, split_of, left_out, str(path))
    note = "no official splits: questions joined by pairs stay together, 90/10 by a hash"
    return SourceDataset("qqp", "sentence-pairs", home, splits, [note])
