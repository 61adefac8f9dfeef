"""Stage 1 as one call: read a data set, load encoders, plan, encode what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.items import Items
from ..cache.stream import Stream
from ..cache.writer import settle
from .datasets.obtain import FetchReporter, obtain
from .datasets.registry import read_dataset
from .datasets.source import SourceDataset
from .datasets.tables import TableOptions
from .demo import DEMO, DEMO_ENCODERS, read_demo
from .encode import encode_stream
from .encoders import (
    DEFAULT_ENCODERS,
    DEFAULT_TEXT_PAIR,
    FrozenEncoder,
    with_layer,
)
from .file_lock import one_at_a_time
from .mined import is_mined, load_miner, mine_pairs, require_minable
from .mining import Mined, MiningOptions
from .pipeline import PrecomputeOptions, Progress, SplitPlan, StreamPlan, plan, prepare


@dataclass(frozen=True)
class Request:
    """What a precompute is asked for."""

    dataset: str
    root: Path | None = None
    """Where the data set lies; None: `$CBMF_DATA/<dataset>`, else `./data/<dataset>`."""
    splits: tuple[str, ...] | None = None
    """Only these splits; None: all there are."""
    text: tuple[str, ...] = ()
    """Text encoders: hub names or folders, with `@layer=3` behind for another layer."""
    image: tuple[str, ...] = ()
    """Image encoders. With neither, the paper's encoders for the modalities of the data set."""
    cache_root: Path | None = None
    options: PrecomputeOptions = field(default_factory=PrecomputeOptions)
    dry_run: bool = False
    """Plan only."""
    download: bool = False
    """Fetch first what is missing of the data set."""
    karpathy: bool = False
    """With `download`: Karpathy's split file too."""
    mining: MiningOptions | None = None
    """Of `coco-text` and its like, which captions make a pair; None: the defaults."""
    table: TableOptions | None = None
    """Of `pairs`: which columns to take, and the seed of the splits; None: by their names."""


class Reporter(FetchReporter, Protocol):
    """Hears how a precompute goes."""

    def digesting(self, split: str, done: int, total: int) -> None:
        """Images are being read for their digests."""
        ...

    def planned(self, source: SourceDataset, plans: list[SplitPlan], cache: Cache) -> None:
        """The plan stands; nothing is encoded yet."""
        ...

    def mining(self, split: str, done: int, total: int) -> None:
        """Texts are compared with each other."""
        ...

    def mined(self, mined: Mined) -> None:
        """The pairs of a split stand."""
        ...

    def progress(self, stream: StreamPlan, progress: Progress) -> None:
        """A batch more is encoded."""
        ...

    def finished(self, stream: StreamPlan, progress: Progress | None) -> None:
        """A stream is complete."""
        ...


@dataclass(frozen=True)
class Summary:
    """How a precompute ended."""

    streams: list[Stream]
    encoded: int
    """Items that this run encoded."""
    failures: int
    """Items of all streams that could not be encoded, whenever that was found."""
    left_out: int
    """Items that the data set names but that could not be taken."""
    over_limit: list[str]
    """Streams in which more items failed than `max_failures` allows."""
    seconds: float
    mined: list[Mined] = field(default_factory=list)
    """Of each split whose pairs are mined."""


def precompute(request: Request, reporter: Reporter) -> Summary:
    """Make the cache hold a data set's embeddings; encode nothing that is there already.

    Raises:
        InputError: If the data set or an encoder cannot be used.
        DownloadError: If a file of the data set cannot be fetched.
        DiskFullError: If the disk is too small, or fills up.
    """
    began = time.monotonic()
    require_minable(request.dataset, request.mining)
    if request.download and not _fetch(request, reporter):
        return Summary([], 0, 0, 0, [], time.monotonic() - began)  # a dry run, with nothing to read
    sources = _read(request)
    encoders = _encoders(request, sources)
    miner = load_miner(request.dataset, request.mining, request.options.encoder, encoders)
    streams: list[Stream] = []
    mined: list[Mined] = []
    encoded = left_out = 0
    for source in sources:
        with _alone(request, source, reporter):
            plans = _plan(request, source, encoders, miner, reporter)
            if not request.dry_run:
                prepare(plans, Cache(request.cache_root))
        left_out += sum(len(split.items.left_out) for split in plans)
        if request.dry_run:
            continue
        for split in plans:
            waiting = miner
            for stream_plan in split.streams:
                if waiting is not None and stream_plan.encoder is not waiting:
                    mined.append(_mine(request, split.items, waiting, reporter))
                    waiting = None
                stream, count = _run(stream_plan, request.options, reporter)
                streams.append(stream)
                encoded += count
            if waiting is not None:
                mined.append(_mine(request, split.items, waiting, reporter))
    return Summary(
        streams=streams,
        encoded=encoded,
        failures=sum(len(s.manifest.failures) for s in streams),
        left_out=left_out,
        over_limit=[s.path.name for s in streams if _over(s, request.options.max_failures)],
        seconds=time.monotonic() - began,
        mined=mined,
    )


@contextmanager
def _alone(request: Request, source: SourceDataset, reporter: Reporter) -> Iterator[None]:
    """One process plans at a time: those after it find images digested and items written."""
    root = Cache(request.cache_root).root
    if request.dry_run or (root.exists() and not os.access(root, os.W_OK)):
        yield  # nothing is written, or can be
        return
    root.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(root / source.name, lambda text: reporter.fetch_note(text)):
        yield


def _fetch(request: Request, reporter: Reporter) -> bool:
    """Whether the whole data set is there now."""
    return obtain(
        request.dataset,
        request.root,
        request.splits,
        reporter,
        karpathy=request.karpathy,
        dry_run=request.dry_run,
    )


def _read(request: Request) -> list[SourceDataset]:
    if request.dataset == DEMO:
        return read_demo(request.root)
    return [read_dataset(request.dataset, request.root, request.splits, request.table)]


def _encoders(request: Request, sources: Sequence[SourceDataset]) -> list[FrozenEncoder]:
    modalities = {
        column.modality
        for source in sources
        for split in source.splits
        for column in split.columns.values()
    }
    names: dict[str, Sequence[str]] = {"image": request.image, "text": request.text}
    if not request.text and not request.image:
        defaults = DEMO_ENCODERS if request.dataset == DEMO else DEFAULT_ENCODERS
        names = {modality: (defaults[modality],) for modality in modalities}
        if is_mined(request.dataset):
            names = {"text": DEFAULT_TEXT_PAIR}
    for modality in names:
        if names[modality] and modality not in modalities:
            raise InputError(f"{request.dataset} has no {modality}s; leave --{modality} out")
    options = request.options.encoder
    return [
        FrozenEncoder(name, modality, own)
        for modality, chosen in sorted(names.items())
        for name, own in dict.fromkeys(with_layer(name, options) for name in chosen)
    ]


def _mine(request: Request, items: Items, miner: FrozenEncoder, reporter: Reporter) -> Mined:
    def report(done: int, total: int) -> None:
        reporter.mining(items.split, done, total)

    options, again = request.mining or MiningOptions(), request.options.retry_failed
    mined = mine_pairs(Cache(request.cache_root), items, miner, options, again, report)
    reporter.mined(mined)
    return mined


def _plan(
    request: Request,
    source: SourceDataset,
    encoders: Sequence[FrozenEncoder],
    miner: FrozenEncoder | None,
    reporter: Reporter,
) -> list[SplitPlan]:
    cache = Cache(request.cache_root)
    plans: list[SplitPlan] = []
    for split in source.splits:

        def digesting(done: int, total: int, name: str = split.name) -> None:
            reporter.digesting(name, done, total)

        options = request.options
        plans.append(plan(source.name, split, encoders, cache, options, digesting, miner))
    reporter.planned(source, plans, cache)
    return plans


def _run(
    stream_plan: StreamPlan, options: PrecomputeOptions, reporter: Reporter
) -> tuple[Stream, int]:
    last: Progress | None = None

    def progress(now: Progress) -> None:
        nonlocal last
        last = now
        reporter.progress(stream_plan, now)

    if stream_plan.missing_items == 0 and not options.retry_failed:
        settle(stream_plan.folder)
        stream = Stream(stream_plan.folder)
    else:
        stream = encode_stream(stream_plan, options, progress)
    reporter.finished(stream_plan, last)
    return stream, last.encoded if last is not None else 0


def _over(stream: Stream, share: float) -> bool:
    return len(stream.manifest.failures) > share * stream.manifest.spec.count
