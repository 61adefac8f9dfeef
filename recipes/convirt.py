"""ConVIRT as the paper has it: both encoders trained end to end, then ordinary encoder folders.

B pairs, L tokens, D width of the shared space. The recipe departs from Zhang et al. in that the
temperature is learned (theirs is 0.1) and both directions weigh the same (theirs 0.75 to 0.25), as
in all our models, and in that pictures are not augmented, as in the paper of CBMF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache.errors import InputError, RunError
from ..cache.files import read_json, value_digest, write_json
from ..cache.manifest import differences

if TYPE_CHECKING:
    from ..precompute.tower import Tower
    from ..train.aligner import EncoderSpec
    from ..train.config import FitConfig
    from ..train.loop import Progress
    from .convirt_data import ConvirtData
    from .convirt_loop import Training

IMAGE_FOLDER, TEXT_FOLDER, RUN_FOLDER = "convirt-image", "convirt-text", "run"
CARD_NAME, CARD_FORMAT, CARD_VERSION = "convirt.json", "cbmf-convirt", 1
PRECISIONS = ("auto", "float32", "bfloat16")
NOT_ASKED = ("root", "out", "device")
"""Fields of a request that do not change what comes out."""


@dataclass(frozen=True)
class ConvirtRequest:
    """What to train, and how."""

    dataset: str
    """As `cbmf precompute` takes it; of images and texts."""
    out: Path
    """Folder of the results; new, empty, or an interrupted training of the same request."""
    root: Path | None = None
    """Where the data set lies; None: `$CBMF_DATA/<dataset>`, else `./data/<dataset>`."""
    text: str | None = None
    """Text encoder to begin with: hub name or folder; None: the paper's (the demo's for `demo`)."""
    image: str | None = None
    """Image encoder, likewise."""
    epochs: int = 5
    """Passes over the images, each with one of its captions."""
    batch_size: int = 64
    """Images a step; the others of a step are an image's negatives."""
    lr: float = 5e-5
    """Highest learning rate of the encoders."""
    head_lr: float = 1e-3
    """Highest learning rate of heads and temperature."""
    seed: int = 0
    """Of everything random: heads, order, captions drawn, dropout, hold-out."""
    limit: int | None = None
    """Only so many images of each split, as data set `<name>-limit<N>`."""
    precision: str = "auto"
    """`float32`, `bfloat16` (autocast; weights stay float32), or `auto`: bfloat16 where the
    processor has instructions for it."""
    device: str | None = None
    """`cpu` or `cuda`; None: the GPU if there is one."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0), ("limit", 4)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}; got {value}")
        for name in ("lr", "head_lr"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"{name} must lie between 0 and 1; got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is one of {', '.join(PRECISIONS)}; got {self.precision!r}")
        if self.device not in (None, "auto", "cpu", "cuda"):
            raise InputError(
                f"device {self.device!r} is unknown; choose cpu or cuda (CUDA_VISIBLE_DEVICES says "
                "which card)"
            )

    @property
    def asked(self) -> dict[str, Any]:
        """What must be equal for a training to be the same, as JSON values."""
        return {key: value for key, value in asdict(self).items() if key not in NOT_ASKED}


@dataclass(frozen=True)
class ConvirtResult:
    """Where the results are."""

    image_encoder: Path
    """An encoder folder, for `cbmf precompute --image`."""
    text_encoder: Path
    """An encoder folder, for `cbmf precompute --text`."""
    run: Path
    """A run folder with the heads, for `cbmf evaluate --run`."""


def silent(progress: Progress) -> None:
    """Report nothing."""


def train_convirt(
    request: ConvirtRequest, report: Callable[[Progress], None] = silent
) -> ConvirtResult:
    """Train both encoders and their heads; keep the epoch with the best recall in validation.

    Interrupted, it goes on from its last checkpoint when it is called again with the same request;
    on the CPU the result is the same, bit by bit. A finished training is left as it is.

    Args:
        request: What to train.
        report: Called with lines about the data, the steps (twice a minute) and each epoch.

    Raises:
        InputError: If the data set or an encoder cannot be trained on.
        RunError: If the folder holds something else, or the loss diverges.
        DiskFullError: If the disk is full.
    """
    out = request.out
    result = ConvirtResult(out / IMAGE_FOLDER, out / TEXT_FOLDER, out / RUN_FOLDER)
    if _finished(request):
        _tell(report, f"{out}: this training is finished already; nothing is done again")
        return result
    from .convirt_data import load_couples, read_splits
    from .convirt_loop import Training, start_accelerator

    config = fit_config(request)
    accelerator = start_accelerator(request.device, config.precision)
    name, splits = read_splits(request.dataset, request.root, request.limit)
    towers = _towers(request)
    _begin(request, {key: items.digest() for key, (items, _) in splits.items()}, towers)

    def reading(line: str) -> None:
        _tell(report, line)

    data = load_couples(name, splits, *towers, out, request.seed, reading)
    _tell(report, f"{_about(data, *towers)}; {config.precision}")
    training = Training(config, request.lr, data, towers, out, accelerator, report)
    training.run()
    _keep(request, result, data, training)
    training.clean()
    return result


def fit_config(request: ConvirtRequest) -> FitConfig:
    """The recipe as the run's card holds it; the rate is that of the heads."""
    from ..train.config import END_TO_END, preset

    return preset(
        "convirt",
        preset=END_TO_END,
        epochs=request.epochs,
        batch_size=request.batch_size,
        lr=request.head_lr,
        seed=request.seed,
        precision=_precision(request),
        warmup=0.1,
        clip=1.0,
        standardise=False,  # the vectors change with every step
        input_dropout=0.0,  # the encoders have their own
    )


def _precision(request: ConvirtRequest) -> str:
    """`auto` made plain for the processor at hand."""
    import torch

    if request.precision != "auto":
        return request.precision
    if torch.cuda.is_available() and request.device != "cpu":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def _towers(request: ConvirtRequest) -> tuple[Tower, Tower]:
    """The encoders to begin with, image before text."""
    from ..precompute.demo import DEMO, DEMO_ENCODERS
    from ..precompute.encoders import DEFAULT_ENCODERS
    from ..precompute.tower import Tower

    usual = DEMO_ENCODERS if request.dataset == DEMO else DEFAULT_ENCODERS
    image = Tower(request.image or usual["image"], "image")
    return image, Tower(request.text or usual["text"], "text")


def _tell(report: Callable[[Progress], None], text: str) -> None:
    from ..train.loop import Progress

    report(Progress("data", text))


def _about(data: ConvirtData, image: Tower, text: Tower) -> str:
    split = "held out" if data.held_out else "of the split val"
    failed = f", {data.unreadable:,} pictures unreadable" if data.unreadable else ""
    return (
        f"convirt: {image.encoder.short_name} with {text.encoder.short_name} on {data.dataset}; "
        f"{len(data.train.table.left):,} images with {len(data.train.table.right):,} captions to "
        f"train on, {len(data.val.table.left):,} {split} to validate on{failed}"
    )


def _finished(request: ConvirtRequest) -> bool:
    """Whether the folder holds the finished training of this request.

    Raises:
        RunError: If it holds something else.
    """
    from ..train.history import SUMMARY_NAME

    path = request.out / CARD_NAME
    if not path.exists():
        if request.out.exists() and any(request.out.iterdir()):
            raise RunError(f"{request.out}: not empty, and no training; choose another --out")
        return False
    _compare(path, {"request": request.asked})
    return (request.out / RUN_FOLDER / SUMMARY_NAME).exists()


def _begin(request: ConvirtRequest, digests: dict[str, str], towers: tuple[Tower, Tower]) -> None:
    """Write the card of a new training, or see that an interrupted one had the same data.

    Raises:
        RunError: If data or encoders are others than when it began; names the difference.
    """
    encoders = {t.encoder.modality: value_digest(t.encoder.made_of) for t in towers}
    card = {"request": request.asked, "items": digests, "encoders": encoders}
    if (request.out / CARD_NAME).exists():
        _compare(request.out / CARD_NAME, card)
        return
    request.out.mkdir(parents=True, exist_ok=True)
    write_json(request.out / CARD_NAME, {"format": CARD_FORMAT, "version": CARD_VERSION, **card})


def _compare(path: Path, card: dict[str, Any]) -> None:
    old = read_json(path)
    if (old.get("format"), old.get("version")) != (CARD_FORMAT, CARD_VERSION):
        raise RunError(f"{path}: not the card of a training of this version; choose another --out")
    changes = list(differences({key: old.get(key) for key in card}, card))
    if changes:
        shown = "; ".join(changes[:6])
        raise RunError(f"{path.parent}: holds another training ({shown}); choose another --out")


def _keep(
    request: ConvirtRequest, result: ConvirtResult, data: ConvirtData, training: Training
) -> None:
    """Write the encoders' folders, then the run that reads their vectors, its summary last."""
    from ..precompute.encoders import EncoderOptions, FrozenEncoder
    from ..train.aligner import CONFIG_NAME
    from ..train.convirt import ConVIRT
    from ..train.curves import draw_run
    from ..train.history import write_history, write_summary
    from ..train.run import ENVIRONMENT_NAME, describe_run, encoder_source, environment
    from .convirt_model import encoder_spec

    best = training.best()
    specs: list[EncoderSpec] = []
    sources: dict[str, Any] = {}
    for tower, folder in ((best.image, result.image_encoder), (best.text, result.text_encoder)):
        tower.save(folder)
        saved = FrozenEncoder(str(folder), tower.encoder.modality, EncoderOptions(device="cpu"))
        specs.append(encoder_spec(saved))
        sources[specs[-1].identity] = encoder_source(saved.source, saved.made_of)
    heads = ConVIRT(specs, training.config.model)
    heads.load_state_dict(best.heads.state_dict())
    run, config = result.run, training.config
    run.mkdir(exist_ok=True)
    streams = [{"column": s.column, "encoder": s.name, "identity": s.identity} for s in specs]
    seen = {"train": streams} if data.held_out else {"train": streams, "val": streams}
    card = describe_run(heads, config, data.dataset, seen) | {"convirt": request.asked}
    card["sources"] = sources
    write_json(run / CONFIG_NAME, card)
    heads.save_weights(run)
    machine = environment(training.device, request.out, config)
    write_json(run / ENVIRONMENT_NAME, {k: v for k, v in machine.items() if k != "cache"})
    write_history(run, training.history)
    draw_run(run, run / "no-other")
    sums = {key: sum(line[key] for line in training.history) for key in ("seconds", "cpu_seconds")}
    kept = training.history[training.best_epoch - 1]
    summary = {"epochs": training.epoch, "stopped": "epochs", **sums, "best": kept}
    write_summary(run, summary)
