"""Which model to take: for each goal the best, the best that may be sold with, the best fast one.

Scores are compared only where one definition on one data set measured all of them: for each goal,
the first of `RANKINGS` in which any model has a score. Vocals rank the instrumental, too: what is
left of the song has the same error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from separator.errors import ModelError
from separator.resources import DEFAULT_MODEL
from separator.words import nearest
from separator.zoo.cards import AnyCard
from separator.zoo.describe import is_here
from separator.zoo.members import usable_cards
from separator.zoo.search import ALIASES
from separator.zoo.speeds import Speeds, work

#: Definition and data set of scores, those that most models have first; "author" compares nothing.
RANKINGS = (
    ("uSDR", "MVSep Multisong"),
    ("uSDR", "MUSDB18-HQ test"),
    ("cSDR", "MUSDB18-HQ test"),
    ("cSDR", "MUSDB18 test"),
    ("uSDR", "DrumSep test"),
)
#: Licences that permit commercial use.
FREE = ("MIT", "Apache-2.0", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "GPL-3.0")


@dataclass(frozen=True)
class Goal:
    """Something that people separate songs for.

    Attributes:
        title: Words for people.
        outputs: Names that a model must give, each in any of several spellings.
        scored: Stems whose scores rank the models, their mean where there are several.
    """

    title: str
    outputs: tuple[tuple[str, ...], ...]
    scored: tuple[str, ...]


_BAND = (("drums",), ("bass",), ("other",), ("vocals",))
_BACKING = ("instrumental", "accompaniment")
GOALS = {
    "vocals": Goal("Vocals", (("vocals",),), ("vocals",)),
    "instrumental": Goal("Instrumental, karaoke", (_BACKING,), ("vocals",)),
    "four": Goal("Four stems", _BAND, ("drums", "bass", "other", "vocals")),
    "six": Goal(
        "Six stems", (*_BAND, ("guitar",), ("piano",)), ("drums", "bass", "other", "vocals")
    ),
    "drums": Goal("Parts of the drum kit", (("kick",), ("snare",), ("toms",)), ("kick", "snare")),
    "lead": Goal("Lead and backing vocals", (("lead_vocals",),), ("lead_vocals",)),
    "dereverb": Goal("Without reverberation", (("dry", "dry_lead_vocals"),), ("dry",)),
}


@dataclass(frozen=True)
class Pick:
    """A model that is recommended.

    Attributes:
        kind: One of `ALIASES`.
        score: Decibels that it was ranked by; None where no comparable score is published.
        ranking: Definition and data set of the score.
        speed: Seconds of work per second of music on this machine, as far as that is known.
    """

    kind: str
    card: AnyCard
    score: float | None
    ranking: str | None
    speed: float | None


def recommend(goal: Goal, cards: Iterable[AnyCard], speeds: Speeds | None = None) -> list[Pick]:
    """Return a model of each kind for a goal; a kind that no model is of is left out."""
    speeds = speeds or Speeds()
    known = {card.name: card for card in cards}
    fit = [card for card in known.values() if card.recommended and _serves(card, goal)]
    took = {card.name: speeds.estimate(card, known) for card in fit}
    fast = [card for card in fit if 0 < (took[card.name] or 0) < 1]
    groups = {
        "best": fit,
        "free": [card for card in fit if card.licence in FREE],
        "fast": fast,
        "here": [card for card in fit if is_here(card)],
    }
    picks = []
    for kind, group in groups.items():
        if found := _first(goal, group):
            card, score, ranking = found
            picks.append(Pick(kind, card, score, ranking, took[card.name]))
    return picks


def resolve_alias(name: str) -> AnyCard:
    """Return the card that `KIND:GOAL` stands for, such as `best:vocals`.

    Raises:
        ModelError: An unknown kind or goal, or no model is of the kind.
    """
    kind, _, goal = name.partition(":")
    for word, known in ((kind, ALIASES), (goal, GOALS)):
        if word not in known:
            raise ModelError(
                f"Unknown '{word}' in '{name}'; allowed: {', '.join(known)}.{nearest(word, known)}"
            )
    for pick in recommend(GOALS[goal], usable_cards()[0]):
        if pick.kind == kind:
            return pick.card
    raise ModelError(
        f"No model is '{name}' here. `separator models recommend {goal}` shows what there is"
        + ("; speeds are known after the first song." if kind == "fast" else ".")
    )


def _serves(card: AnyCard, goal: Goal) -> bool:
    given = {name.lower() for name in (*card.stems, card.residual or "")}
    return all(any(name in given for name in names) for names in goal.outputs)


def _first(goal: Goal, cards: list[AnyCard]) -> tuple[AnyCard, float | None, str | None] | None:
    """Return the best of some cards, its score and what that means."""
    for definition, dataset in RANKINGS:
        scored = [(card, _score(card, goal, definition, dataset)) for card in cards]
        ranked = [(score, card) for card, score in scored if score is not None]
        if ranked:
            score, card = max(ranked, key=lambda pair: (pair[0], pair[1].name))
            return card, score, f"{definition}, {dataset}"
    first = min(cards, key=_unscored, default=None)
    return (first, None, None) if first else None


def _unscored(card: AnyCard) -> tuple[bool, float, str]:
    """Order models without comparable scores: the default one, then what costs least."""
    return card.name != DEFAULT_MODEL, work(card) or math.inf, card.name


def _score(card: AnyCard, goal: Goal, definition: str, dataset: str) -> float | None:
    """Return the mean score of a goal's stems; None unless the card has one for each."""
    for score in card.scores:
        if (score.definition, score.dataset) == (definition, dataset):
            values = {name.lower(): value for name, value in score.values.items()}
            found = [values[name] for name in goal.scored if name in values]
            return sum(found) / len(found) if len(found) == len(goal.scored) else None
    return None
