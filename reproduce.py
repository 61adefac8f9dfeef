"""Every table and figure of the paper that the data at hand allow: what `cbmf reproduce` runs.

Each step does nothing that an earlier call has done: encoding, fits and scores are kept where they
always are, so an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cache.catalog import Cache
from .cache.errors import CacheError, InputError, RunError
from .cache.files import new_file, write_json
from .precompute.encoders import DEFAULT_ENCODERS, EncoderOptions
from .precompute.mining import DEFAULT_MINER, MiningOptions
from .precompute.pipeline import PrecomputeOptions
from .precompute.stage import Reporter, Request, precompute

if TYPE_CHECKING:
    from .evaluate.paper import Entry
    from .evaluate.results import Result
    from .train.loop import Report
    from .train.run import Run

PARTS = ("text-text", "text-image")
GRID = 7
"""Image tokens are averaged to 1 + GRID x GRID."""
TEXT_FUSION = "additive"
"""The paper's, of text with text."""
PAPER_FUSIONS = ("add", "dot")
"""The paper's, of text with images."""
OTHER_FUSIONS = ("mul", "concat", "additive", "general")
TABLES_NAME = "tables.md"


@dataclass(frozen=True)
class Effort:
    """How long the fits go on."""

    epochs: int | None
    """Of the cached fits; None: the preset's own."""
    convirt_epochs: int
    """Of ConVIRT, both encoders trained."""
    convirt_seeds: int
    """How often it is trained, at most."""
    fine_tune_epochs: int
    """On Tiny ImageNet."""


EFFORTS = {"short": Effort(12, 1, 1, 20), "full": Effort(None, 10, 99, 100)}
"""`short`: about an hour on two cores for Flickr8k and small encoders. `full`: for a GPU."""


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

    def __post_init__(self) -> None:
        if self.part not in (*PARTS, "all"):
            raise InputError(f"no part {self.part!r}; there are {', '.join(PARTS)} and all")
        if self.effort not in EFFORTS:
            raise InputError(f"--effort {self.effort!r} is unknown; short or full")
        if self.seeds < 1:
            raise InputError(f"--seeds must be at least 1, got {self.seeds}")
        if len(self.text) != 2:
            raise InputError(
                f"text is aligned with text: name two encoders with --text, got {len(self.text)}"
            )

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


@dataclass
class Reproduction:
    """A reproduction under way."""

    options: Options
    encoding: Reporter
    fitting: Report
    say: Callable[[str], None]
    entries: list[Entry] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """What could not be done, and why."""
    datasets: dict[str, str] = field(default_factory=dict)
    """Name in the cache of each data set that is encoded."""
    encoders: dict[str, list[str]] = field(default_factory=dict)
    """Short names by modality, in the order in which they were named."""
    began: float = field(default_factory=time.monotonic)

    @property
    def effort(self) -> Effort:
        """How long the fits go on."""
        return EFFORTS[self.options.effort]

    @property
    def folder(self) -> Path:
        """Where tables and figures go."""
        return self.options.out / "results"

    def run(self) -> Path:
        """Do everything; returns the folder of tables and figures.

        Raises:
            InputError: If there is no data to train on.
        """
        plans = {part: self._prepare(part) for part in self.options.parts}
        if not any(plans.values()):
            raise InputError("; ".join(f"{what}: {why}" for what, why in self.skipped.items()))
        for seed in range(self.options.seeds):
            for part, make in plans.items():
                for plan in make(seed) if make else ():
                    self._score(part, plan)
            self.write()
        return self.folder

    def _prepare(self, part: str) -> Callable[[int], Iterator[Plan]] | None:
        """Encode what a part needs; the plans of a seed, or None if it cannot be trained."""
        return self._text_text() if part == "text-text" else self._text_image()

    def _text_text(self) -> Callable[[int], Iterator[Plan]] | None:
        train = self._first("text-text", ("coco-text", "flickr8k-text"), text=self.options.text)
        if train is None:
            return None
        for name in ("qqp", "mrpc", "stsb"):
            self._encode(name, text=self.options.text)
            self._poolers(name)
        cases = [("paraphrase", "qqp"), ("paraphrase", "mrpc"), ("similarity", "stsb")]
        left, right = self.encoders["text"][:2]

        def plans(seed: int) -> Iterator[Plan]:
            fit = self._fit(train, f"text-{TEXT_FUSION}", seed, TEXT_FUSION, left, right, True)
            yield Plan(f"cbmf-{TEXT_FUSION}", seed, self._there(cases), fit, alone=False)

        return plans

    def _text_image(self) -> Callable[[int], Iterator[Plan]] | None:
        both = {"text": self.options.text[:1], "image": (self.options.image,)}
        train = self._first("text-image", ("coco", "flickr8k"), **both)
        if train is None:
            return None
        if "flickr8k" not in self.datasets:
            self._encode("flickr8k", **both)
        self._encode("cifar10", splits=("test",), **both)
        for name in ("cifar100", "tiny-imagenet"):
            self._encode(name, **both)
        cases = [
            ("retrieval", "flickr8k"),
            ("zero-shot", "cifar10"),
            ("linear", "cifar100"),
            ("fine-tune", "tiny-imagenet"),
        ]
        left, right = self.encoders["image"][0], self.encoders["text"][0]
        short = self.options.effort == "short"

        def plans(seed: int) -> Iterator[Plan]:
            for fusion in (*PAPER_FUSIONS, *OTHER_FUSIONS):
                first = fusion == PAPER_FUSIONS[0]
                fit = self._fit(train, f"image-{fusion}", seed, fusion, left, right, first)
                some = cases[:3] if short and fusion in OTHER_FUSIONS else cases
                yield Plan(f"cbmf-{fusion}", seed, self._there(some), fit, alone=not first)
            fit = self._fit(train, "convirt-frozen", seed, None, left, right, False)
            yield Plan("ConVIRT, frozen", seed, self._there(cases), fit, alone=True)
            if seed < self.effort.convirt_seeds:
                fit = self._end_to_end(seed, cases)
                yield Plan("ConVIRT, end to end", seed, self._there(cases), fit, alone=False)

        return plans

    def _there(self, cases: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(b, self.datasets[name]) for b, name in cases if name in self.datasets]

    def _first(self, part: str, names: Sequence[str], **encoders: tuple[str, ...]) -> str | None:
        """Encode the first of several data sets that is there; its name in the cache."""
        for name in names:
            if self._encode(name, **encoders):
                for other in names[: names.index(name)]:
                    reason = self.skipped.pop(other)
                    self.skipped[f"{part} on {other}"] = f"{reason}; {name} stands in"
                return self.datasets[name]
        return None

    def _encode(
        self,
        name: str,
        splits: tuple[str, ...] | None = None,
        text: tuple[str, ...] = (),
        image: tuple[str, ...] = (),
    ) -> bool:
        """Encode a data set on tokens, unless it is not there; whether it is."""
        encoder = EncoderOptions(
            layout="tokens", grid=GRID if image else None, precision=self.options.precision
        )
        request = Request(
            dataset=name,
            root=self.options.root,
            splits=splits,
            text=text,
            image=image,
            cache_root=self.options.cache_root,
            options=PrecomputeOptions(encoder=encoder, limit=self.options.limit),
            mining=MiningOptions(miner=self.options.miner) if name.endswith("-text") else None,
        )
        try:
            done = precompute(request, self.encoding)
        except InputError as error:
            self.skipped[name] = str(error)
            self.say(f"skipped: {error}")
            return False
        self.datasets[name] = done.streams[0].dataset
        for stream in done.streams:
            known = self.encoders.setdefault(stream.modality, [])
            if stream.layout == "tokens" and stream.encoder not in known:
                known.append(stream.encoder)
        return True

    def _poolers(self, name: str) -> None:
        """Encode with the poolers of those encoders that have one, for the raw floors."""
        if name not in self.datasets:
            return
        for text in self.options.text:
            if "@" in text:
                continue  # an inner layer has no pooler
            encoder = EncoderOptions(pool="pooler", precision=self.options.precision)
            request = Request(
                dataset=name,
                root=self.options.root,
                text=(text,),
                cache_root=self.options.cache_root,
                options=PrecomputeOptions(encoder=encoder, limit=self.options.limit),
            )
            try:
                precompute(request, self.encoding)
            except InputError as error:
                self.skipped[f"pooler of {text}"] = str(error)

    def _fit(
        self,
        dataset: str,
        name: str,
        seed: int,
        fusion: str | None,
        left: str,
        right: str,
        baseline: bool,
    ) -> Callable[[], tuple[Run, Cache]]:
        """A fit on the cache: of a fusion on tokens, or of frozen ConVIRT for None."""

        def make() -> tuple[Run, Cache]:
            from .train.config import preset
            from .train.fit import fit

            given: dict[str, Any] = {"left": left, "right": right, "seed": seed}
            if fusion is None:
                config = preset(self.options.preset, method="convirt", **given)
            else:
                given |= {"fusion": fusion, "layout": "tokens", "baseline": baseline}
                if self.effort.epochs is not None:
                    given["epochs"] = self.effort.epochs
                config = preset(self.options.preset, **{**given, **self.options.settings})
            cache = Cache(self.options.cache_root)
            out = self.options.out / "runs" / f"{name}-{seed}"
            return fit(cache, config, out=out, dataset=dataset, report=self.fitting), cache

        return make

    def _end_to_end(
        self, seed: int, cases: Sequence[tuple[str, str]]
    ) -> Callable[[], tuple[Run, Cache]]:
        """ConVIRT with both encoders trained; its embeddings go into a cache of its own."""

        def make() -> tuple[Run, Cache]:
            from .convirt import ConvirtRequest, train_convirt
            from .train.run import Run

            out = self.options.out / "convirt" / f"seed-{seed}"
            source = "flickr8k" if self.datasets.get("flickr8k") == self._train_set() else "coco"
            request = ConvirtRequest(
                dataset=source,
                root=self.options.root,
                text=self.options.text[0],
                image=self.options.image,
                out=out,
                epochs=self.effort.convirt_epochs,
                seed=seed,
                limit=self.options.limit,
            )
            done = train_convirt(request, self.fitting)
            cache = Cache(out / "embeddings")
            for name in [name for _, name in cases if name in self.datasets]:
                encode = Request(
                    dataset=name,
                    root=self.options.root,
                    splits=("test",) if name == "cifar10" else None,
                    text=(str(done.text_encoder),),
                    image=(str(done.image_encoder),),
                    cache_root=cache.root,
                    options=PrecomputeOptions(
                        encoder=EncoderOptions(precision=self.options.precision),
                        limit=self.options.limit,
                    ),
                )
                precompute(encode, self.encoding)
            return Run.load(done.run), cache

        return make

    def _train_set(self) -> str:
        return self.datasets.get("coco", self.datasets.get("flickr8k", ""))

    def _score(self, part: str, plan: Plan) -> None:
        """Make a run and score it; what fails is skipped, with the reason."""
        from .evaluate.paper import Entry
        from .evaluate.suite import evaluate
        from .evaluate.systems import model_name

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
                    fine_tune_epochs=self.effort.fine_tune_epochs,
                    report=lambda text: None,
                )
                found += done.results
            except (InputError, CacheError, RunError) as error:
                self.skipped[f"{benchmark} of {plan.label} on {dataset}"] = str(error)
        self.entries.append(Entry(plan.label, plan.seed, found, model_name(run)))
        spent = f"fit {fitted - began:.0f} s, scores {time.monotonic() - fitted:.0f} s"
        self.say(f"   {spent}; {(time.monotonic() - self.began) / 60:.1f} min in all")

    def write(self) -> None:
        """Tables and figures of all that there is so far."""
        from .evaluate.figures import draw
        from .evaluate.paper import drawings, paper_tables, to_json, to_markdown

        tables = paper_tables(self.entries)
        self.folder.mkdir(parents=True, exist_ok=True)
        skipped = [f"- {what}: {' '.join(why.split())}" for what, why in self.skipped.items()]
        text = [self._heading(), to_markdown(tables)]
        text += ["### Left out", "", *skipped, ""] if skipped else []
        with new_file(self.folder / TABLES_NAME) as part:
            part.write_text("\n".join(text), encoding="utf-8")
        settings = {k: str(v) for k, v in asdict(self.options).items()}
        document = {
            "options": settings,
            "effort": asdict(self.effort),
            "minutes": (time.monotonic() - self.began) / 60,
            "tables": to_json(tables),
            "skipped": self.skipped,
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
    return Reproduction(replace(options), encoding, fitting, say).run()
