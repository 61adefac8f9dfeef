"""STS Benchmark: `sts-{train,dev,test}.csv` (tabs, no quotes, no header), or GLUE's STS-B."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..dataset import LeftOut, Split
from .listing import first_file
from .sentences import SentencePair, sentence_split, usable_pairs
from .source import MissingError, SourceDataset, chosen_splits
from .text_files import place, read_columns, read_fields

_ORIGINAL = {"train": "sts-train.csv", "val": "sts-dev.csv", "test": "sts-test.csv"}
_GLUE = {"train": "train.tsv", "val": "dev.tsv"}
_FIELDS = 7
"""genre, file, year, id, score, two sentences; more columns may follow."""


def read_stsb(home: Path, asked: Sequence[str] | None) -> SourceDataset:
    """STS-B, scores 0 to 5. The original files where any is there, else GLUE's.

    Raises:
        InputError: If there is no file of it, or no split that is asked for.
    """
    for names, read in ((_ORIGINAL, _original_rows), (_GLUE, _glue_rows)):
        paths = {split: first_file(home, [name]) for split, name in names.items()}
        there = [split for split, path in paths.items() if path is not None]
        if there:
            gaps = {split: f"no {name}" for split, name in names.items() if split not in there}
            splits: list[Split] = []
            for split in chosen_splits(there, asked, home, gaps):
                path, left_out = home / names[split], list[LeftOut]()
                pairs = usable_pairs(read(path, left_out), left_out, ["score"])
                splits.append(sentence_split(split, pairs, left_out, str(path)))
            return SourceDataset("stsb", "sentence-pairs", home, splits)
    raise MissingError("sts-train.csv, sts-dev.csv, sts-test.csv (or GLUE's train.tsv)", home)


def _original_rows(path: Path, left_out: list[LeftOut]) -> Iterator[SentencePair]:
    for number, fields in read_fields(path, left_out):
        if len(fields) < _FIELDS:
            reason = f"{len(fields)} columns, expected at least {_FIELDS}"
            left_out.append(LeftOut("text", place(path, number), reason))
        else:
            yield SentencePair(place(path, number), fields[5], fields[6], score=fields[4])


def _glue_rows(path: Path, left_out: list[LeftOut]) -> Iterator[SentencePair]:
    for number, (left, right, score) in read_columns(
        path, ("sentence1", "sentence2", "score"), left_out
    ):
        yield SentencePair(place(path, number), left, right, score=score)
