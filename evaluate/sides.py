"""The encoders and streams that a run's model is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence

from ..cache.catalog import Cache
from ..cache.errors import InputError, StreamError
from ..cache.items import Items
from ..cache.stream import Stream
from ..train.aligner import EncoderSpec, read_card
from ..train.run import Run
from ..train.source import TEST, TRAIN, VAL


def measured(run: Run, modality: str) -> list[int]:
    """Places in the model of the encoders of a modality that are measured."""
    places = range(len(run.model.encoders)) if run.measured is None else run.measured
    return [place for place in places if run.model.encoders[place].modality == modality]


def couples(run: Run, left: str, right: str) -> list[tuple[int, int]]:
    """Places in the model of every two encoders for a left and a right modality.

    Of one modality each two stand once, the first on the left.

    Raises:
        InputError: If there are none.
    """
    ones, twos = measured(run, left), measured(run, right)
    found = [(one, two) for one in ones for two in twos if left != right or one < two]
    if found:
        return found
    have = ", ".join(f"{spec.name} ({spec.modality})" for spec in run.model.encoders)
    which = "" if run.measured is None else ", and others are to be measured"
    raise InputError(f"{left} with {right} is asked for, run {run_name(run)} aligns {have}{which}")


def two_encoders(run: Run, left: str, right: str) -> tuple[int, int]:
    """The first of `couples`.

    Raises:
        InputError: If there are none.
    """
    return couples(run, left, right)[0]


def choose_encoders(run: Run, names: Sequence[str]) -> tuple[int, ...] | None:
    """Places in the model of the encoders of those names, in the model's order; None for no names.

    Args:
        run: Its model has the encoders.
        names: Of encoders, whole or a part that only one of them has.

    Raises:
        InputError: If a name fits none, or several.
    """
    places = set()
    have = [spec.name for spec in run.model.encoders]
    for name in names:
        fitting = [place for place, own in enumerate(have) if name == own]
        fitting = fitting or [place for place, own in enumerate(have) if name in own]
        if len(fitting) != 1:
            which = "no encoder" if not fitting else "several encoders"
            raise InputError(f"{which} of run {run_name(run)} fits {name!r}: {', '.join(have)}")
        places.add(fitting[0])
    return tuple(sorted(places)) or None


def stream_of(cache: Cache, items: Items, column: str, run: Run, encoder: int) -> Stream:
    """The stream over a column of present items that one of the model's encoders made.

    Args:
        cache: Where to look.
        items: Of the split.
        column: Column of the items.
        run: The run; its model says which layout and grid it reads.
        encoder: Place of the encoder in the model.

    Raises:
        StreamError: If the cache has none of that encoder, or of another layout or grid; the
            message has the command that makes it. Or if it is incomplete.
        CacheError: If the column is missing, or several streams fit.
    """
    items.column(column)
    spec, layout = run.model.encoders[encoder], run.model.layout
    present = cache.streams(items.dataset, items.split, column)
    own = [stream for stream in present if stream.identity == spec.identity]
    if not own:
        raise StreamError(_foreign(cache, items, column, run, spec, present))
    if layout == "pooled":
        return cache.find(items.dataset, items.split, column, identity=spec.identity, layout=layout)
    if not any(s.layout == "tokens" and s.grid == spec.grid for s in own):
        grid = "" if spec.grid is None else f" --grid {spec.grid}"
        raise StreamError(
            f"{cache.folder(items.dataset, items.split)}: run {run_name(run)} reads tokens of "
            f"{spec.name}{f' (grid {spec.grid})' if grid else ''}, the cache has "
            f"{_names(own)}; run cbmf precompute {items.dataset} --{spec.modality} {spec.name} "
            f"--layout tokens{grid}"
        )
    return cache.find(
        items.dataset,
        items.split,
        column,
        identity=spec.identity,
        layout=layout,
        grid=spec.grid,
    )


def _foreign(
    cache: Cache, items: Items, column: str, run: Run, spec: EncoderSpec, present: list[Stream]
) -> str:
    """The one line about a stream of another encoder, or none at all."""
    same = [stream for stream in present if stream.encoder == spec.name]
    why = " (the same name, but other weights or settings)" if same else ""
    names = " ".join(f"--{s.modality} {s.name}" for s in reversed(run.model.encoders))
    return (
        f"{cache.folder(items.dataset, items.split)}: run {run_name(run)} was fitted on "
        f"{spec.modality} encoder {spec.name} [{spec.identity[:12]}], the cache has {column} "
        f"embeddings of {_names(present) or 'none'}{why}; make the run's own with "
        f"cbmf precompute {items.dataset} {names}, or fit a run on these"
    )


def _names(streams: list[Stream]) -> str:
    names = {
        f"{s.encoder} [{s.identity[:12]}] ({s.layout}"
        + ("" if s.grid is None else f", grid {s.grid}")
        + ("" if s.complete else ", incomplete")
        + ")"
        for s in streams
    }
    return ", ".join(sorted(names))


def default_split(cache: Cache, dataset: str, run: Run) -> str:
    """The split to report on: `test`, else `val`; else `train`, but never the run's own.

    Raises:
        InputError: If there is none.
    """
    splits = [split for name, split in cache.splits() if name == dataset]
    for split in (TEST, VAL, TRAIN):
        if split in splits and (split != TRAIN or dataset != run.dataset):
            return split
    if not splits:
        cache.items(dataset, TEST)  # says what the cache has
    raise InputError(
        f"{cache.root}/{dataset} has neither test nor val, only {', '.join(splits)}; "
        f"encode another split with cbmf precompute {dataset}, or name one with --split"
    )


def run_name(run: Run) -> str:
    """Name of the run's folder."""
    return run.folder.resolve().name


def note_on_split(run: Run, dataset: str, split: str) -> str:
    """What to bear in mind about a run on a split, such as what its fit saw of it; may be empty."""
    notes = [] if run.finished else ["the fit was interrupted, this is its best epoch until then"]
    if dataset == run.dataset and split == TRAIN:
        notes.append("the model was fitted on this split")
    elif (
        dataset == run.dataset and split == VAL and VAL in read_card(run.folder).get("streams", {})
    ):
        notes.append("this split chose the epoch (early stopping), its figures flatter a little")
    return "; ".join(notes)
