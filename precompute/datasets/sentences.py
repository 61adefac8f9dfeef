"""From pairs of sentences to a split: each sentence is stored once, under a hash of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ...cache.errors import InputError
from ..dataset import LeftOut, SourceColumn, SourcePairs, Split
from .source import first_reason, text_fault


@dataclass(frozen=True, slots=True)
class SentencePair:
    """Two sentences as their file has them."""

    place: str
    """`<file>:<line>`, for what is left out."""
    left: object
    right: object
    label: object = None
    """0 or 1, or a text that says so."""
    score: object = None
    """A number, or a text that says so."""


def text_id(text: str) -> str:
    """The id of a sentence: equal sentences are one item."""
    return "t" + hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def usable_pairs(
    pairs: Iterable[SentencePair], left_out: list[LeftOut], needs: Collection[str]
) -> list[SentencePair]:
    """The pairs that can be used, sentences trimmed, labels as int, scores as float.

    Args:
        pairs: Pairs as read.
        left_out: Receives the others.
        needs: What each pair must have: `label`, `score`, both or nothing.
    """
    taken: list[SentencePair] = []
    for pair in pairs:
        fault = text_fault(pair.left, "sentence") or text_fault(pair.right, "sentence")
        label = _label(pair.label) if "label" in needs else None
        score = _score(pair.score) if "score" in needs else None
        if "label" in needs and label is None:
            fault = fault or f"label {pair.label!r} is not 0 or 1"
        if "score" in needs and score is None:
            fault = fault or f"score {pair.score!r} is not a number"
        if fault is None:
            left, right = str(pair.left).strip(), str(pair.right).strip()
            taken.append(SentencePair(pair.place, left, right, label, score))
        else:
            left_out.append(LeftOut("text", pair.place, fault))
    return taken


def _label(value: object) -> int | None:
    """0 or 1, or -1 for unknown; None if it is none of them."""
    known = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "-1": -1}
    return known.get(str(value).strip().lower())


def _score(value: object) -> float | None:
    try:
        score = float(str(value))
    except ValueError:
        return None
    return score if abs(score) < float("inf") else None


def parted(
    chosen: Sequence[str],
    pairs: Sequence[SentencePair],
    split_of: Sequence[str],
    left_out: Sequence[LeftOut],
    where: str,
) -> list[Split]:
    """The chosen splits of one table; what was left out is reported with the first of them.

    Args:
        chosen: Names of the splits, at least one.
        pairs: Usable pairs of all splits.
        split_of: The split of each pair.
        left_out: What was left out.
        where: File, for error lines.

    Raises:
        InputError: If a split has no pair.
    """
    return [
        sentence_split(
            name,
            [pair for pair, split in zip(pairs, split_of, strict=True) if split == name],
            left_out if name == chosen[0] else [],
            where,
        )
        for name in chosen
    ]


def sentence_split(
    name: str,
    pairs: Iterable[SentencePair],
    left_out: Iterable[LeftOut],
    where: str,
) -> Split:
    """A split of sentence pairs: one column `text`, pairs (text, text).

    Args:
        name: Name of the split.
        pairs: Usable pairs, in any order.
        left_out: What was left out.
        where: File, for error lines.

    Raises:
        InputError: If there is no pair.
    """
    taken = list(pairs)
    left = list(left_out)
    if not taken:
        raise InputError(f"{where}: no pair of sentences in split {name!r}; {first_reason(left)}")
    texts: dict[str, str] = {}
    ids: list[tuple[str, str]] = []
    for pair in taken:
        sides = (str(pair.left), str(pair.right))
        ids.append((text_id(sides[0]), text_id(sides[1])))
        texts.update(zip(ids[-1], sides, strict=True))
    labels = [pair.label for pair in taken if isinstance(pair.label, int)]
    scores = [pair.score for pair in taken if isinstance(pair.score, float)]
    return Split(
        name=name,
        columns={"text": SourceColumn("text", list(texts), list(texts.values()))},
        pairs=SourcePairs("text", "text", ids, labels or None, scores or None),
        left_out=left,
    )
