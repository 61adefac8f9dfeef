"""Run benchmarks on a run and keep what they found in its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..cache.catalog import Cache
from ..cache.errors import CacheError, InputError
from ..cache.files import file_digest, new_file, value_digest
from ..cache.items import ITEMS_NAME, Items
from ..train.aligner import WEIGHTS_NAME
from ..train.run import Run
from . import fine_tune, linear, paraphrase, retrieval, similarity, zero_shot
from .figures import draw_results, figure_paths
from .results import RESULTS_FOLDER, RESULTS_VERSION, Result, merge_results, read_results
from .retrieval_curve import evaluate_curve
from .sides import couples, default_split
from .tables import markdown, together

ALL = "all"
MARKDOWN_NAME = "results.md"
Report = Callable[[str], None]


@dataclass(frozen=True)
class Benchmark:
    """Something to measure on a split."""

    suits: Callable[[Items], bool]
    """Whether a split is made for it."""
    evaluate: Callable[..., list[Result]]
    """Of cache, run, data set, split and report (and options by name) a result a protocol."""
    compares: Callable[[Items], tuple[str, str] | None] | None = None
    """Modalities of the two encoders that it compares on a split; None: it takes one encoder, or
    all of them at once."""


def _retrieve(cache: Cache, run: Run, dataset: str, split: str, report: Report) -> list[Result]:
    """Retrieval by both protocols."""
    arguments = (cache, run, dataset, split, report)
    return [retrieval.evaluate_retrieval(*arguments), evaluate_curve(*arguments)]


BENCHMARKS: dict[str, Benchmark] = {
    retrieval.BENCHMARK: Benchmark(retrieval.suits, _retrieve, retrieval.modalities),
    zero_shot.BENCHMARK: Benchmark(
        zero_shot.suits, zero_shot.evaluate_zero_shot, lambda items: ("image", "text")
    ),
    linear.BENCHMARK: Benchmark(linear.suits, linear.evaluate_linear),
    fine_tune.BENCHMARK: Benchmark(fine_tune.suits, fine_tune.evaluate_fine_tune),
    paraphrase.BENCHMARK: Benchmark(paraphrase.suits, paraphrase.evaluate_paraphrase),
    similarity.BENCHMARK: Benchmark(similarity.suits, similarity.evaluate_similarity),
}
"""By the name that the command line takes, in the order in which they are run."""


def silent(text: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Skipped:
    """A benchmark that could not be run."""

    benchmark: str
    dataset: str
    reason: str


@dataclass
class Evaluation:
    """What an evaluation found."""

    folder: Path
    """Holds results.json and results.md, with the run's earlier results too."""
    results: list[Result] = field(default_factory=list)
    """Those asked for, made now or kept from an earlier call over the same inputs."""
    kept: int = 0
    """How many of them were kept."""
    figures: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """A benchmark on a split."""

    benchmark: str
    dataset: str
    split: str
    asked: bool
    """Named by the user: a failure is an error then, not a reason to skip it."""
    encoders: tuple[int, ...] | None = None
    """Places in the model of those that are measured; None: all."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What its results are found by, whatever the protocol."""
        return self.benchmark, self.dataset, self.split


def evaluate(
    cache: Cache,
    run: Run,
    names: Sequence[str],
    *,
    dataset: str | None = None,
    split: str | None = None,
    again: bool = False,
    fine_tune_epochs: int = fine_tune.EPOCHS,
    report: Report = silent,
) -> Evaluation:
    """Evaluate a run on cached embeddings; no encoder is loaded.

    `retrieval` is on the run's own data set unless another is named, every other one on all data
    sets that suit it; `all` is all of them, on every data set. Each is on the split `test` if there
    is one, else `val`, else `train` if the model was not fitted on it. A run of more than two
    encoders is measured couple by couple, classifiers are learned on its first image encoder;
    `Run.measured` chooses among them.

    Args:
        cache: Where the embeddings lie.
        run: What to evaluate, on the device where its model is.
        names: Some of BENCHMARKS, or `all`.
        dataset: Only this one.
        split: This split rather than the default one.
        again: Measure anew what is there already over the same weights and embeddings. Unit rows
            kept in RUN/projections are used all the same: they follow from what they are found by.
        fine_tune_epochs: Passes of the benchmark `fine-tune` over its training images.
        report: Called with what is being measured.

    Returns:
        What was found, saved in RUN/results as it is found, and what was skipped and why.

    Raises:
        InputError: If a name is unknown, or nothing can be evaluated.
        CacheError: If what was asked for by name is not in the cache; StreamError if the cache has
            only embeddings of other encoders than the run's.
        RunError: If the results that the folder has are damaged.
    """
    _check(names)
    evaluation = Evaluation(run.folder / RESULTS_FOLDER)
    stored = [] if again else read_results(evaluation.folder)
    model = _model(run)
    drawn_anew = False
    for case in _cases(cache, run, names, dataset, split, evaluation.skipped):
        options = {"epochs": fine_tune_epochs} if case.benchmark == fine_tune.BENCHMARK else {}
        some = {} if case.encoders is None else {"encoders": case.encoders}
        inputs = value_digest({**model, **some, "options": options, **_data(cache, case)})
        kept = [r for r in stored if r.inputs == inputs and r.key[:3] == case.key]
        if kept:
            evaluation.results.extend(kept)
            evaluation.kept += len(kept)
            continue
        try:
            measure = BENCHMARKS[case.benchmark].evaluate
            chosen = run if case.encoders is None else replace(run, measured=case.encoders)
            found = measure(cache, chosen, case.dataset, case.split, report, **options)
        except (InputError, CacheError) as error:
            if case.asked:
                raise
            where = f"{case.dataset}/{case.split}"
            evaluation.skipped.append(Skipped(case.benchmark, where, str(error)))
            continue
        found = [replace(result, inputs=inputs) for result in found]
        _save(evaluation.folder, found)
        evaluation.results.extend(found)
        drawn_anew = drawn_anew or any(result.axis for result in found)
    if not evaluation.results:
        raise InputError(_nothing(cache, names, evaluation.skipped))
    evaluation.figures = figure_paths(evaluation.folder)
    if drawn_anew or not all(path.exists() for path in evaluation.figures):
        draw_results(evaluation.folder)
    return evaluation


def _model(run: Run) -> dict[str, Any]:
    """What the figures of a run follow from, its data apart, as JSON values."""
    weights = sorted(run.folder.glob(f"**/{WEIGHTS_NAME}"))
    return {
        "version": RESULTS_VERSION,
        "finished": run.finished,
        "alone": run.alone,
        "fit": asdict(run.config),
        "weights": [(path.parent.name, file_digest(path)) for path in weights],
    }


def _data(cache: Cache, case: Case) -> dict[str, Any]:
    """What the figures of a benchmark follow from in the cache: items and embeddings."""
    embeddings = {
        split: [
            file_digest(cache.folder(dataset, split) / ITEMS_NAME),
            *(s.fingerprint for s in cache.streams(dataset, split) if s.complete),
        ]
        for dataset, split in cache.splits()
        if dataset == case.dataset
    }
    return {"benchmark": case.key, "embeddings": embeddings}


def _check(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in (*BENCHMARKS, ALL)]
    if unknown or not names:
        raise InputError(
            f"no benchmark {', '.join(map(repr, unknown)) or 'is named'}; "
            f"there are {', '.join(BENCHMARKS)} and {ALL}"
        )


def _cases(
    cache: Cache,
    run: Run,
    names: Sequence[str],
    dataset: str | None,
    split: str | None,
    skipped: list[Skipped],
) -> Iterator[Case]:
    """What to evaluate; what cannot be is added to `skipped`."""
    everything = ALL in names
    for benchmark in BENCHMARKS:
        if not everything and benchmark not in names:
            continue
        own = run.dataset if benchmark == retrieval.BENCHMARK and not everything else None
        name = dataset or own
        if name is None:
            for case in _everywhere(cache, run, benchmark, split, skipped):
                yield from _couples(cache, run, case)
            continue
        chosen = split or default_split(cache, name, run)
        if not everything or benchmark in _allowed(cache.items(name, chosen)):
            yield from _couples(cache, run, Case(benchmark, name, chosen, asked=True))


def _couples(cache: Cache, run: Run, case: Case) -> list[Case]:
    """A case for every two encoders that are compared, where the run has more than two.

    What the cache lacks of one of several is a reason to skip that one only.
    """
    case = replace(case, encoders=run.measured)
    compares = BENCHMARKS[case.benchmark].compares
    modalities = compares and compares(cache.items(case.dataset, case.split))
    if not modalities or len(run.model.encoders) == 2:
        return [case]
    try:
        found = couples(run, *modalities)
    except InputError:
        return [case]  # it will say so itself
    asked = case.asked and len(found) == 1
    return [replace(case, encoders=couple, asked=asked) for couple in found]


def _everywhere(
    cache: Cache, run: Run, benchmark: str, split: str | None, skipped: list[Skipped]
) -> Iterator[Case]:
    """A benchmark on every data set that is made for it."""
    for dataset in dict.fromkeys(name for name, _ in cache.splits()):
        if split is not None and (dataset, split) not in cache.splits():
            continue
        try:
            chosen = split or default_split(cache, dataset, run)
            allowed = _allowed(cache.items(dataset, chosen))
        except (InputError, CacheError) as error:
            skipped.append(Skipped(benchmark, dataset, str(error)))
            continue
        if benchmark in allowed:
            yield Case(benchmark, dataset, chosen, asked=False)
        elif not allowed and benchmark == retrieval.BENCHMARK:
            reason = "it has neither pairs nor labelled images to measure anything on"
            skipped.append(Skipped(benchmark, f"{dataset}/{chosen}", reason))


def _allowed(items: Items) -> list[str]:
    """The benchmarks that a split is made for."""
    return [name for name, benchmark in BENCHMARKS.items() if benchmark.suits(items)]


def _save(folder: Path, results: Sequence[Result]) -> None:
    """Put results into a run's results.json and write results.md anew, each atomically."""
    merged = merge_results(folder, results)
    text = "\n".join(markdown(group) for group in together(merged))
    with new_file(folder / MARKDOWN_NAME) as part:
        part.write_text(f"# Results of {results[0].run}\n\n{text}", encoding="utf-8")


def _nothing(cache: Cache, names: Sequence[str], skipped: Sequence[Skipped]) -> str:
    """The one line that says why there is no result."""
    if not skipped:
        return (
            f"{cache.root} has nothing to evaluate {', '.join(names)} on; encode labelled images "
            "(cbmf precompute cifar10) or pairs (cbmf precompute flickr8k) with the run's encoders"
        )
    reasons = "; ".join(f"{skip.benchmark} {skip.dataset}: {skip.reason}" for skip in skipped)
    return f"nothing could be evaluated: {reasons}"
