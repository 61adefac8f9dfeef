"""Fine-tuning (Table VI): the model is trained on, with a classifier on top of its image side.

The encoder stays frozen: projection, context, fusion and DFE learn, on cached vectors. (The
author's code trains a classifier alone; so does the benchmark `linear`.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..cache.catalog import Cache
from ..cache.items import Items
from ..train.aligner import Aligner
from ..train.bank import Bank
from ..train.run import Run
from .labelled import Task, are_labelled, interval_of, prepare, ranks_of, result_of
from .ranks import recall_at
from .results import Result, Row
from .systems import model_name, models_of
from .tuning import Classifier, Training, quick_half, train_classifier

BENCHMARK = "fine-tune"
PROTOCOL = "paper"
EPOCHS = 100


@dataclass(frozen=True)
class Candidate:
    """Something to put a classifier on."""

    system: str
    kind: str
    """As in `results.Row`."""
    model: Aligner | None
    """None: the encoder's own pooled vectors."""
    frozen: bool = False
    """The classifier alone is trained."""


def suits(items: Items) -> bool:
    """Whether a split has labelled images; that there is a split `train`, too, shows later."""
    return are_labelled(items)


def evaluate_fine_tune(
    cache: Cache,
    run: Run,
    dataset: str,
    split: str,
    report: Callable[[str], None],
    epochs: int = EPOCHS,
) -> list[Result]:
    """Accuracy on a split while the model is fine-tuned on the split `train`, after each fifth.

    A copy is tuned, the run stays as it is. The last epoch is the figure to compare; nothing is
    chosen on the split. Beside the model: the same model frozen under the classifier, what was
    fitted beside it and the untrained model, both tuned likewise, and a classifier on the encoder's
    pooled vectors: the floor. All have the same classifier, optimizer and epochs; see `tuning`.

    Args:
        cache: Where the streams lie.
        run: The run to evaluate.
        dataset: Its name in the cache.
        split: The one that is scored; never `train`.
        report: Called with the system that is being measured, and how far it is.
        epochs: Passes over the training images, at least 1.

    Raises:
        InputError: As `labelled.prepare`; if epochs is too small, or memory.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
    """
    started = time.perf_counter()
    device = run.model.temperature.log_scale.device
    training = Training(epochs, run.config.seed, quick_half(run.config, device))
    task = prepare(cache, run, dataset, split)
    rows = []
    for candidate in candidates_of(run, task):
        where = f"{BENCHMARK} {dataset}/{split}: {candidate.system}"

        def told(epoch: int, where: str = where) -> None:
            report(f"{where}, epoch {epoch} of {epochs}")

        report(where)
        rows.append(_row(candidate, _scores(candidate, run, task, training, told), task))
    chance = {f"epoch {epoch}": 1 / task.classes for epoch in training.scored}
    rows.append(Row("chance", "chance", chance))
    seconds = round(time.perf_counter() - started, 3)
    return [result_of(run, task, BENCHMARK, PROTOCOL, rows, _note(training), seconds)]


def candidates_of(run: Run, task: Task) -> Iterator[Candidate]:
    """What a classifier is put on, in the order of the rows."""
    for name, kind, model in models_of(run):
        yield Candidate(name, kind, model)
        if kind == "model":
            yield Candidate(f"{model_name(run)}, head only", kind, model, frozen=True)
    if not run.alone:
        yield Candidate(f"raw {task.test.stream.encoder}", "raw", None, frozen=True)


def _scores(
    candidate: Candidate,
    run: Run,
    task: Task,
    training: Training,
    told: Callable[[int], None],
) -> dict[int, np.ndarray]:
    """Class scores of the images of the split, by epoch."""
    model, device = candidate.model, run.model.temperature.log_scale.device
    layout = "pooled" if model is None else model.layout
    train, test = (
        Bank.from_stream(part.stream, layout, device) for part in (task.train, task.test)
    )
    width = train.width if model is None else model.width
    classifier = Classifier(model, task.encoder, width, task.classes).to(device)
    if candidate.frozen:
        train, test = classifier.fixed(train), classifier.fixed(test)
        classifier = Classifier(None, task.encoder, width, task.classes).to(device)
    return train_classifier(classifier, train, task.train.labels, test, training, told)


def _row(candidate: Candidate, scores: dict[int, np.ndarray], task: Task) -> Row:
    ranks = {epoch: ranks_of(part, task.test.labels) for epoch, part in scores.items()}
    last = max(ranks)
    return Row(
        candidate.system,
        candidate.kind,
        {f"epoch {epoch}": recall_at(each, 1) for epoch, each in ranks.items()},
        {f"epoch {last}": interval_of(ranks[last])},
    )


def _note(training: Training) -> str:
    return (
        f"projection, context and DFE trained for {training.epochs} epochs with a linear "
        f"classifier{' in bfloat16' if training.half else ''}, seed {training.seed}; "
        "the encoder is frozen"
    )
