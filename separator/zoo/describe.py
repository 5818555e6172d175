"""What people want to know of a model before they use it: place, size, stems, best score."""

from __future__ import annotations

from collections.abc import Iterable

from separator.zoo.cards import AnyCard, Card
from separator.zoo.members import find_members
from separator.zoo.weights import is_available, packaged

#: Places of weights, the easiest first.
_PLACES = ("bundled", "downloaded", "to download", "missing")
_BUNDLED, _DOWNLOADED, _TO_DOWNLOAD, _MISSING = _PLACES


def models_of(card: AnyCard) -> list[Card]:
    """Return the card itself, or those of the models behind an ensemble."""
    return list(find_members(card).models)


def is_here(card: AnyCard) -> bool:
    """Tell whether all weights are here."""
    return all(is_available(model) for model in models_of(card))


def size_of(card: AnyCard) -> int | None:
    """Return the size of all weights in bytes; None where one isn't known."""
    sizes = [model.weights.bytes for model in models_of(card)]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def place_of(card: AnyCard) -> str:
    """Say where the weights are; of an ensemble, where those are that are hardest to get."""
    return max(map(_place, models_of(card)), key=_PLACES.index)


def _place(model: Card) -> str:
    if is_available(model):
        return _BUNDLED if model.bundled or packaged(model) else _DOWNLOADED
    return _MISSING if model.bundled else _TO_DOWNLOAD


def stems_of(cards: Iterable[AnyCard]) -> list[str]:
    """Return all stems, those of most models first."""
    counts: dict[str, int] = {}
    for card in cards:
        for stem in card.stems:
            counts[stem.lower()] = counts.get(stem.lower(), 0) + 1
    return sorted(counts, key=lambda stem: (-counts[stem], stem))


def best_score(card: AnyCard, stem: str | None = None) -> tuple[str, float, str] | None:
    """Return stem, decibels and definition of the best published score."""
    scores = [
        (name, value, f"{score.definition}, {score.dataset}")
        for score in card.scores
        for name, value in score.values.items()
        if stem is None or stem.lower() == name.lower()
    ]
    return max(scores, key=lambda score: score[1], default=None)
