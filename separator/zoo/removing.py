"""Taking models away again: weights that were downloaded, cards that were added."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from separator.errors import ModelError
from separator.resources import card_folders
from separator.zoo.cards import AnyCard, Card, Ensemble
from separator.zoo.describe import models_of
from separator.zoo.weights import is_available, local_path, packaged


def is_added(card: AnyCard) -> bool:
    """Tell whether the card lies in a folder of the user's own."""
    return card.path is not None and card.path.parent.resolve() in [
        folder.resolve() for folder in card_folders()[1:]
    ]


def can_be_removed(card: AnyCard) -> bool:
    """Tell whether there is something to remove: a model that was added, or weights that came."""
    return is_added(card) or bool(_fetched(card))


def remove(card: AnyCard, cards: Iterable[AnyCard]) -> list[Path]:
    """Remove what was downloaded for a model; if nothing was, a model that was added.

    Args:
        card: The model.
        cards: All models; an ensemble among them may need this one.

    Returns:
        The files that are gone.

    Raises:
        ModelError: It came with the program, nothing of it is here, or an ensemble needs it.
    """
    fetched = _fetched(card)
    if is_added(card) and (isinstance(card, Ensemble) or not fetched):
        _require_unused(card, cards)
        files = _own_files(card)
    elif fetched:
        files = [local_path(model) for model in fetched]
    else:
        raise ModelError(f"Nothing was downloaded for '{card.name}'; there is nothing to delete.")
    for file in files:
        file.unlink(missing_ok=True)
    return files


def _fetched(card: AnyCard) -> list[Card]:
    """Return the models whose weights were downloaded."""
    return [
        model
        for model in models_of(card)
        if is_available(model) and not (model.bundled or packaged(model))
    ]


def _require_unused(card: AnyCard, cards: Iterable[AnyCard]) -> None:
    for other in cards:
        if isinstance(other, Ensemble) and card.name in (m.model for m in other.members):
            raise ModelError(f"'{other.name}' needs '{card.name}'; delete that one first.")


def _own_files(card: AnyCard) -> list[Path]:
    """Return the card, and its weights if they were copied beside it."""
    files = [card.path] if card.path else []
    weights = card.bundled if isinstance(card, Card) else None
    if weights and weights.resolve().parent == (card.folder / "weights").resolve():
        files.append(weights)
    return files
