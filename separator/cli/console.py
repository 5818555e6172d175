"""Where text goes: results to stdout, messages to stderr.

Either may be closed (cron jobs, daemons), full, or a pipe whose reader has gone.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from separator.errors import SeparatorError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Without it, the next file to be opened would take the number of a closed one, and hear all that
    is meant for it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def line(text: object) -> None:
    """Print a result as it is.

    Raises:
        BrokenPipeError: Its reader has gone, as in `separator models | head`.
        SeparatorError: It can't be written. Either way, what follows goes nowhere.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        _send_nowhere(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise SeparatorError(f"Can't write to stdout: {error.strerror}.") from error


def is_stdout(path: Path) -> bool:
    """Tell whether a path is stdout: `-`, or another name of the same file, as /dev/stdout."""
    if str(path) == "-":
        return True
    with suppress(OSError):  # there is no such path, or stdout is no file of the system
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    return False


def message(text: str) -> None:
    """Print a message, in one line; one that can't be told stops nothing."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        _send_nowhere(sys.stderr)


def _send_nowhere(stream: TextIO) -> None:
    """Connect a stream with the null device, so that what is left in it harms nobody."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def command(*words: object) -> str:
    """Write a command so that a shell takes it as it is meant.

    >>> command("separate", "My Song.mp3")
    "separator separate 'My Song.mp3'"
    """
    return shlex.join(["separator", *map(str, words)])


def error(text: str) -> None:
    """Print an error, in one line."""
    message(f"error: {text}")


def printable(text: object) -> str:
    """Replace what can't be shown: names of files may hold line breaks and control characters.

    >>> printable("a song\\n\\x1b[2J")
    'a song??[2J'
    """
    return "".join(char if char.isprintable() else "?" for char in str(text))


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes no markup: names of files may hold brackets."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def table(*columns: str, plain: bool = False) -> Table:
    """Begin a table: with lines on a terminal, unless they are not wanted; plain elsewhere."""
    from rich.box import ROUNDED
    from rich.table import Table

    boxed = sys.stdout.isatty() and not plain
    return Table(*columns, box=ROUNDED if boxed else None, pad_edge=boxed)


def cut(text: str) -> Text:
    """Return a cell of a table that a narrow terminal cuts and doesn't wrap."""
    from rich.text import Text

    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def show(table: Table) -> None:
    """Print a table: fitted to a terminal, in its full width elsewhere."""
    target = console()
    if not target.is_terminal:
        target.width = 10_000
    with target.capture() as captured:
        target.print(table)
    line(captured.get().removesuffix("\n"))
