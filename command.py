"""What every command of the command line shares: exit codes, one line for an expected failure."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .cache.errors import CbmfError, InputError, PeerError

EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
DEBUG_VARIABLE = "CBMF_DEBUG"


class Terminated(BaseException):
    """SIGTERM has come."""


class Command(TyperCommand):
    """A command whose expected failures are one line, and whose `--cache` may stand bare."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--cache` the empty value, which stands for the default folder."""
        given: list[str] = []
        for place, word in enumerate(args):
            given.append(word)
            if word == "--cache" and (place + 1 == len(args) or args[place + 1].startswith("-")):
                given.append("")
        return super().parse_args(ctx, given)

    def invoke(self, ctx: Any) -> Any:
        """Run, and turn expected failures into one line and an exit code."""
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except PeerError:
            raise typer.Exit(EXIT_FAILURE) from None
        except (CbmfError, OSError) as error:
            if os.environ.get(DEBUG_VARIABLE):
                raise
            _complain(str(error) or type(error).__name__)
            raise typer.Exit(EXIT_FAILURE) from None
        except KeyboardInterrupt:
            _stopped("interrupted")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Terminated:
            _stopped("terminated")
            raise typer.Exit(EXIT_TERMINATED) from None


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _stopped(how: str) -> None:
    """Say so; of several processes started together the first one does."""
    if os.environ.get("RANK", "0") == "0":
        _complain(f"{how}; everything finished is kept, the same command goes on from there")


def _complain(text: str) -> None:
    sys.stdout.flush()
    typer.echo(f"cbmf: {' '.join(text.split())}", err=True)


CacheOption = Annotated[
    str,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Folder of the embeddings; bare or absent: $CBMF_CACHE, else ./embeddings.",
        show_default=False,
    ),
]


def cache_root(cache: str) -> Path | None:
    """The folder that `--cache` names; None for the default one."""
    return Path(cache) if cache else None


_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def size_bytes(text: str) -> int:
    """A size as people write it: `2GiB`, `500M`, `1.5g`; units are powers of 1,024.

    Raises:
        InputError: If it is none, or not above 0.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    size = int(float(found[1]) * _SIZES[found[2]]) if found else 0
    if size < 1:
        raise InputError(f"--memory {text}: not a size; write it like 2GiB or 500MiB")
    return size
