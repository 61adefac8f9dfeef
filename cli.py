"""The command line: the three stages, the cache, and the recipes. Thin over the rooms.

Nothing heavy is imported at the top, so that `--help` comes at once.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from . import __version__
from .cache_commands import cache_app
from .command import DEBUG_VARIABLE, Command
from .evaluate_command import evaluate
from .fit_command import fit
from .precompute_command import precompute
from .recipes.commands import convirt, demo, reproduce
from .recipes.compare_command import compare
from .recipes.doctor_command import doctor
from .recipes.own_command import run_own
from .recipes.report_command import report
from .recipes.search_command import search

app = typer.Typer(
    name="cbmf",
    help="Align frozen pretrained encoders: encode once, fit in seconds, evaluate from the cache.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="To see all of it on generated data, in under two minutes: cbmf demo",
)
app.add_typer(cache_app, name="cache")


def _tell_version(asked: bool) -> None:
    """Print the version, whatever else is asked."""
    if asked:
        typer.echo(f"cbmf {__version__}")
        raise typer.Exit


@app.callback()
def face(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_tell_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of expected failures too.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


for stage in (precompute, fit, evaluate):
    app.command(cls=Command, rich_help_panel="The three stages")(stage)
app.command("run", cls=Command, rich_help_panel="To begin with")(run_own)
app.command(cls=Command, rich_help_panel="To begin with")(demo)
app.command(cls=Command, rich_help_panel="To begin with")(doctor)
app.command(cls=Command, rich_help_panel="To judge by")(compare)
app.command(cls=Command, rich_help_panel="To judge by")(report)
app.command(cls=Command, rich_help_panel="To judge by")(search)
app.command(cls=Command, rich_help_panel="The paper")(convirt)
app.command(cls=Command, rich_help_panel="The paper")(reproduce)


def main() -> None:
    """Entry point of the `cbmf` command."""
    app()
