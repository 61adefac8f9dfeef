"""The data of a reproduction: what is there is encoded, what is not is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..cache.errors import InputError
from ..precompute.encoders import EncoderOptions
from ..precompute.mining import MiningOptions
from ..precompute.pipeline import PrecomputeOptions
from ..precompute.stage import Reporter, Request, precompute

GRID = 7
"""Image tokens are averaged to 1 + GRID x GRID."""
SPLITS = {"cifar10": ("test",)}
"""Splits that are needed, where that is not all of them."""


@dataclass
class Shelf:
    """What is encoded so far, and what could not be."""

    root: Path
    """Folder that holds the data sets' folders."""
    cache_root: Path | None
    miner: str
    """Encoder whose cosines choose the caption pairs."""
    precision: str
    """Arithmetic inside the encoders."""
    limit: int | None
    """Only so many images or pairs of each split."""
    encoding: Reporter
    say: Callable[[str], None]
    datasets: dict[str, str] = field(default_factory=dict)
    """Name in the cache of each data set that is encoded."""
    encoders: dict[str, list[str]] = field(default_factory=dict)
    """Short names by modality, in the order in which they were named."""
    skipped: dict[str, str] = field(default_factory=dict)
    """What could not be done, and why."""

    def first(
        self, part: str, names: Sequence[str], text: Sequence[str], image: Sequence[str] = ()
    ) -> str | None:
        """Encode the first of several data sets that is there; its name, None without any."""
        for name in names:
            if self.encode(name, text, image):
                for other in names[: names.index(name)]:
                    reason = self.skipped.pop(other)
                    self.skipped[f"{part} on {other}"] = f"{reason}; {name} stands in"
                return name
        return None

    def encode(self, name: str, text: Sequence[str], image: Sequence[str] = ()) -> bool:
        """Encode a data set on tokens, unless it is not there; whether it is."""
        options = EncoderOptions(
            layout="tokens", grid=GRID if image else None, precision=self.precision
        )
        request = self.request(name, text, image, options)
        if name.endswith("-text"):
            request = replace(request, mining=MiningOptions(miner=self.miner))
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

    def encode_poolers(self, name: str, text: Sequence[str]) -> None:
        """Encode with the poolers of those encoders that have one, for the raw floors."""
        if name not in self.datasets:
            return
        for encoder in text:
            if "@" in encoder:
                continue  # an inner layer has no pooler
            options = EncoderOptions(pool="pooler", precision=self.precision)
            try:
                precompute(self.request(name, (encoder,), (), options), self.encoding)
            except InputError as error:
                self.skipped[f"pooler of {encoder}"] = str(error)

    def request(
        self,
        name: str,
        text: Sequence[str],
        image: Sequence[str],
        options: EncoderOptions,
        cache_root: Path | None = None,
    ) -> Request:
        """What stage 1 is asked for; into another cache than the reproduction's if one is named."""
        return Request(
            dataset=name,
            root=self.root,
            splits=SPLITS.get(name),
            text=tuple(text),
            image=tuple(image),
            cache_root=cache_root or self.cache_root,
            options=PrecomputeOptions(encoder=options, limit=self.limit),
        )
