"""The runs of a reproduction: which models are fitted, and what each is scored on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.catalog import Cache
from ..cache.errors import InputError
from ..precompute.encoders import DEFAULT_ENCODERS, EncoderOptions
from ..precompute.mining import DEFAULT_MINER
from ..precompute.stage import precompute
from .reproduce_data import Shelf

if TYPE_CHECKING:
    from ..train.loop import Report
    from ..train.run import Run

PARTS = ("text-text", "text-image")
TEXT_FUSION = "additive"
"""The paper's, of text with text."""
PAPER_FUSIONS = ("add", "dot")
"""The paper's, of text with images."""
OTHER_FUSIONS = ("mul", "concat", "additive", "general")
TEXT_CASES = (("paraphrase", "qqp"), ("paraphrase", "mrpc"), ("similarity", "stsb"))
IMAGE_CASES = (
    ("retrieval", "coco"),
    ("retrieval", "flickr8k"),
    ("zero-shot", "cifar10"),
    ("linear", "cifar100"),
    ("fine-tune", "tiny-imagenet"),
)


@dataclass(frozen=True)
class Effort:
    """How long the fits go on."""

    epochs: int | None
    """Of the cached fits of text with images; None: the preset's own."""
    text_epochs: int | None
    """Of the cached fits of text with text, which have several times as many pairs."""
    convirt_epochs: int
    """Of ConVIRT, both encoders trained."""
    fine_tune_epochs: int
    """On Tiny ImageNet."""


EFFORTS = {"short": Effort(12, 4, 1, 20), "full": Effort(None, None, 10, 100)}
"""`short`: with three seeds about 85 minutes of two cores for Flickr8k and small encoders. `full`:
for a GPU."""


@dataclass(frozen=True)
class Options:
    """What to reproduce, and with what."""

    root: Path
    """Folder that holds the data sets' folders."""
    part: str = "all"
    """One of PARTS, or `all`."""
    out: Path = Path("reproduction")
    """Runs, embeddings of end-to-end encoders, and the tables."""
    cache_root: Path | None = None
    text: tuple[str, ...] = (DEFAULT_ENCODERS["text"], "roberta-base")
    """Two text encoders; the first one is aligned with images too."""
    image: str = DEFAULT_ENCODERS["image"]
    miner: str = DEFAULT_MINER
    """Encoder whose cosines choose the caption pairs."""
    preset: str = "best"
    seeds: int = 3
    effort: str = "short"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options of the cached fits, by name."""
    limit: int | None = None
    """Only so many images or pairs of each split: a trial."""
    precision: str = "auto"
    """Arithmetic inside the encoders."""
    jobs: int = 1
    """Processes that fit and score at once; each gets its share of the cores."""
    share: int | None = None
    """Of `jobs` processes, which one this is: it makes runs that no other has begun, no tables."""

    def __post_init__(self) -> None:
        if self.part not in (*PARTS, "all"):
            raise InputError(f"no part {self.part!r}; there are {', '.join(PARTS)} and all")
        if self.effort not in EFFORTS:
            raise InputError(f"--effort {self.effort!r} is unknown; short or full")
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1, got {self.seeds}")
        if self.jobs < 1 or (self.share is not None and not 0 <= self.share < self.jobs):
            raise InputError(f"--jobs must be at least 1, got {self.jobs} (share {self.share})")
        if len(self.text) != 2:
            raise InputError(
                f"text is aligned with text: name two encoders with --text, got {len(self.text)}"
            )

    @property
    def length(self) -> Effort:
        """How long the fits go on."""
        return EFFORTS[self.effort]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts to run, in order."""
        return PARTS if self.part == "all" else (self.part,)


@dataclass(frozen=True)
class Plan:
    """One run to be made and scored."""

    label: str
    """What its model is called in the tables."""
    seed: int
    cases: list[tuple[str, str]]
    """Benchmarks, each with its data set in the cache."""
    make: Callable[[], tuple[Run, Cache]]
    """Fits the run, or opens it; with the cache that holds its embeddings."""
    alone: bool
    """Whether floors are left out, since another run has them."""
    long: bool = False
    """Whether it takes several times as long as others: it is begun first where runs are shared
    out."""


Plans = Callable[[int], Iterator[Plan]]
"""From a seed to its runs."""


@dataclass(frozen=True)
class Workshop:
    """Makes the runs of a reproduction."""

    options: Options
    shelf: Shelf
    fitting: Report

    def plans(self, part: str) -> Plans | None:
        """Encode what a part needs; the runs of each seed, or None if it cannot be trained."""
        return self._text_text() if part == "text-text" else self._text_image()

    def _text_text(self) -> Plans | None:
        text = self.options.text
        train = self.shelf.first("text-text", ("coco-text", "flickr8k-text"), text)
        if train is None:
            return None
        for _, name in TEXT_CASES:
            if name not in self.shelf.datasets:
                self.shelf.encode(name, text)
                self.shelf.encode_poolers(name, text)
        sides = (*self.shelf.encoders["text"][:2],)

        def plans(seed: int) -> Iterator[Plan]:
            own = self._fused(TEXT_FUSION, self.options.length.text_epochs, baseline=True)
            make = self._fit(train, f"text-{TEXT_FUSION}", seed, sides, **own)
            yield self._plan(f"cbmf-{TEXT_FUSION}", seed, TEXT_CASES, make, alone=False)

        return plans

    def _text_image(self) -> Plans | None:
        text, image = self.options.text[:1], (self.options.image,)
        train = self.shelf.first("text-image", ("coco", "flickr8k"), text, image)
        if train is None:
            return None
        for _, name in IMAGE_CASES:
            if name not in self.shelf.datasets and name != "coco":
                self.shelf.encode(name, text, image)
        sides = (self.shelf.encoders["image"][0], self.shelf.encoders["text"][0])

        def plans(seed: int) -> Iterator[Plan]:
            for fusion in (*PAPER_FUSIONS, *OTHER_FUSIONS):
                first = fusion == PAPER_FUSIONS[0]
                own = self._fused(fusion, self.options.length.epochs, baseline=first)
                make = self._fit(train, f"image-{fusion}", seed, sides, **own)
                short = self.options.effort == "short" and fusion in OTHER_FUSIONS
                cases = IMAGE_CASES[:-1] if short else IMAGE_CASES
                yield self._plan(f"cbmf-{fusion}", seed, cases, make, alone=not first)
            make = self._fit(train, "convirt-frozen", seed, sides, method="convirt")
            yield self._plan("ConVIRT, frozen", seed, IMAGE_CASES, make, alone=True)
            make = self._end_to_end(train, seed)
            last = self._plan("ConVIRT, end to end", seed, IMAGE_CASES, make, alone=False)
            yield replace(last, long=True)

        return plans

    def _fused(self, fusion: str, epochs: int | None, baseline: bool) -> dict[str, Any]:
        """Options of a fit on tokens; epochs None: as many as the preset has."""
        own: dict[str, Any] = {"fusion": fusion, "layout": "tokens", "baseline": baseline}
        if epochs is not None:
            own["epochs"] = epochs
        return {**own, **self.options.settings}

    def _plan(
        self,
        label: str,
        seed: int,
        cases: Sequence[tuple[str, str]],
        make: Callable[[], tuple[Run, Cache]],
        alone: bool,
    ) -> Plan:
        known = self.shelf.datasets
        there = [(benchmark, known[name]) for benchmark, name in cases if name in known]
        return Plan(label, seed, there, make, alone)

    def _fit(
        self,
        train: str,
        name: str,
        seed: int,
        sides: tuple[str, ...],
        **own: Any,
    ) -> Callable[[], tuple[Run, Cache]]:
        """A fit on the cache, of the options `own`."""

        def make() -> tuple[Run, Cache]:
            from ..train.config import preset
            from ..train.fit import fit

            left, right = sides
            config = preset(self.options.preset, left=left, right=right, seed=seed, **own)
            cache = Cache(self.options.cache_root)
            out = self.options.out / "runs" / f"{name}-{seed}"
            dataset = self.shelf.datasets[train]
            return fit(cache, config, out=out, dataset=dataset, report=self.fitting), cache

        return make

    def _end_to_end(self, train: str, seed: int) -> Callable[[], tuple[Run, Cache]]:
        """ConVIRT with both encoders trained; its embeddings go into a cache of its own."""

        def make() -> tuple[Run, Cache]:
            from ..train.run import Run
            from .convirt import ConvirtRequest, train_convirt

            out = self.options.out / "convirt" / f"seed-{seed}"
            request = ConvirtRequest(
                dataset=train,
                root=self.options.root,
                text=self.options.text[0],
                image=self.options.image,
                out=out,
                epochs=self.options.length.convirt_epochs,
                seed=seed,
                limit=self.options.limit,
            )
            done = train_convirt(request, self.fitting)
            cache = Cache(out / "embeddings")
            encoder = EncoderOptions(precision=self.options.precision)
            text, image = (str(done.text_encoder),), (str(done.image_encoder),)
            for _, name in IMAGE_CASES:
                if name in self.shelf.datasets:
                    # All splits: the candidates of Figure 4 are of all of them.
                    encode = self.shelf.request(name, text, image, encoder, cache.root)
                    precompute(encode, self.shelf.encoding)
            return Run.load(done.run), cache

        return make
