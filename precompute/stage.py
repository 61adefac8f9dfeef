"""Stage 1 as one call: read a data set, load encoders, plan, encode what is missing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.stream import Stream
from .datasets.obtain import FetchReporter, obtain
from .datasets.registry import read_dataset
from .datasets.source import SourceDataset
from .demo import DEMO, DEMO_ENCODERS, read_demo
from .encode import encode_stream
from .encoders import DEFAULT_ENCODERS, FrozenEncoder
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
    """Text encoders: hub names or folders."""
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


class Reporter(FetchReporter, Protocol):
    """Hears how a precompute goes."""

    def digesting(self, split: str, done: int, total: int) -> None:
        """Images are being read for their digests."""
        ...

    def planned(self, source: SourceDataset, plans: list[SplitPlan], cache: Cache) -> None:
        """The plan stands; nothing is encoded yet."""
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


def precompute(request: Request, reporter: Reporter) -> Summary:
    """Make the cache hold a data set's embeddings; encode nothing that is there already.

    Raises:
        InputError: If the data set or an encoder cannot be used.
        DownloadError: If a file of the data set cannot be fetched.
        DiskFullError: If the disk is too small, or fills up.
    """
    began = time.monotonic()
    if request.download and not _fetch(request, reporter):
        return Summary([], 0, 0, 0, [], time.monotonic() - began)  # a dry run, with nothing to read
    sources = _read(request)
    encoders = _encoders(request, sources)
    streams: list[Stream] = []
    encoded = left_out = 0
    for source in sources:
        plans = _plan(request, source, encoders, reporter)
        left_out += sum(len(split.items.left_out) for split in plans)
        if request.dry_run:
            continue
        prepare(plans, Cache(request.cache_root))
        for stream_plan in [stream for split in plans for stream in split.streams]:
            stream, count = _run(stream_plan, request.options, reporter)
            streams.append(stream)
            encoded += count
    return Summary(
        streams=streams,
        encoded=encoded,
        failures=sum(len(s.manifest.failures) for s in streams),
        left_out=left_out,
        over_limit=[s.path.name for s in streams if _over(s, request.options.max_failures)],
        seconds=time.monotonic() - began,
    )


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
    return [read_dataset(request.dataset, request.root, request.splits)]


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
    for modality in names:
        if names[modality] and modality not in modalities:
            raise InputError(f"{request.dataset} has no {modality}s; leave --{modality} out")
    options = request.options.encoder
    return [
        FrozenEncoder(name, modality, options)
        for modality, chosen in sorted(names.items())
        for name in dict.fromkeys(chosen)
    ]


def _plan(
    request: Request,
    source: SourceDataset,
    encoders: Sequence[FrozenEncoder],
    reporter: Reporter,
) -> list[SplitPlan]:
    cache = Cache(request.cache_root)
    plans: list[SplitPlan] = []
    for split in source.splits:

        def digesting(done: int, total: int, name: str = split.name) -> None:
            reporter.digesting(name, done, total)

        plans.append(plan(source.name, split, encoders, cache, request.options, digesting))
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
        stream = Stream(stream_plan.folder)
    else:
        stream = encode_stream(stream_plan, options, progress)
    reporter.finished(stream_plan, last)
    return stream, last.encoded if last is not None else 0


def _over(stream: Stream, share: float) -> bool:
    return len(stream.manifest.failures) > share * stream.manifest.spec.count
