"""Every table and figure of the paper that the data at hand allow: what `cbmf reproduce` runs.

Each step does nothing that an earlier call has done: encoding, fits and scores are kept where they
always are, so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from ..cache.errors import CacheError, InputError, RunError
from ..cache.files import new_file, write_json
from ..precompute.stage import Reporter
from .reproduce_data import Shelf
from .reproduce_runs import Options, Plan, Workshop

if TYPE_CHECKING:
    from ..evaluate.paper import Entry
    from ..evaluate.results import Result
    from ..train.loop import Report

TABLES_NAME = "tables.md"
WATCH_S, EXIT_ORPHANED = 0.5, 1
CHILD = "from cbmf.cli import main; main()"
"""What a process of a shared reproduction runs, with the parent's own arguments."""


@dataclass
class Reproduction:
    """A reproduction under way."""

    options: Options
    shelf: Shelf
    workshop: Workshop
    say: Callable[[str], None]
    entries: list[Entry] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        """Where tables and figures go."""
        return self.options.out / "results"

    def run(self) -> Path:
        """Do everything; returns the folder of tables and figures.

        Raises:
            InputError: If there is no data to train on.
        """
        parts = {part: self.workshop.plans(part) for part in self.options.parts}
        if not any(parts.values()):
            reasons = [f"{what}: {why}" for what, why in self.shelf.skipped.items()]
            raise InputError("; ".join(reasons))
        if self.options.share is not None:
            Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        elif self.options.jobs > 1:
            self._share_out()
        turns = [
            [(part, plan) for part, plans in parts.items() if plans for plan in plans(seed)]
            for seed in range(self.options.seeds)
        ]
        if self.options.share is not None:
            self._take_turns([turn for of_seed in turns for turn in of_seed])
            return self.folder
        for of_seed in turns:
            for part, plan in of_seed:
                self._score(part, plan)
            self.write()
        return self.folder

    def _take_turns(self, turns: list[tuple[str, Plan]]) -> None:
        """Make the runs that no other process of this call has begun, the long ones first."""
        for part, plan in sorted(turns, key=lambda turn: not turn[1].long):
            name = f".{part}-{plan.label.replace(', ', '-').replace(' ', '-')}-{plan.seed}.turn"
            with _turn(self.options.out / name) as ours:
                if ours:
                    self._score(part, plan)

    def _share_out(self) -> None:
        """Let processes of their own make the runs; what they leave is then only read.

        Raises:
            RunError: If one of them failed; names its log.
        """
        jobs, out = self.options.jobs, self.options.out
        threads = max(1, (os.cpu_count() or 1) // jobs)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        logs = [out / f"job-{share}.log" for share in range(jobs)]
        out.mkdir(parents=True, exist_ok=True)
        self.say(f"{jobs} processes fit and score; they tell in {', '.join(map(str, logs))}")
        children = []
        for share, log in enumerate(logs):
            with log.open("w") as file:
                words = [sys.executable, "-c", CHILD, *sys.argv[1:], "--share", str(share)]
                children.append(
                    subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)
                )
        try:
            codes = [child.wait() for child in children]
        except BaseException:
            for child in children:
                child.terminate()
            raise
        for code, log in zip(codes, logs, strict=True):
            if code:
                last = (log.read_text().strip().splitlines() or ["no word"])[-1]
                raise RunError(f"{log}: a process ended with exit code {code}: {last}")

    def _score(self, part: str, plan: Plan) -> None:
        """Make a run and score it; what fails is skipped, with the reason."""
        from ..evaluate.paper import Entry
        from ..evaluate.suite import evaluate
        from ..evaluate.systems import model_name

        began = time.monotonic()
        self.say(f"== {part}: {plan.label}, seed {plan.seed}")
        run, cache = plan.make()
        run.alone = plan.alone
        fitted = time.monotonic()
        found: list[Result] = []
        for benchmark, dataset in plan.cases:
            try:
                done = evaluate(
                    cache,
                    run,
                    [benchmark],
                    dataset=dataset,
                    fine_tune_epochs=self.options.length.fine_tune_epochs,
                    report=lambda text: None,
                )
                found += done.results
            except (InputError, CacheError, RunError) as error:
                self.shelf.skipped[f"{benchmark} of {plan.label} on {dataset}"] = str(error)
        self.entries.append(Entry(plan.label, plan.seed, found, model_name(run)))
        spent = f"fit {fitted - began:.0f} s, scores {time.monotonic() - fitted:.0f} s"
        self.say(f"   {spent}; {(time.monotonic() - self.began) / 60:.1f} min in all")

    def write(self) -> None:
        """Tables and figures of all that there is so far."""
        from ..evaluate.figures import draw
        from ..evaluate.paper import paper_tables, to_json, to_markdown
        from ..evaluate.paper_drawings import drawings

        tables = paper_tables(self.entries)
        self.folder.mkdir(parents=True, exist_ok=True)
        skipped = [f"- {what}: {' '.join(why.split())}" for what, why in self.shelf.skipped.items()]
        text = [self._heading(), to_markdown(tables)]
        text += ["### Left out", "", *skipped, ""] if skipped else []
        with new_file(self.folder / TABLES_NAME) as part:
            part.write_text("\n".join(text), encoding="utf-8")
        settings = {k: str(v) for k, v in asdict(self.options).items()}
        document = {
            "options": settings,
            "effort": asdict(self.options.length),
            "minutes": (time.monotonic() - self.began) / 60,
            "tables": to_json(tables),
            "skipped": self.shelf.skipped,
        }
        write_json(self.folder / "tables.json", document)
        for name, drawing in drawings(tables).items():
            draw(drawing, self.folder / name)

    def _heading(self) -> str:
        seeds = len({entry.seed for entry in self.entries})
        return (
            "# The paper's tables and figures\n\n"
            f"Preset `{self.options.preset}`, effort `{self.options.effort}`, {seeds} seeds. "
            "Rows in italics are the paper's own figures, of BERT, RoBERTa and ViT-B on COCO; all "
            "others are measured here. Shares in %, mean over seeds; ± half of the 95% bootstrap "
            "interval over what was sampled (images, groups of pairs), σ the deviation over seeds. "
            "Bold: the best of ours, floors included.\n"
        )


@contextmanager
def _turn(path: Path) -> Iterator[bool]:
    """Whether this process is the first of its parent's to come to a run; held until it is made.

    The file keeps the parent's number, so a turn that was taken in an earlier call is free again.
    """
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        parent = str(os.getppid()).encode()
        file.seek(0)
        if file.read() == parent:
            yield False
            return
        file.truncate(0)
        file.write(parent)
        file.flush()
        yield True


def _end_with(parent: int) -> None:
    """End this process when its parent has been killed: two must never make the same run."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(EXIT_ORPHANED)


def reproduce(
    options: Options, encoding: Reporter, fitting: Report, say: Callable[[str], None]
) -> Path:
    """Regenerate Tables II to VI and Figures 3 and 4 as far as the data allow.

    Args:
        options: What, and with what.
        encoding: Hears how stage 1 goes.
        fitting: Hears how fits go.
        say: Called with a line now and then.

    Returns:
        The folder of tables.md, tables.json and figures.

    Raises:
        InputError: If there is nothing to train on.
        CacheError, RunError: If what an earlier call left is damaged or of other options.
    """
    shelf = Shelf(
        root=options.root,
        cache_root=options.cache_root,
        miner=options.miner,
        precision=options.precision,
        limit=options.limit,
        encoding=encoding,
        say=say,
    )
    workshop = Workshop(options, shelf, fitting)
    return Reproduction(options, shelf, workshop, say).run()
