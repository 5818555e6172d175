"""`separator models recommend`: which model to take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from separator.cli.console import command, line, message
from separator.cli.values import one_of
from separator.errors import ConfigError
from separator.words import megabytes, nearest

if TYPE_CHECKING:
    from separator.zoo.recommend import Goal, Pick


def recommend(
    goal: Annotated[
        str | None,
        typer.Argument(
            help="vocals, instrumental, four, six, drums, lead or dereverb; all unless given."
        ),
    ] = None,
    stem: Annotated[
        str | None, typer.Option(help="Only goals that give this stem, e.g. vocals.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Recommend models: the best, the best that may be sold with, a fast one, one that is here.

    Use one by its name, or by KIND:GOAL: separator separate song.mp3 --model best:vocals
    """
    from separator.zoo.members import usable_cards
    from separator.zoo.recommend import GOALS, recommend
    from separator.zoo.search import ALIASES

    if goal is not None:
        one_of(goal, tuple(GOALS), "GOAL")
    wanted = {name: GOALS[name] for name in GOALS if goal in (None, name)}
    if stem is not None:
        wanted = _giving(stem, wanted)
    cards = usable_cards()[0]
    picks = {name: recommend(goal, cards) for name, goal in wanted.items()}
    if as_json:
        line(
            json.dumps(
                {name: list(map(_as_dict, found)) for name, found in picks.items()}, indent=2
            )
        )
        return
    for name, found in picks.items():
        line(GOALS[name].title)
        for pick in found:
            line(f"  {pick.kind + ':' + name:18}{pick.card.name}")
            line(f"  {'':18}{_about(pick)}")
    for kind, promise in ALIASES.items():
        message(f"{kind}: {promise}")


def _giving(stem: str, goals: dict[str, Goal]) -> dict[str, Goal]:
    """Return the goals whose outputs include a stem."""
    known = {name: {one for names in goal.outputs for one in names} for name, goal in goals.items()}
    found = {name: goals[name] for name in goals if stem.lower() in known[name]}
    if not found:
        stems = sorted(set().union(*known.values()))
        raise ConfigError(
            f"--stem is '{stem}'; recommendations are for: {', '.join(stems)}."
            f"{nearest(stem, stems)} `{command('models', '--stem', stem)}` lists all models."
        )
    return found


def _about(pick: Pick) -> str:
    """Say in a line what a model is worth and what it costs."""
    from separator.zoo.describe import is_here, size_of

    score = "" if pick.score is None else f"{pick.score:.2f} dB ({pick.ranking}), "
    size = "here" if is_here(pick.card) else megabytes(size_of(pick.card))
    speed = "" if pick.speed is None else f", {1 / pick.speed:.2g} x real time"
    return f"{score}{size}, licence {pick.card.licence}{speed}"


def _as_dict(pick: Pick) -> dict[str, Any]:
    from separator.zoo.describe import is_here, size_of

    return {
        "kind": pick.kind,
        "model": pick.card.name,
        "score": pick.score,
        "ranking": pick.ranking,
        "seconds_per_second": pick.speed,
        "bytes": size_of(pick.card),
        "here": is_here(pick.card),
        "licence": pick.card.licence,
    }
