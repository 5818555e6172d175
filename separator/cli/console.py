"""Where text goes: results to stdout, messages to stderr."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def line(text: object) -> None:
    """Print a result as it is."""
    print(text)


def message(text: str) -> None:
    """Print a message, in one line."""
    print(printable(text), file=sys.stderr, flush=True)


def error(text: str) -> None:
    """Print an error, in one line."""
    message(f"error: {text}")


def printable(text: object) -> str:
    """Replace what can't be shown: names of files may hold line breaks and control characters.

    >>> printable("a song\\n\\x1b[2J")
    'a song??[2J'
    """
    return "".join(char if char.isprintable() else "?" for char in str(text))


def console(*, stderr: bool = False) -> "Console":
    """Return a console that takes no markup: names of files may hold brackets."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def table(*columns: str) -> "Table":
    """Begin a table: with lines on a terminal, plain elsewhere."""
    from rich.box import ROUNDED
    from rich.table import Table

    terminal = sys.stdout.isatty()
    return Table(*columns, box=ROUNDED if terminal else None, pad_edge=terminal)


def show(table: "Table") -> None:
    """Print a table: fitted to a terminal, in its full width elsewhere."""
    target = console()
    if not target.is_terminal:
        target.width = 10_000
    target.print(table)
