"""`separator models`: what there is, what it is worth, and how to get it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from separator.cli.console import command, console, cut, line, message, printable, show, table
from separator.cli.recommend import recommend
from separator.cli.values import one_of
from separator.errors import ConfigError, ModelError
from separator.words import megabytes

if TYPE_CHECKING:
    from separator.zoo.cards import AnyCard, Card

_ORDERS = ("here", "name", "size", "score")

app = typer.Typer(
    help="List the models that can be used; also: recommend, show, download, add and remove one.",
    invoke_without_command=True,
)
app.command("recommend")(recommend)


@app.callback()
def models(
    ctx: typer.Context,
    search: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only those whose card says this.")
    ] = None,
    stem: Annotated[str | None, typer.Option(help="Only those with this stem.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Only those with this in their licence.")
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Only those whose weights are here.")
    ] = False,
    sort: Annotated[
        str,
        typer.Option(help="here (those first), name, size, or score (of one stem and metric)."),
    ] = "here",
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """List the models that can be used; also: recommend, show, download, add and remove one."""
    if ctx.invoked_subcommand:
        return
    from separator.zoo.describe import is_here, size_of
    from separator.zoo.members import usable_cards

    one_of(sort, _ORDERS, "--sort")
    usable, problems = usable_cards()
    for problem in problems:
        message(f"left out: {problem}")
    cards = [card for card in usable if _matches(card, search, stem, licence)]
    ready = [card for card in cards if is_here(card)]
    cards = sorted(ready if here else cards, key=lambda card: _place_in(sort, card, stem))
    if as_json:
        line(json.dumps([_as_dict(card) for card in cards], indent=2))
        return
    if not cards:
        message("No model is like that; `separator models` lists all.")
        return
    rows = table("Model", "Stems", "Size", "Score (dB)", plain=True)
    rows.columns[0].no_wrap = rows.columns[2].no_wrap = True
    rows.columns[2].justify = "right"
    for card in cards:
        size = size_of(card)
        weight = "?" if size is None else f"{size / 1e6:.0f} MB"
        rows.add_row(card.name, cut(_stems(card, limit=6)), weight, cut(_best(card, stem)))
    show(rows)
    message(f"{len(ready)} of {len(cards)} are here (--here). More: separator models show NAME")


def _place_in(order: str, card: AnyCard, stem: str | None) -> tuple[Any, ...]:
    """Return what a list is sorted by; scores of several metrics are never compared."""
    from separator.zoo.describe import best_score, is_here, size_of

    if order == "score":
        best = best_score(card, stem)
        return (best is None, *((best[0], best[2], -best[1]) if best else ()), card.name)
    if order == "size":
        return size_of(card) or math.inf, card.name
    return order == "here" and not is_here(card), card.name


@app.command("show")
def show_model(name: Annotated[str, typer.Argument(help="Name of a model.")]) -> None:
    """Show all that the card of a model says."""
    from separator.zoo.describe import models_of

    card = chosen_card(name)
    models = models_of(card)
    fields: list[tuple[str, object]] = [
        ("name", card.name),
        ("about", card.description),
        ("stems", _stems(card)),
        ("audio", f"{card.sample_rate} Hz, {card.channels} channels"),
        *(field for model in models for field in _fields(model, len(models) > 1)),
        ("licence", card.licence),
        ("trained on", card.training_data),
        ("source", card.source),
        ("note", card.note),
        ("card", card.path),
    ]
    rows = table("", "")
    rows.show_header = False
    for key, value in fields:
        if value:
            rows.add_row(key, printable(value))
    for score in card.scores:
        values = ", ".join(f"{stem} {value:.2f} dB" for stem, value in score.values.items())
        rows.add_row("score", f"{values} ({score.definition}, {score.dataset}; {score.source})")
    show(rows)


@app.command()
def download(names: Annotated[list[str], typer.Argument(help="Names of models.")]) -> None:
    """Fetch the weights of models, verified; their licences are shown first."""
    from separator.zoo.describe import models_of
    from separator.zoo.weights import is_available, local_path

    cards = [model for name in names for model in models_of(chosen_card(name))]
    for card in cards:
        if is_available(card):
            message(f"{card.name}: here already.")
        fetch_weights(card)
        line(local_path(card))


@app.command("remove")
def remove_models(names: Annotated[list[str], typer.Argument(help="Names of models.")]) -> None:
    """Remove the weights that were downloaded; of a model that was added, all that there is."""
    from separator.zoo.members import usable_cards
    from separator.zoo.removing import remove

    for name in names:
        for path in remove(chosen_card(name), usable_cards()[0]):
            line(path)


@app.command()
def add(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Weights (.ckpt, .pt, .pth, .th, .safetensors), the YAML of a bag of Demucs "
            "files, a .tar.gz or .index of Spleeter, or a folder of Open-Unmix."
        ),
    ],
    config: Annotated[
        Path | None, typer.Argument(help="The YAML or JSON that belongs to them, if any.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model; from the checkpoint's unless given.")
    ] = None,
    stems: Annotated[
        str | None, typer.Option(help="Names of its stems, where no file has them: a,b,c.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the weights beside the card.")] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="How songs are cut; as its own program does unless given."),
    ] = None,
) -> None:
    """Add a checkpoint of Demucs, Open-Unmix, Spleeter, torchaudio, SCNet, MSST and relatives."""
    from separator.zoo.adding import add_path

    names = tuple(part.strip() for part in stems.split(",")) if stems else ()
    card = add_path(checkpoint, config, stems=names, name=name, copy=copy, recipe=recipe)
    kind = getattr(card, "network", "ensemble")
    message(f"Added '{card.name}' ({kind}): {_stems(card)}.")
    if card.note:
        message(f"{card.name}: {card.note}")
    use = command("separate", "song.mp3", "-o", "stems", "--model", card.name)
    message(f"Use it with: {use}")
    line(card.path)


def chosen_card(name: str) -> AnyCard:
    """Find a model; not to know it is wrong usage, which a damaged one is not."""
    from separator.zoo.search import find_card

    try:
        return find_card(name)
    except ModelError as error:
        raise ConfigError(str(error)) from error


def fetch_weights(card: AnyCard, *, offline: bool = False, quiet: bool = False) -> None:
    """Get the weights of a model, or of an ensemble's models, if they are not here."""
    from separator.zoo.describe import models_of

    for model in models_of(card):
        _fetch(model, offline=offline, quiet=quiet)


def _fetch(card: Card, *, offline: bool, quiet: bool) -> None:
    """Get the weights of one model, with its licence and a bar."""
    from separator.zoo.weights import is_available, is_offline, weights_path

    if card.bundled or is_available(card) or offline or is_offline():
        weights_path(card, offline=offline or None)
        return
    if not quiet:
        size = megabytes(card.weights.bytes)
        message(f"{card.name}: downloading {size} from {card.weights.urls[0]}")
        message(f"{card.name}: licence of the weights: {card.licence}")
        if doubt := card.weights.doubt:
            message(f"{card.name}: {doubt}")
    if quiet or not sys.stderr.isatty():
        weights_path(card)
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console(stderr=True), transient=True) as bars:
        bar = bars.add_task(card.name, total=card.weights.bytes)
        weights_path(card, progress=lambda done, total: bars.update(bar, completed=done))


def _matches(card: AnyCard, search: str | None, stem: str | None, licence: str | None) -> bool:
    stems = {name.lower() for name in (*card.stems, card.residual or "")}
    text = " ".join((card.name, card.description, getattr(card, "network", "ensemble"), *stems))
    return (
        (search is None or search.lower() in text.lower())
        and (stem is None or stem.lower() in stems)
        and (licence is None or licence.lower() in card.licence.lower())
    )


def _as_dict(card: AnyCard) -> dict[str, Any]:
    from separator.zoo.describe import is_here, models_of
    from separator.zoo.weights import local_path

    data: dict[str, Any] = card.model_dump(mode="json")
    paths = [str(local_path(model)) for model in models_of(card)]
    return {**data, "available": is_here(card), "paths": paths}


def _fields(card: Card, named: bool) -> list[tuple[str, object]]:
    from separator.zoo.describe import place_of
    from separator.zoo.weights import local_path

    return [
        ("network", f"{card.name}: {card.network}" if named else card.network),
        ("segment", f"{card.segment:g} s, overlap {card.overlap:g}, recipe {card.recipe}"),
        ("weights", f"{megabytes(card.weights.bytes)}, {place_of(card)}: {local_path(card)}"),
        ("sha256", card.weights.sha256 or "not published"),
        *([("mind", card.weights.doubt)] if card.weights.doubt else []),
        ("from", ", ".join(card.weights.urls)),
    ]


def _stems(card: AnyCard, limit: int | None = None) -> str:
    """Name the stems, and in brackets what is left."""
    names = [*card.stems, *([f"({card.residual})"] if card.residual else [])]
    more = f" and {len(names) - limit} more" if limit and len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _best(card: AnyCard, stem: str | None) -> str:
    """Write the best score of a stem, or of any, and what it means."""
    from separator.zoo.describe import best_score

    best = best_score(card, stem)
    return f"{best[1]:.2f} {best[2]}, {best[0]}" if best else ""
