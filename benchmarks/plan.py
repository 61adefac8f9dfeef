"""What encoding and fitting a large set would take: bytes, hours, cost, from rates you measured.

    python -m benchmarks.plan --images 400e6 --image-rate 54 --text-rate 730 --fit-rate 30000

Bytes are exact for the format; hours follow from the rates of `python -m benchmarks.run precompute`
and `fit` on the machine in question.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

HEADER_BYTES = 8
"""Of an item in a shard, beside its vectors: its row; in the token layout its offset too."""


@dataclass(frozen=True)
class Plan:
    """A set, its encoders and the machines at hand."""

    images: float
    texts: float
    image_width: int
    text_width: int
    image_tokens: float
    """Of an image in the cache; 0: pooled vectors only."""
    text_tokens: float
    number_bytes: int
    image_rate: float
    """Images a second that one device encodes."""
    text_rate: float
    """Texts a second that one device encodes."""
    fit_rate: float
    """Pairs a second that one device trains on."""
    epochs: float
    devices: int
    price: float
    """Of a device for an hour."""
    storage_price: float
    """Of a TB for a month."""

    def stored(self, items: float, width: int, tokens: float) -> float:
        """Bytes of a stream."""
        vectors = 1 + tokens
        header = HEADER_BYTES * (2 if tokens else 1)
        return items * (vectors * width * self.number_bytes + header)

    def rows(self) -> list[tuple[str, str]]:
        """What it comes to, line by line."""
        image_bytes = self.stored(self.images, self.image_width, self.image_tokens)
        text_bytes = self.stored(self.texts, self.text_width, self.text_tokens)
        total_tb = (image_bytes + text_bytes) / 1e12
        image_hours = self.images / self.image_rate / 3600
        text_hours = self.texts / self.text_rate / 3600
        encoding = image_hours + text_hours
        fitting = self.epochs * self.texts / self.fit_rate / 3600
        hours = encoding + fitting
        return [
            ("image stream", _size(image_bytes)),
            ("text stream", _size(text_bytes)),
            ("encoding images", f"{image_hours:,.0f} device hours"),
            ("encoding texts", f"{text_hours:,.0f} device hours"),
            (f"fit, {self.epochs:g} epochs", f"{fitting:,.0f} device hours"),
            (f"encoding on {self.devices} devices", f"{encoding / self.devices / 24:,.1f} days"),
            ("devices", f"{hours * self.price:,.0f} units of price"),
            ("storage, a month", f"{total_tb * self.storage_price:,.0f} units of price"),
            (
                "encoding again every epoch instead",
                f"{encoding * self.epochs:,.0f} device hours",
            ),
        ]


def _size(count: float) -> str:
    return f"{count / 1e12:,.2f} TB" if count >= 1e11 else f"{count / 1e9:,.2f} GB"


def main() -> None:
    """Print the plan that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--images", type=float, default=400e6)
    add("--texts", type=float, help="default: one an image")
    add("--image-width", type=int, default=768)
    add("--text-width", type=int, default=768)
    add("--image-tokens", type=float, default=0, help="tokens kept of an image; 0: pooled only")
    add("--text-tokens", type=float, default=0)
    add("--number-bytes", type=int, default=2, help="2: float16, 4: float32")
    add("--image-rate", type=float, required=True, help="images a second on one device")
    add("--text-rate", type=float, required=True)
    add("--fit-rate", type=float, required=True, help="pairs a second on one device")
    add("--epochs", type=float, default=10)
    add("--devices", type=int, default=1)
    add("--price", type=float, default=0, help="of a device for an hour")
    add("--storage-price", type=float, default=0, help="of a TB for a month")
    given = vars(parser.parse_args())
    given["texts"] = given["texts"] or given["images"]
    print("| | |\n|---|---:|")
    for name, value in Plan(**given).rows():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
