"""`separator ensemble`: let several models work together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from separator.cli import common, values
from separator.cli.console import line, message, show, table
from separator.cli.models import chosen_card, fetch_weights
from separator.errors import ConfigError
from separator.words import words

if TYPE_CHECKING:
    from separator.evaluation.fitting import Fit
    from separator.zoo.cards import Ensemble

app = typer.Typer(help="Let several models work together.", no_args_is_help=True)


@app.callback()
def ensemble() -> None:
    """Let several models work together."""


@app.command()
def fit(
    name: Annotated[str, typer.Argument(help="Name of the new ensemble.")],
    models: Annotated[
        str, typer.Option("--models", "-m", metavar="A,B", help="Names of the members.")
    ],
    songs: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folders with mixture.wav, vocals.wav and so on."),
    ],
    stems: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these; all that songs have otherwise.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the card; your own unless given.")
    ] = None,
    device: common.Device = "auto",
    overlap: common.Overlap = None,
) -> None:
    """Find each member's weight in each stem by least squares, and write the card.

    The weights of a stem are not negative and sum to one. Use songs that no member was trained on.
    """
    from separator.api import Separator
    from separator.evaluation import fitting
    from separator.resources import user_folder
    from separator.zoo.members import find_members
    from separator.zoo.search import free_name
    from separator.zoo.writing import write_card

    cards = [chosen_card(model) for model in words(models)]
    if len(cards) < 2:
        raise ConfigError("--models names fewer than two members; name those to be weighed.")
    folder = folder or user_folder()
    free_name(name, folder)
    found = fitting.find_songs(songs)
    card = fitting.draft(name, cards, found, words(stems))
    find_members(card)
    values.make_folder(folder)
    for member in cards:
        fetch_weights(member)
    common.keep_memory(device)
    separators = [Separator(member, device=device, overlap=overlap) for member in cards]
    fits = fitting.fit(card, separators, found, lambda song: message(f"{song.mixture.parent}"))
    path = write_card(fitting.with_weights(card, fits, len(found)), folder)
    _show(card, fits)
    line(path)


def _show(card: Ensemble, fits: list[Fit]) -> None:
    """Show the weight of each member, and what it is worth alone and together."""
    rows = table("Stem", *(member.model for member in card.members), "Together", "Songs")
    for found in fits:
        cells = [
            f"{found.weights[member.model]:.3f} ({found.alone[member.model]:.2f} dB)"
            if member.model in found.weights
            else ""
            for member in card.members
        ]
        rows.add_row(found.stem, *cells, f"{found.together:.2f} dB", str(found.songs))
    show(rows)
