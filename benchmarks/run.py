"""Measure cbmf against the machine's limits, and against what else one would run.

    python -m benchmarks.run fit --cache embeddings --dataset flickr8k --root data \
        --text all-MiniLM-L6-v2 --image deit-tiny-patch16-224 --json fit.json

Prints a Markdown table a topic and writes JSON beside. Without a topic: all of them.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .settings import Settings
from .timing import HEADING, Row, machine, markdown, write_report

TOPICS = {
    "cache": "cache_io",
    "precompute": "encoding",
    "fit": "fitting",
    "evaluate": "evaluating",
    "scale": "scaling",
}
"""Topic -> module with a function `measure(settings)` that gives row after row."""


def main(words: Sequence[str] | None = None) -> None:
    """Measure the topics that are named."""
    options = _parser().parse_args(words)
    unknown = [name for name in options.topics if name not in TOPICS]
    if unknown:
        raise SystemExit(f"no topic {', '.join(unknown)}; there are {', '.join(TOPICS)}")
    found: dict[str, list[Row]] = {}
    about = machine()
    print(f"{about['processor']}, {about['cpus']} CPUs, {about['torch_threads']} torch threads, "
          f"GPU: {about['gpu']}, torch {about['torch']}")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="cbmf-benchmarks-", dir=options.work) as work:
        settings = Settings(
            work=Path(work),
            repeats=options.repeats or (2 if options.small else 5),
            small=options.small,
            cache=options.cache,
            dataset=options.dataset,
            root=options.root,
            text=options.text,
            image=options.image,
            fine_tune_epochs=options.fine_tune_epochs,
        )
        for topic in options.topics or TOPICS:
            measure = importlib.import_module(f"benchmarks.{TOPICS[topic]}").measure
            print(f"\n### {topic}\n\n{HEADING}", flush=True)
            found[topic] = []
            for row in measure(settings):
                print(markdown(row), flush=True)
                found[topic].append(row)
                write_report(options.json, found)  # what is done stays
    print(f"\nAll rounds: {options.json}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help=", ".join(TOPICS))
    parser.add_argument("--cache", type=Path, help="Embeddings to fit on. Default: the demo's.")
    parser.add_argument("--dataset", help="Its name, in the cache and under --root.")
    parser.add_argument("--root", type=Path, help="Data to encode. Default: the demo's, drawn.")
    parser.add_argument("--text", default="demo-bert", help="Text encoder: hub name or folder.")
    parser.add_argument("--image", default="demo-vit", help="Image encoder, likewise.")
    parser.add_argument("--fine-tune-epochs", type=int, default=100, help="Of evaluate.")
    parser.add_argument("--repeats", type=int, help="Rounds that count. Default: 5; small: 2.")
    parser.add_argument("--work", type=Path, help="Folder for temporary files: the disk measured.")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"))
    parser.add_argument("--small", action="store_true", help="Little of everything, as CI runs it.")
    return parser


if __name__ == "__main__":
    main()
