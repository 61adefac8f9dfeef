"""Looking up images or texts in a cache by a text or an image: what `cbmf search` does.

n items that are searched, D width, k found ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..cache.catalog import Cache
from ..cache.errors import InputError, StreamError
from ..cache.items import Items
from ..cache.stream import Stream
from ..evaluate.faiss_index import indexed, require_faiss
from ..evaluate.nearest import nearest
from ..evaluate.projections import projected
from ..evaluate.sides import default_split, run_name, stream_of
from ..precompute.encoders import EncoderOptions, short_name, with_layer
from ..train.run import Run
from .page import Card, card_of, write_page
from .pictures import WIDE_SIDE, Pictures, find_pictures, small_picture
from .pipeline import load_pipeline, opened

PROMPT = "prompt"
INDEXES = ("exact", "faiss")


@dataclass(frozen=True)
class Query:
    """What is looked for, and where."""

    text: str | None = None
    image: Path | None = None
    """A file; either this or a text."""
    find: str | None = None
    """`image` or `text`; None: the other modality than the query's, if the run has it."""
    dataset: str | None = None
    """None: the run's own."""
    split: str | None = None
    """None: test, else val."""
    count: int = 10
    """k, at least 1."""
    encoder: str | None = None
    """Hub name or folder of the query's encoder, where the run does not know it or it has moved."""
    index: str = "exact"
    """One of INDEXES."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise InputError("look for a text or for an --image FILE, one of the two")
        if self.find not in (None, "image", "text"):
            raise InputError(f"--find {self.find!r} is unknown; image or text")
        if self.index not in INDEXES:
            raise InputError(f"--index {self.index!r} is unknown; {' or '.join(INDEXES)}")
        if self.count < 1:
            raise InputError(f"-k must be at least 1, got {self.count}")

    @property
    def modality(self) -> str:
        """Of the query."""
        return "text" if self.image is None else "image"


@dataclass(frozen=True)
class Answer:
    """What was found."""

    query: Card
    run: str
    items: Items
    column: str
    """That was searched."""
    total: int
    """n."""
    rows: list[int]
    """The k nearest, in the column of `items`, best first."""
    cosines: list[float]

    def cards(self, pictures: Pictures | None) -> list[Card]:
        """The found items as a page or a table shows them."""
        found = zip(self.rows, self.cosines, strict=True)
        return [
            card_of(self.items, self.column, row, pictures, rank=rank, cosine=cosine)
            for rank, (row, cosine) in enumerate(found, start=1)
        ]


def search(
    cache: Cache, folder: Path, query: Query, report: Callable[[str], None] | None = None
) -> Answer:
    """The nearest items to a query; only the query's encoder is loaded.

    Args:
        cache: Where the embeddings lie.
        folder: Of the run.
        query: What is looked for, and where.
        report: Called with what is being done.

    Raises:
        InputError: If the query cannot be read, the run has no encoder of its modality, or the
            encoder that is named is not the one that the run was fitted on.
        CacheError: If the cache lacks the run's streams; StreamError names what makes them.
        RunError: If the run is missing or damaged.
    """
    say = report or (lambda text: None)
    if query.index == "faiss":
        require_faiss()
    picture = None if query.image is None else opened(query.image)
    run = Run.load(folder)
    name = _encoder_of_query(run, query)
    items, column, place, stream = _searched(cache, run, query)
    say(f"{len(stream):,} {column}s of {items.dataset}/{items.split}")
    named = {name: with_layer(query.encoder, EncoderOptions())[0]} if query.encoder else None
    pipeline = load_pipeline(run, encoders=named, device=query.device)
    if picture is None:
        vector = pipeline.embed_texts([query.text or ""], name)
    else:
        vector = pipeline.embed_images([picture], name)
    run.model.to("cpu")
    if query.index == "faiss":
        cosines, places = indexed(run, run.model, place, stream, vector, query.count)
    else:
        rows = projected(run, run.model, place, stream)
        cosines, places = nearest(torch.from_numpy(vector), rows, query.count)
    shown = query.text if query.image is None else query.image.name
    return Answer(
        query=Card(
            item_id="",
            text=shown or "",
            about="",
            picture=None if picture is None else small_picture(picture, WIDE_SIDE),
            file=picture is not None,
        ),
        run=run_name(run),
        items=items,
        column=column,
        total=len(stream),
        rows=stream.rows[places[0]].tolist(),
        cosines=cosines[0].tolist(),
    )


def _encoder_of_query(run: Run, query: Query) -> str:
    """Name in the model of the encoder that the query goes through."""
    names = [spec.name for spec in run.model.encoders if spec.modality == query.modality]
    if not names:
        have = ", ".join(f"{spec.name} ({spec.modality})" for spec in run.model.encoders)
        raise InputError(f"run {run_name(run)} has no {query.modality} encoder; it has {have}")
    if query.encoder is None:
        return names[0]
    name, options = with_layer(query.encoder, EncoderOptions())
    short = short_name(name, options.layer)
    return short if short in names else names[0]


def _searched(cache: Cache, run: Run, query: Query) -> tuple[Items, str, int, Stream]:
    """Items, their column, place of the encoder in the model, and the stream that has them."""
    modalities = {spec.modality for spec in run.model.encoders}
    other = next(iter(sorted(modalities - {query.modality})), query.modality)
    wanted = query.find or other
    dataset = query.dataset or run.dataset
    split = query.split or default_split(cache, dataset, run)
    items = cache.items(dataset, split)
    columns = [
        name
        for name, column in items.columns.items()
        if column.modality == wanted and name != PROMPT
    ]
    places = [n for n, spec in enumerate(run.model.encoders) if spec.modality == wanted]
    if not columns or not places:
        lacking = "the run has no encoder of them" if columns else "it has none"
        raise InputError(f"{dataset}/{split}: no {wanted}s to search, {lacking}")
    missing: StreamError | None = None
    for place in places:
        try:
            return items, columns[0], place, stream_of(cache, items, columns[0], run, place)
        except StreamError as error:
            missing = missing or error
    assert missing is not None  # every place has failed
    raise missing


def write_gallery(answer: Answer, path: Path, root: Path | None) -> Path:
    """Write what was found as a page, with pictures where they are to be had.

    Args:
        answer: What was found.
        path: The HTML file.
        root: Where the data lie; None: where stage 1 looks for them.
    """
    items, column = answer.items, answer.column
    of_images = items.column(column).modality == "image"
    pictures = find_pictures(items, column, root) if of_images else None
    if pictures is not None:
        pictures.side = WIDE_SIDE
    return write_page(
        path,
        "search.html",
        query=answer.query,
        found=answer.cards(pictures),
        total=answer.total,
        what=f"{column}s",
        where=f"{items.dataset}/{items.split}",
        run=answer.run,
        without_pictures="" if pictures is None else pictures.missing,
    )
