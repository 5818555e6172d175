"""How fast models run on this machine: remembered from songs, estimated for models not yet used."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from statistics import median

from separator.errors import ConfigError
from separator.files import write_text
from separator.resources import cache_dir
from separator.zoo.cards import AnyCard
from separator.zoo.describe import models_of

_START = 5.0  # seconds: of a shorter song, the start takes most of the time


def work(card: AnyCard) -> float | None:
    """Return the GFLOP that a second of music costs, overlaps included; None where unknown.

    >>> from separator.zoo.search import find_card
    >>> work(find_card("htdemucs_ft")) == 4 * work(find_card("htdemucs_ft-bass"))
    True
    """
    costs = [model.gflops and model.gflops / (1 - model.overlap) for model in models_of(card)]
    known = [cost for cost in costs if cost]
    return sum(known) if len(known) == len(costs) else None


class Speeds:
    """Seconds of work per second of music that models took on this machine."""

    def __init__(self, path: Path | None = None) -> None:
        self._path: Path | None = None
        self._known: dict[str, float] = {}
        with suppress(OSError, ValueError, AttributeError, TypeError, ConfigError):
            self._path = path or cache_dir() / "speeds.json"
            self._known = {str(k): float(v) for k, v in json.loads(self._path.read_text()).items()}

    def get(self, name: str) -> float | None:
        """Return what the last song took, relative to its length."""
        return self._known.get(name)

    def note(self, name: str, seconds: float, duration: float) -> None:
        """Remember a run; songs under five seconds tell nothing."""
        if duration < _START:
            return
        self._known[name] = seconds / duration
        if self._path is None:
            return
        with suppress(OSError):  # a cache that can't be written costs nothing
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._known))

    def estimate(self, card: AnyCard, others: dict[str, AnyCard]) -> float | None:
        """Return what a model takes here: measured, or from its work and what others took.

        Args:
            card: Model in question.
            others: All cards by name, to know what the measured ones had to compute.
        """
        if measured := self.get(card.name):
            return measured
        cost = work(card)
        rates = [
            cost_of / self._known[name]
            for name, other in others.items()
            if self._known.get(name) and (cost_of := work(other))
        ]
        return cost / median(rates) if cost and rates else None
