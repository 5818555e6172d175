"""The command line, the only part that prints or exits.

Results go to stdout, messages to stderr. Exit codes: 0 all done, 1 something failed, 2 wrong usage,
130 interrupted. What a command needs is imported inside it, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from separator.cli import ensemble, evaluate, info, models, separate, train, web
from separator.cli.console import error, line, message, open_closed_streams
from separator.errors import Cancelled, ConfigError, SeparatorError
from separator.version import __version__


class Commands(TyperGroup):
    """Group of commands that ends every foreseen error in one line and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, Cancelled) as cause:
            message("Interrupted.")
            raise typer.Exit(130) from cause
        except SeparatorError as cause:
            error(str(cause))
            raise typer.Exit(2 if isinstance(cause, ConfigError) else 1) from cause


app = typer.Typer(
    cls=Commands,
    name="separator",
    help="Separate recorded songs into stems: vocals, drums, bass and the rest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=separate.SeparateCommand, no_args_is_help=True)(separate.separate)
app.add_typer(models.app, name="models")
app.add_typer(ensemble.app, name="ensemble")
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="evaluate")
app.command()(info.info)
app.command("app")(web.web_app)


def _show_version(wanted: bool) -> None:
    if wanted:
        line(f"separator {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show it.")
    ] = False,
) -> None:
    """Separate recorded songs into stems: vocals, drums, bass and the rest."""


def main() -> None:
    """Run the program."""
    open_closed_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        utf8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        # names of files may hold any bytes, and characters that the console doesn't know
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
    try:
        app()
    except BrokenPipeError:  # the reader of our output has gone, as in `separator models | head`
        sys.exit(1)
