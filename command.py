"""What every command of the command line shares: exit codes, one line for an expected failure."""

from __future__ import annotations

import os
import re
import signal
import sys
import tomllib
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from .cache.errors import CbmfError, InputError, PeerError

if TYPE_CHECKING:
    from .precompute.datasets.tables import TableOptions

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
        sys.unraisablehook = _swallowed
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


def _take_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Let a TOML file give the defaults of a command; what the command line says goes before."""
    if path is None:
        return None
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    own = table.get(str(ctx.info_name))
    if isinstance(own, dict):
        table = own
    options = [option for option in ctx.command.params if "--config" not in option.opts]
    plain = {_written(option): option.name for option in options}
    repeated = {option.name for option in options if getattr(option, "multiple", False)}
    chosen: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and key != "set":
            continue  # another command's
        name = plain.get(key.replace("_", "-"))
        if name is None:
            raise typer.BadParameter(
                f"{path}: {ctx.info_name} has no option {key!r}; it has {', '.join(sorted(plain))}"
            )
        if isinstance(value, dict):
            value = [f"{setting}={_plain(of)}" for setting, of in value.items()]
        chosen[name] = [value] if name in repeated and not isinstance(value, list) else value
    ctx.default_map = {**(ctx.default_map or {}), **chosen}
    return path


def _written(option: Any) -> str:
    """The long name of an option, or the name of an argument, as people write it."""
    long = [word for word in option.opts if word.startswith("--")]
    return str(long[0][2:] if long else option.name).replace("_", "-")


def _plain(value: Any) -> str:
    """A value of a file as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _swallowed(lost: sys.UnraisableHookArgs) -> None:
    """Raise a stop again that came within a finaliser, where Python drops every exception."""
    kind = lost.exc_type
    if not issubclass(kind, Terminated | KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return

    def again(number: int, frame: FrameType | None) -> None:
        raise kind

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, 0.01)


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


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=_take_config,
        help="Take options from a file: those at its top, or in a table named as the command. "
        "Options that are given here go before.",
    ),
]
TABLE_PANEL = "Of pairs: a table of your own"
ImageColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=TABLE_PANEL,
        help="Column of the image paths, relative to the table. Default: found by its name.",
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=TABLE_PANEL,
        help="Column of the captions. Default: found by its name.",
    ),
]
SplitSeed = Annotated[
    int,
    typer.Option(
        rich_help_panel=TABLE_PANEL,
        help="Of the cut into train, val and test (80/10/10, by image), if no column gives it.",
    ),
]


def table_options(image: str | None, caption: str | None, seed: int) -> TableOptions | None:
    """How a user's table is to be read; None if all is left to its names."""
    if image is None and caption is None and not seed:
        return None
    from .precompute.datasets.tables import TableOptions

    return TableOptions(image, caption, seed)


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
