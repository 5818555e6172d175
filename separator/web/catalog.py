"""The zoo as the web app shows it: what there is, what it costs, how fast it is here."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

from separator.errors import ModelError
from separator.resources import DEFAULT_MODEL, card_folders
from separator.words import megabytes, nearest
from separator.zoo.cards import AnyCard, Card
from separator.zoo.describe import best_score, is_here, models_of, place_of, size_of
from separator.zoo.downloads import ByteProgress
from separator.zoo.members import usable_cards
from separator.zoo.removing import remove
from separator.zoo.weights import download, is_offline

log = logging.getLogger(__name__)

# What people may combine models for is open; what they read here is the kind of network.
_KINDS = {
    "bs_roformer": "band-split transformer",
    "mel_band_roformer": "mel-band transformer",
    "htdemucs": "hybrid transformer",
    "hdemucs": "hybrid waveform and spectrogram network",
    "scnet": "sparse-compression network",
}


class Catalog:
    """Models by their exact names, never by a path."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamp: object = None
        self._cards: list[AnyCard] = []
        self._problems: list[str] = []

    def cards(self) -> list[AnyCard]:
        """Return all cards that can be used: what runs at once first, then by name."""
        self._renew()
        return sorted(self._cards, key=_usefulness)

    def problems(self) -> list[str]:
        """Say in a line each why cards are left out."""
        self._renew()
        return self._problems

    def _renew(self) -> None:
        """Read the cards again if one of their files has changed."""
        with self._lock:
            stamp = [_stamp(folder) for folder in card_folders()]
            if stamp != self._stamp:
                self._cards, self._problems = usable_cards()
                self._stamp = stamp
                for problem in self._problems:
                    log.warning("A model is left out: %s", problem)

    def find(self, name: str) -> AnyCard:
        """Return the card of that name.

        Raises:
            ModelError: There is none.
        """
        known = {card.name: card for card in self.cards()}
        if name not in known:
            hint = nearest(str(name), known) or " The tab Models lists them."
            raise ModelError(f"Unknown model '{name}'.{hint}")
        return known[name]

    def ready(self) -> list[AnyCard]:
        """Return the cards whose weights are here."""
        return [card for card in self.cards() if is_here(card)]

    def default(self) -> str | None:
        """Return the name of the model that is chosen at first: the usual one, if it is there."""
        names = [card.name for card in self.ready()]
        return DEFAULT_MODEL if DEFAULT_MODEL in names else next(iter(names), None)

    def download(self, name: str, progress: ByteProgress) -> None:
        """Fetch the weights of a model, or of all models of an ensemble, and verify them.

        Raises:
            ModelError: They can't be had, or downloads are switched off.
        """
        card = self.find(name)
        if is_offline() and not is_here(card):
            raise ModelError("Downloads are switched off on this server (SEPARATOR_OFFLINE).")
        for model in models_of(card):
            download(model, progress=progress)

    def delete(self, name: str) -> None:
        """Delete what was downloaded for a model; if nothing was, a model that was added.

        Raises:
            ModelError: It came with the program, nothing of it is here, or an ensemble needs it.
        """
        remove(self.find(name), self.cards())


def _stamp(folder: Path) -> list[tuple[str, int]]:
    """Return what changes when a card comes, goes or is written to."""
    with suppress(OSError), os.scandir(folder) as files:  # it need not exist
        return sorted(
            (file.name, file.stat().st_mtime_ns) for file in files if file.name.endswith(".yaml")
        )
    return []


def _usefulness(card: AnyCard) -> tuple[bool, bool, str]:
    return card.name != DEFAULT_MODEL, not is_here(card), card.name


def summary(card: AnyCard, speed: float | None) -> list[tuple[str, str]]:
    """Say what matters about a model, in pairs of a word and its value."""
    facts = [
        ("Stems", ", ".join(card.stems)),
        ("Kind", _kind(card)),
        ("Size", f"{megabytes(size_of(card))}, {place_of(card)}"),
        ("Speed here", _speed(speed)),
        ("Trained on", card.training_data),
        ("Licence", card.licence),
    ]
    if best := best_score(card):
        facts.insert(3, ("Published", f"{best[0]} {best[1]:.1f} dB ({best[2]})"))
    return facts


def in_short(card: AnyCard, speed: float | None) -> str:
    """Say in three lines what a model is called, what it is good for, and what it costs."""
    costs = [megabytes(size_of(card)), f"licence: {card.licence}"]
    if speed is not None:
        costs.append(_speed(speed))
    return f"{card.name}\n{card.description}\n{', '.join(costs)}"


def _kind(card: AnyCard) -> str:
    if isinstance(card, Card):
        return _KINDS.get(card.network, card.network)
    return f"ensemble of {len(card.members)}"


def _speed(speed: float | None) -> str:
    """Write seconds of work per second of music for people.

    >>> _speed(0.25), _speed(3.0), _speed(None)
    ('4 times faster than playing', '3 times slower than playing', 'not measured yet')
    """
    if speed is None:
        return "not measured yet"
    if speed < 1:
        return f"{1 / speed:.2g} times faster than playing"
    return f"{speed:.2g} times slower than playing"
