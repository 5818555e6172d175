"""How much of a run is done, and the wish to stop it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from separator.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """Share of the work that is done, in segments: the unit that costs time.

    Attributes:
        done: Segments that went through the network.
        total: Segments there are in all; None while the length of the track is unknown.
    """

    done: int
    total: int | None

    @property
    def fraction(self) -> float | None:
        """Share of the work that is done, in [0, 1]; None while the total is unknown."""
        return None if not self.total else min(1.0, self.done / self.total)


@dataclass
class Monitor:
    """Count of finished segments, reported, with an ear for a wish to stop."""

    total: int | None = None
    report: Callable[[Progress], None] | None = None
    cancel: threading.Event | None = None
    done: int = 0

    def check(self) -> None:
        """Raise `Cancelled` where the caller asked to stop."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("Cancelled.")

    def advance(self, segments: int) -> None:
        """Add finished segments and report."""
        self.done += segments
        if self.report is not None:
            self.report(Progress(self.done, self.total))
