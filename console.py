"""What the command line prints: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from .cache.catalog import Cache
    from .evaluate.suite import Evaluation
    from .precompute.datasets.obtain import Errand
    from .precompute.datasets.source import SourceDataset
    from .precompute.encoders import FrozenEncoder
    from .precompute.mining import Mined
    from .precompute.pipeline import Progress as Encoding
    from .precompute.pipeline import SplitPlan, StreamPlan
    from .precompute.stage import Summary
    from .train.loop import Progress as Fitting
    from .train.run import Run

LINE_EVERY_S = 10.0
"""Seconds between two plain lines of progress."""


def out() -> Console:
    """Where results go: nowhere, but from the first of several processes started together.

    Elsewhere than on a terminal lines are not wrapped.
    """
    quiet = os.environ.get("RANK", "0") != "0"
    if sys.stdout.isatty():
        return Console(highlight=False, quiet=quiet)
    return Console(highlight=False, width=120, no_color=True, quiet=quiet)


def gib(size_bytes: float) -> str:
    """A size for people."""
    return (
        f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**28 else f"{size_bytes / 2**20:.1f} MiB"
    )


def duration(seconds: float) -> str:
    """A time span for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min"
        if minutes >= 60
        else f"{minutes} min {rest:02d} s"
    )


class Ticker:
    """Progress of one task after another: a bar on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        """Begin with no task."""
        self.console = out()
        self.live = self.console.is_terminal
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.name = ""
        self.last = 0.0

    def __enter__(self) -> Ticker:
        if self.live:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f}%"),
                TextColumn("{task.fields[detail]}", style="dim"),
                TimeRemainingColumn(compact=True),
                console=self.console,
                transient=True,
            )
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, name: str, done: int, total: int, detail: str = "") -> None:
        """Show how far a task is; a new name begins a new task."""
        if self.bar is not None:
            if self.task is None or name != self.name:
                if self.task is not None:
                    self.bar.remove_task(self.task)
                self.task = self.bar.add_task(name, total=total, detail=detail)
            self.bar.update(self.task, completed=done, total=total, detail=detail)
        elif time.monotonic() - self.last >= LINE_EVERY_S:
            if self.last:
                self.line(f"{name}: {done:,} of {total:,}  {detail}".rstrip())
            self.last = time.monotonic()
        self.name = name

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)


class PrecomputeReporter:
    """Prints how a precompute goes."""

    def __init__(self, ticker: Ticker) -> None:
        """Print through a ticker."""
        self.ticker = ticker
        self.step, self.began, self.first = "", 0.0, 0

    def to_fetch(self, errand: Errand) -> None:
        """Say what will be fetched, from where, and on which terms."""
        line = self.ticker.line
        if not errand.pieces:
            line(f"nothing to fetch: {errand.dataset} is in {errand.home}")
            return
        line(f"to fetch into {errand.home}:")
        for _, wanted, size in errand.pieces:
            proof = wanted.digest or "no checksum published; that of the first download is kept"
            line(f"  {wanted.url}: {'size unknown' if size is None else gib(size)}, {proof}")
        line(f"  terms: {errand.terms}")

    def fetching(self, step: str, done: int, total: int | None) -> None:
        """Move the bar."""
        if step != self.step:
            self.step, self.began, self.first = step, time.monotonic(), done
        rate = (done - self.first) / max(time.monotonic() - self.began, 1e-9)
        whole = done if total is None else total
        self.ticker.update(f"{step} (KiB)", done // 1024, whole // 1024, f"{gib(rate)}/s")

    def fetch_note(self, text: str) -> None:
        """Print it above the bar."""
        self.ticker.line(text)

    def digesting(self, split: str, done: int, total: int) -> None:
        """Images are being read for their digests."""
        self.ticker.update(f"reading {split} images", done, total)

    def planned(self, source: SourceDataset, plans: list[SplitPlan], cache: Cache) -> None:
        """Say what was found, on what device it will be encoded, and how large it will be."""
        line = self.ticker.line
        line(f"{source.name} from {source.root}")
        for split in plans:
            counts = [f"{len(c.ids):,} {_plural(n)}" for n, c in split.items.columns.items()]
            left_out = f" ({len(split.items.left_out):,} left out)" if split.items.left_out else ""
            line(f"  {split.items.split}: {', '.join(counts)}{left_out}")
            for column, item_id, reason in split.items.left_out[:3]:
                line(f"    left out: {column} {item_id}: {reason}")
        for note in source.notes:
            line(f"  note: {note}")
        streams = [stream for split in plans for stream in split.streams]
        for encoder in {id(s.encoder): s.encoder for s in streams}.values():
            line(
                f"{encoder.modality} encoder {encoder.name}: {_layer(encoder)}{encoder.pool} "
                f"pooling, on {encoder.device} in {encoder.precision}"
            )
        for stream in streams:
            self._stream(stream)
        todo = sum(stream.size_bytes for stream in streams)
        if any(stream.missing_items for stream in streams):
            line(f"to write: about {gib(todo)} into {cache.root} ({streams[0].spec.dtype})")
        else:
            line("nothing to encode: every embedding is there already")

    def _stream(self, stream: StreamPlan) -> None:
        name = f"{stream.spec.split}/{stream.spec.folder}"
        if stream.missing_items == 0:
            self.ticker.line(f"  {name}: complete, nothing to encode")
            return
        state = "to go on with" if stream.begun else "to encode"
        self.ticker.line(
            f"  {name}: {stream.missing_items:,} of {stream.spec.count:,} items {state}, "
            f"about {gib(stream.size_bytes)}"
        )
        if stream.near is not None:
            self.ticker.line(f"    differs from {stream.near[0]}, which stays, in")
            for difference in stream.near[1]:
                self.ticker.line(f"      {difference}")

    def mining(self, split: str, done: int, total: int) -> None:
        """Texts are compared with each other."""
        self.ticker.update(f"mining {split} pairs", done, total)

    def mined(self, mined: Mined) -> None:
        """Say how many pairs were found."""
        same = f" and {mined.identity:,} of a caption with itself" if mined.identity else ""
        self.ticker.line(
            f"{mined.split}: {mined.pairs:,} pairs{same} mined from {mined.texts:,} captions, at a "
            f"cosine of {mined.threshold} or more; {mined.paired / mined.texts:.1%} of them have a "
            "partner"
        )

    def progress(self, stream: StreamPlan, progress: Encoding) -> None:
        """Move the bar."""
        rate = progress.encoded / max(progress.seconds, 1e-9)
        detail = f"{rate:,.0f} items/s"
        if stream.encoder.options.layout == "tokens" or stream.encoder.modality == "text":
            detail += f", {progress.tokens / max(progress.seconds, 1e-9):,.0f} tokens/s"
        detail += f", {gib(progress.written_bytes)} written"
        if progress.failures:
            detail += f", {progress.failures} failed"
        if progress.waiting:
            detail = "another process is writing the rest"
        elif not self.ticker.live and rate:
            detail += f", {duration((progress.total - progress.done) / rate)} to go"
        name = f"{stream.spec.split}/{stream.spec.column}@{stream.spec.encoder}"
        self.ticker.update(name, progress.done, progress.total, detail)

    def finished(self, stream: StreamPlan, progress: Encoding | None) -> None:
        """Say how a stream ended."""
        if progress is not None:
            rate = progress.encoded / max(progress.seconds, 1e-9)
            self.ticker.line(
                f"{stream.spec.split}/{stream.spec.folder}: {progress.encoded:,} items in "
                f"{duration(progress.seconds)} ({rate:,.0f} items/s), "
                f"{gib(progress.written_bytes)} written"
            )


def _layer(encoder: FrozenEncoder) -> str:
    layer = encoder.options.layer
    return "" if layer == -1 else f"layer {layer}, "


def _plural(column: str) -> str:
    return column + "s"


def precompute_summary(summary: Summary, dry_run: bool) -> None:
    """The last lines of a precompute."""
    console = out()
    if dry_run:
        console.print("dry run: nothing written")
        return
    for stream in summary.streams:
        for failure in stream.manifest.failures[:3]:
            console.print(
                f"  failed: {stream.split}/{stream.column} {failure.item_id}: {failure.reason}",
                markup=False,
                soft_wrap=True,
            )
    counts = f"{summary.encoded:,} items encoded, {summary.failures:,} failed"
    console.print(f"{counts}, {summary.left_out:,} left out, {duration(summary.seconds)}")
    for name in summary.over_limit:
        console.print(f"{name}: more items failed than --max-failures allows", markup=False)


class FitReporter:
    """Prints how a fit goes."""

    def __init__(self, ticker: Ticker) -> None:
        """Print through a ticker."""
        self.ticker = ticker

    def __call__(self, progress: Fitting) -> None:
        """Show what is being fitted, and how far it is."""
        if progress.stage == "data" or not progress.values:
            self.ticker.line(progress.text)
            return
        if self.ticker.live:
            self.ticker.update(
                f"fit {progress.stage}", progress.epoch, progress.epochs, _epoch(progress.values)
            )
        elif progress.epoch in (1, progress.epochs) or progress.epoch % 10 == 0:
            self.ticker.line(f"{progress.stage}: {progress.text}")


def _epoch(values: dict[str, float]) -> str:
    recall, speed = values["val_recall"], values["pairs_per_s"]
    return f"mean val recall {recall:.1%}, {speed:,.0f} pairs/s"


def fit_summary(run: Run) -> None:
    """The last lines of a fit."""
    from .train.config import SOLVED
    from .train.history import read_summary

    console = out()
    summary = read_summary(run.folder)
    kept = summary["best"]
    tried, each = summary["epochs"], "choice" if run.config.method in SOLVED else "epoch"
    console.print(
        f"{tried} {each}{'s' if tried > 1 else ''} in {duration(summary['seconds'])}; kept {each} "
        f"{kept['epoch']:.0f}, mean recall in validation {kept['val_recall']:.1%}"
    )
    console.print(f"run: {run.folder}", markup=False, soft_wrap=True)
    console.print(
        f"next: cbmf evaluate all --run {run.folder}", markup=False, soft_wrap=True, style="dim"
    )


def evaluation(found: Evaluation) -> None:
    """The tables of an evaluation, and what was skipped."""
    from .evaluate.tables import table, together

    console = out()
    for results in together(found.results):
        console.print()
        console.print(table(results))
    console.print()
    for skipped in found.skipped:
        console.print(
            f"skipped: {skipped.benchmark} on {skipped.dataset}: {skipped.reason}",
            markup=False,
            soft_wrap=True,
            style="dim",
        )
    if found.kept:
        console.print(
            f"{found.kept} of {len(found.results)} results are kept from an earlier call over the "
            "same weights and embeddings; --again measures anew",
            style="dim",
        )
    console.print(f"results: {found.folder}/results.md, results.json", markup=False, soft_wrap=True)
    for figure in found.figures:
        console.print(f"figure: {figure}", markup=False, soft_wrap=True)
