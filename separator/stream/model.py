"""A model of one network, and what every model can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from separator.stream.facts import Facts, read_ahead
from separator.stream.inference import Plan, cut_segments, separate_stream
from separator.stream.progress import Monitor
from separator.stream.runner import Runner
from separator.stream.segments import RECIPES

_EPSILON = 1e-8  # Demucs' own, so that silence divides by something


class Model(Protocol):
    """Separation of a mixture into named stems; `only` prepares one run."""

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the estimates, in their order."""

    @property
    def needs_statistics(self) -> bool:
        """Whether mean and deviation of the whole track are wanted before it starts."""

    @property
    def waits(self) -> bool:
        """Whether it reads the whole track before it gives anything."""

    @property
    def settings(self) -> dict[str, Any]:
        """How it separates, for a report."""

    @property
    def notes(self) -> list[str]:
        """What the user should know of the run."""

    @property
    def seconds(self) -> float:
        """Wall-clock time spent in networks."""

    def only(self, stems: Sequence[str]) -> Model:
        """Return a model for one run that computes these stems and what they need."""

    def segments(self, samples: int) -> int:
        """Count the segments of a track that go through networks."""

    def separate(
        self, blocks: Iterable[Tensor], monitor: Monitor, facts: Facts
    ) -> Iterator[Tensor]:
        """Turn blocks `(pairs, channels, time)` into `(pairs, stems, channels, time)`."""


@dataclass(frozen=True)
class Solo:
    """Network that runs alone.

    Attributes:
        stems: Stems that are computed, in their order.
        known: All that the network knows, in its order.
        normalized: Whether the network wants the track with zero mean and unit deviation.
    """

    stems: tuple[str, ...]
    known: tuple[str, ...]
    runner: Runner
    plan: Plan
    normalized: bool = False

    @property
    def needs_statistics(self) -> bool:
        """As in `Model`."""
        return self.normalized

    @property
    def waits(self) -> bool:
        """As in `Model`."""
        return self.runner.wants_loudest

    @property
    def settings(self) -> dict[str, Any]:
        """The plan."""
        return asdict(self.plan)

    @property
    def notes(self) -> list[str]:
        """As in `Model`."""
        return self.runner.notes

    @property
    def seconds(self) -> float:
        """As in `Model`."""
        return self.runner.seconds

    def only(self, stems: Sequence[str]) -> Solo:
        """As in `Model`."""
        chosen = None
        if tuple(stems) != self.known:
            chosen = tuple(self.known.index(name) for name in stems)
        return replace(self, stems=tuple(stems), runner=self.runner.with_stems(chosen))

    def segments(self, samples: int) -> int:
        """As in `Model`."""
        return self.plan.segments(samples)

    def separate(
        self, blocks: Iterable[Tensor], monitor: Monitor, facts: Facts
    ) -> Iterator[Tensor]:
        """As in `Model`."""
        mean, scale = 0.0, 1.0
        if self.normalized and facts.statistics:
            mean, scale = facts.statistics.mean, facts.statistics.deviation + _EPSILON
            blocks = ((block - mean) / scale for block in blocks)
        facts = replace(facts, piece=RECIPES[self.plan.recipe].pieces)
        if self.waits:
            loudest, blocks = read_ahead(blocks, partial(self._loudest, monitor))
            facts = replace(facts, loudest=loudest)
        network = partial(self.runner, facts=facts)
        found = separate_stream(
            blocks, network, self.plan, monitor, valid_length=self.runner.valid_length
        )
        for estimates in found:
            yield estimates if (mean, scale) == (0.0, 1.0) else estimates * scale + mean

    def _loudest(self, monitor: Monitor, blocks: Iterable[Tensor]) -> float:
        """Measure the track segment by segment."""
        loudest = 0.0
        for segment in cut_segments(blocks, self.plan, self.runner.valid_length):
            monitor.check()
            loudest = max(loudest, self.runner.measure(segment.audio))
        return loudest
