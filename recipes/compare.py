"""Many fusions and methods on one cache: what `cbmf compare` runs. Nothing is encoded.

Each fit is a run folder of its own; a call that was interrupted, or that asks for more methods or
seeds, fits only what is not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..cache.files import new_file, write_json
from ..train.config import BASELINES, FUSIONS, SOLVED, FitConfig, preset

if TYPE_CHECKING:
    from ..evaluate.comparison import Comparison, Contestant
    from ..evaluate.paper import Entry
    from ..train.loop import Report
    from ..train.run import Run

TABLE_NAME, JSON_NAME = "compare.md", "compare.json"
FORMAT, VERSION = "cbmf-comparison", 1


@dataclass(frozen=True)
class Method:
    """Something to fit."""

    label: str
    """What it is called in the table."""
    options: Mapping[str, Any]
    """Of the fit, by name."""


METHODS: dict[str, Method] = {
    **{name: Method(f"CBMF, {name}", {"fusion": name}) for name in FUSIONS if name != "none"},
    "none": Method("CBMF, no context", {"fusion": "none"}),
    "random": Method("CBMF, add, random context", {"learn_context": False}),
    "shared": Method("CBMF, add, shared projection", {"shared_projection": True}),
    "linear": Method("linear heads", {"method": "linear"}),
    "convirt": Method("MLP heads (frozen ConVIRT)", {"method": "convirt"}),
    "fusemix": Method("FuseMix", {"method": "fusemix"}),
    "csa": Method("CSA", {"method": "csa"}),
    "asif": Method("ASIF", {"method": "asif"}),
}
"""By the name that the command line takes, in the order of the table."""


@dataclass(frozen=True)
class Options:
    """What to compare."""

    methods: tuple[str, ...] = tuple(METHODS)
    """Some of METHODS; the first one is what the others are compared with."""
    dataset: str | None = None
    """Name in the cache; None for the only one that has encoded training pairs."""
    preset: str = "best"
    """Of CBMF; peers have recipes of their own."""
    layout: str | None = None
    """That CBMF reads; None: as `cbmf fit` chooses. Peers read pooled vectors, as in their
    papers."""
    left: str | None = None
    right: str | None = None
    epochs: int | None = None
    """Of everything that is trained; None: each recipe's own."""
    seeds: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options of all fits, by name."""
    benchmarks: tuple[str, ...] = ()
    """To score on besides retrieval."""
    out: Path = Path("compare")

    def __post_init__(self) -> None:
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise InputError(
                f"no method {', '.join(unknown) or 'named'}; there are {', '.join(METHODS)}"
            )
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1, got {self.seeds}")


@dataclass
class Compared:
    """A comparison under way, and what it has found."""

    options: Options
    dataset: str
    split: str
    layout: str
    """That CBMF reads."""
    contestants: dict[str, Contestant] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    """Results on the other benchmarks."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Method, or benchmark, and why."""

    def config(self, name: str, seed: int) -> FitConfig:
        """How a method is fitted."""
        options, own = self.options, METHODS[name].options
        method = own.get("method", "cbmf")
        given: dict[str, Any] = {
            **own,
            "baseline": False,
            "seed": seed,
            "layout": "pooled" if method in BASELINES else self.layout,
            "left": options.left,
            "right": options.right,
        }
        if options.epochs is not None and method not in SOLVED:
            given["epochs"] = options.epochs
        return preset(options.preset, **given, **options.settings)

    def comparison(self) -> Comparison:
        """Of what has been scored so far."""
        from ..evaluate.comparison import compare

        there = [self.contestants[n] for n in self.options.methods if n in self.contestants]
        read = f"CBMF, preset {self.options.preset}, on {self.layout}; peers on pooled vectors"
        return compare(there, f"{self.dataset}/{self.split}; {read}")

    def write(self) -> None:
        """compare.md and compare.json of what has been scored so far."""
        from ..evaluate.comparison import document, markdown
        from ..evaluate.paper import paper_tables, to_json, to_markdown

        found, others = self.comparison(), paper_tables(self.entries, others=True)
        left_out = [f"- {what}: {' '.join(why.split())}" for what, why in self.skipped.items()]
        text = [f"# Comparison on {self.dataset}", "", markdown(found), to_markdown(others)]
        text += ["### Left out", "", *left_out, ""] if left_out else []
        with new_file(self.options.out / TABLE_NAME) as part:
            part.write_text("\n".join(text), encoding="utf-8")
        table = {
            "format": FORMAT,
            "version": VERSION,
            "options": {**asdict(self.options), "out": str(self.options.out)},
            "dataset": self.dataset,
            "split": self.split,
            "layout": self.layout,
            "retrieval": document(found),
            "benchmarks": to_json(others),
            "skipped": self.skipped,
        }
        write_json(self.options.out / JSON_NAME, table)


def compare(
    cache: Cache,
    options: Options,
    fitting: Report,
    say: Callable[[str], None],
    device: str | None = None,
) -> Compared:
    """Fit every method over every seed and score it on the split `test` (else `val`).

    Args:
        cache: Where the embeddings lie.
        options: What to compare.
        fitting: Hears how fits go.
        say: Called with a line before each fit.
        device: None for the GPU if there is one, else the CPU.

    Returns:
        What was found; it stands in `options.out` too, as far as it goes after every seed.

    Raises:
        InputError: If there is nothing to score on, or no method can be fitted.
        CacheError: If a stream is missing, ambiguous, incomplete or damaged.
        RunError: If the folder has a fit of other options, or a loss diverges.
    """
    compared = _begin(cache, options)
    for seed in range(options.seeds):
        for name in options.methods:
            if name not in compared.skipped:
                say(f"== {METHODS[name].label}, seed {seed}")
                _one(cache, compared, name, seed, fitting, device)
        compared.write()
    return compared


def _begin(cache: Cache, options: Options) -> Compared:
    """Choose data set, split and layout; find out what cannot be fitted."""
    from ..train.fusion import check_fusion
    from ..train.source import TEST, VAL, choose_dataset, choose_layout

    dataset = choose_dataset(cache, options.dataset)
    splits = [split for split in (TEST, VAL) if (dataset, split) in cache.splits()]
    if not splits:
        raise InputError(
            f"{cache.root}/{dataset} has neither test nor val to compare on; encode one with "
            f"cbmf precompute {dataset}"
        )
    layout = options.layout or choose_layout(cache, options.preset, "cbmf", dataset)
    compared = Compared(options, dataset, splits[0], layout)
    for name in options.methods:
        config = compared.config(name, 0)
        try:
            check_fusion(config.model)
        except InputError as error:
            compared.skipped[name] = str(error)
    if len(compared.skipped) == len(options.methods):
        raise InputError("; ".join(compared.skipped.values()))
    return compared


def _one(
    cache: Cache,
    compared: Compared,
    name: str,
    seed: int,
    fitting: Report,
    device: str | None,
) -> None:
    """Fit a method, or read it back, and score it."""
    from ..evaluate.comparison import Contestant, find
    from ..train.fit import fit
    from ..train.history import read_summary

    run = fit(
        cache,
        compared.config(name, seed),
        out=compared.options.out / "runs" / f"{name}-{seed}",
        dataset=compared.dataset,
        device=device,
        report=fitting,
    )
    run.alone = True
    trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
    label = METHODS[name].label
    contestant = compared.contestants.setdefault(name, Contestant(label, trained))
    contestant.found[seed] = find(cache, run, compared.dataset, compared.split)
    contestant.seconds[seed] = float(read_summary(run.folder)["seconds"])
    if compared.options.benchmarks:
        _score(cache, compared, run, label, seed)


def _score(cache: Cache, compared: Compared, run: Run, label: str, seed: int) -> None:
    """Score a run on the other benchmarks that were asked for."""
    from ..evaluate.paper import Entry
    from ..evaluate.suite import evaluate
    from ..evaluate.systems import model_name

    found = evaluate(cache, run, compared.options.benchmarks)
    compared.entries.append(Entry(label, seed, found.results, model_name(run)))
    for skip in found.skipped:
        compared.skipped[f"{skip.benchmark} on {skip.dataset}"] = skip.reason
