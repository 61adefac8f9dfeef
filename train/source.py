"""What to fit on: one data set of the cache, and a stream or more for each side of its pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..cache.catalog import Cache, described, is_over
from ..cache.errors import CacheError, InputError, StreamError
from ..cache.items import Items, Pairs
from ..cache.stream import Stream
from .aligner import EncoderSpec
from .config import FitConfig

TRAIN, VAL, TEST = "train", "val", "test"


@dataclass(frozen=True)
class Source:
    """The streams that a fit reads, all complete: a left one, a right one, and more."""

    dataset: str
    train: tuple[Stream, ...]
    val: tuple[Stream, ...] | None
    """None: a part of the training pairs is held out."""
    sides: tuple[int, ...] = (0, 1)
    """Of each stream, 0 for left and 1 for right."""
    names: tuple[str, ...] = ()
    """What the first encoders are called in the model that is extended."""

    def encoders(self, layout: str) -> tuple[EncoderSpec, ...]:
        """What a model over that layout has to know of the encoders."""
        specs = [_spec(stream, layout) for stream in self.train]
        for place, name in enumerate(self.names):
            specs[place] = replace(specs[place], name=name)
        specs = _told_apart(specs, lambda spec: spec.column, len(self.names))
        return tuple(_told_apart(specs, lambda spec: spec.identity[:6], len(self.names)))


def _told_apart(
    specs: list[EncoderSpec], mark: Callable[[EncoderSpec], str], fixed: int
) -> list[EncoderSpec]:
    """The encoders, a mark behind each name that several have; the first `fixed` keep theirs."""
    count = Counter(spec.name for spec in specs)
    return [
        replace(spec, name=f"{spec.name}-{mark(spec)}")
        if place >= fixed and count[spec.name] > 1
        else spec
        for place, spec in enumerate(specs)
    ]


def _spec(stream: Stream, layout: str) -> EncoderSpec:
    return EncoderSpec(
        name=stream.encoder,
        column=stream.column,
        modality=stream.modality,
        identity=stream.identity,
        width=stream.width if layout == "tokens" else stream.pooled_width,
        grid=stream.grid if layout == "tokens" else None,
    )


def choose_source(cache: Cache, config: FitConfig, dataset: str | None) -> Source:
    """The data set to fit on and its streams.

    Args:
        cache: Where to look.
        config: Names the encoders, where there is a choice, and the layout.
        dataset: Its name; None for the only one that has encoded training pairs.

    Raises:
        InputError: If there is none, or there are several and none is named.
        CacheError: If a side has no fitting stream, or several.
        StreamError: If a stream is incomplete, or the validation split's is another.
    """
    name = choose_dataset(cache, dataset)
    pairs = pairs_to_train_on(cache.items(name, TRAIN))
    if pairs.left == pairs.right:
        lefts, rights = _of_one_column(cache, config, name, pairs.left)
    else:
        layout = config.model.layout
        lefts, rights = (
            [cache.find(name, TRAIN, column, encoder=word, layout=layout) for word in _words(names)]
            for column, names in ((pairs.left, config.left), (pairs.right, config.right))
        )
    train = (lefts[0], rights[0], *lefts[1:], *rights[1:])
    require_different(train)
    sides = (0, 1, *(0 for _ in lefts[1:]), *(1 for _ in rights[1:]))
    return Source(name, train, validation_streams(cache, config, name, train), sides)


def _words(names: str | None) -> list[str | None]:
    """The encoders of a side as they are named, commas between; one unnamed where none is."""
    if names is None:
        return [None]
    words: list[str | None] = [word.strip() for word in names.split(",") if word.strip()]
    return words or [None]


def require_different(streams: Sequence[Stream]) -> None:
    """Refuse an encoder that is there twice over the same column.

    Raises:
        InputError: As said.
    """
    found: dict[tuple[str, str], Stream] = {}
    for stream in streams:
        if found.setdefault((stream.column, stream.identity), stream) is not stream:
            raise InputError(
                f"{stream.path.name} is there twice; name two encoders, or more, that differ"
            )


def pairs_to_train_on(items: Items) -> Pairs:
    """The pairs of a split.

    Raises:
        InputError: If it has none that are known to belong together.
    """
    if not _trainable(items):
        raise InputError(
            f"{items.dataset}/{items.split} has no pairs to train on; fit on a data set of pairs, "
            "such as coco, flickr8k, coco-text, pairs or demo"
        )
    return _pairs(items)


def _pairs(items: Items) -> Pairs:
    assert items.pairs is not None  # looked at before
    return items.pairs


def _trainable(items: Items) -> bool:
    """Whether a split has pairs known to belong together (graded ones are not)."""
    pairs = items.pairs
    if pairs is None or not len(pairs.rows) or pairs.scores is not None:
        return False
    return pairs.labels is None or bool((pairs.labels == 1).any())


def choose_dataset(cache: Cache, dataset: str | None = None) -> str:
    """The name itself, or that of the only data set that has encoded training pairs.

    Labelled pairs (paraphrases) stand behind plain ones, what is not encoded behind what is.

    Raises:
        InputError: If none is named, and there is none or there are several; lists them.
    """
    if dataset is not None:
        return dataset
    candidates: dict[str, Items] = {}
    for dataset, split in cache.splits():
        if split == TRAIN and _trainable(items := cache.items(dataset, TRAIN)):
            candidates[dataset] = items
    if not candidates:
        have = ", ".join(sorted({name for name, _ in cache.splits()})) or "nothing"
        raise InputError(
            f"{cache.root}: no data set with training pairs; it has {have}. "
            "Make one with cbmf precompute coco (or flickr8k, pairs, demo)"
        )
    encoded = [name for name, items in candidates.items() if _encoded(cache, name, items)]
    unlabelled = [name for name in encoded if _pairs(candidates[name]).labels is None]
    chosen = unlabelled or encoded or sorted(candidates)
    if len(chosen) > 1:
        raise InputError(
            f"{cache.root} has several data sets to fit on: {', '.join(chosen)}; "
            "name one with --dataset"
        )
    return chosen[0]


def choose_layout(cache: Cache, preset: str, method: str, dataset: str | None = None) -> str:
    """`tokens` if `best` is to be fitted and the cache holds tokens of both sides, else `pooled`.

    Linear heads read pooled vectors whatever the cache holds; so do the recipes that are not ours,
    for which an epoch on tokens takes minutes.
    """
    if (preset, method) != ("best", "cbmf"):
        return "pooled"
    name = choose_dataset(cache, dataset)
    streams = [s for s in cache.streams(name, TRAIN) if s.complete]
    tokens = [stream for stream in streams if stream.layout == "tokens"]
    pairs = cache.items(name, TRAIN).pairs if streams else None
    if pairs is not None and pairs.left == pairs.right:
        # Tokens of two encoders; a third, such as the miner of the pairs, may be pooled.
        return "tokens" if len({stream.identity for stream in tokens}) > 1 else "pooled"
    on_tokens = {stream.column for stream in tokens}
    return "tokens" if on_tokens and on_tokens == {s.column for s in streams} else "pooled"


def _encoded(cache: Cache, dataset: str, items: Items) -> bool:
    pairs = _pairs(items)
    return all(
        any(stream.complete for stream in cache.streams(dataset, TRAIN, column))
        for column in {pairs.left, pairs.right}
    )


def _of_one_column(
    cache: Cache, config: FitConfig, dataset: str, column: str
) -> tuple[list[Stream], list[Stream]]:
    """Streams over the same column, of different encoders: one on the left, the others right.

    Where the encoder that mined the pairs is a third one, it steps back unless it is named.
    """
    layout = config.model.layout
    lefts, rights = _words(config.left), _words(config.right)
    if len(lefts) > 1:
        raise InputError(
            f"{dataset} pairs {column} with {column}: name one encoder with --left, all others "
            "with --right"
        )
    found: list[Stream | None] = [
        word if word is None else cache.find(dataset, TRAIN, column, encoder=word, layout=layout)
        for word in (*lefts, *rights)
    ]
    named = {stream.identity for stream in found if stream is not None}
    items = cache.items(dataset, TRAIN)
    there = [s for s in cache.streams(dataset, TRAIN, column) if is_over(s, items)]
    others = {
        stream.identity: stream.encoder
        for stream in there
        if stream.complete and layout in ("pooled", stream.layout) and stream.identity not in named
    }
    free = sorted(others, key=lambda identity: (others[identity], identity))
    wanted = found.count(None)
    if len(free) > wanted:
        free = [identity for identity in free if identity != _miner(_pairs(items))]
    if wanted and len(free) != wanted:
        have = ", ".join(f"{s.path.name} ({_state(s)})" for s in there)
        raise InputError(
            f"{dataset} pairs {column} with {column}: two different encoders over it are needed, "
            f"with {layout} and named with --left and --right where there are more; it has "
            f"{have or 'none'}"
        )
    left, *right = [
        stream or cache.find(dataset, TRAIN, column, identity=free.pop(0), layout=layout)
        for stream in found
    ]
    return [left], right


def _miner(pairs: Pairs) -> str | None:
    """`Stream.identity` of the vectors that pairs were mined from."""
    return None if pairs.mined is None else json.loads(pairs.mined).get("miner_identity")


def _state(stream: Stream) -> str:
    return described(stream) if stream.complete else f"{described(stream)}, incomplete"


def validation_streams(
    cache: Cache, config: FitConfig, dataset: str, train: Sequence[Stream]
) -> tuple[Stream, ...] | None:
    """The streams of the split `val`, if the data set keeps `test` besides to report on."""
    if not {(dataset, VAL), (dataset, TEST)} <= set(cache.splits()):
        return None
    if not _trainable(cache.items(dataset, VAL)):
        return None
    return tuple(_alike(cache, config, stream) for stream in train)


def _alike(cache: Cache, config: FitConfig, stream: Stream) -> Stream:
    layout = config.model.layout
    try:
        return cache.find(
            stream.dataset,
            VAL,
            stream.column,
            identity=stream.identity,
            layout=layout,
            grid=stream.grid,
        )
    except StreamError:
        raise
    except CacheError as error:
        raise StreamError(
            f"{error}; the split {VAL} must be encoded like {TRAIN}: {stream.path.name} "
            f"({described(stream)}); run cbmf precompute {stream.dataset} alike for all splits"
        ) from error
