"""Run what a card describes: one network, or several that work together.

    mixture ──────────────────────────────┬─────────> rows: mixture
      ├──> member 0 ──> vocals            │                 vocals
      │         └──> residual ──> member 1 ──> drums        residual
      └──> member 2 ──> vocals                              drums
                                                            vocals
    rows ──combine──> stems ──refine──> stems

An ensemble is one stream of rows: each member takes one of them and appends what it gives. All
members run in step, so memory does not grow with the track's length. Only a member that wants mean
and deviation of what an earlier one gives waits until that is done, and reads it from a file; so
does a network that wants to know how loud its input gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from separator.cards import MIXTURE, AnyCard, Card, Ensemble, Member
from separator.ensemble import combine, make_consistent
from separator.errors import ConfigError
from separator.frames import through_stft
from separator.inference import (
    Monitor,
    Plan,
    cut_segments,
    in_step,
    separate_stream,
    track_statistics,
)
from separator.masks import wiener
from separator.members import Tree, given, taken, weight
from separator.runner import Runner
from separator.spool import copies

Statistics = tuple[float, float]

_EPSILON = 1e-8  # Demucs' own, so that silence divides by something
_WIENER_FRAMES = 300  # of a segment in which sources stand still: 7 s at 44.1 kHz


@dataclass(frozen=True)
class Settings:
    """Say what is asked for; None where the cards decide. See `separator.inference.Plan`."""

    segment: float | None = None
    overlap: float | None = None
    batch_size: int = 1
    shifts: int = 0
    seed: int = 0

    def or_those_of(self, member: Member) -> Settings:
        """Return these settings, and a member's where nothing was asked for."""
        return replace(
            self,
            segment=member.segment if self.segment is None else self.segment,
            overlap=member.overlap if self.overlap is None else self.overlap,
            shifts=self.shifts or member.shifts,
        )

    def check(self, cards: Iterable[Card]) -> None:
        """Refuse what the models of these cards will refuse.

        Raises:
            ConfigError: A value that isn't allowed.
        """
        for card in cards:
            self.plan(card)

    def plan(self, card: Card) -> Plan:
        """Return the plan for a model.

        Raises:
            ConfigError: A value that isn't allowed.
        """
        if self.segment is not None and not 0 < self.segment < math.inf:
            raise ConfigError(f"The segment is {self.segment:g} s; allowed: more than 0 seconds.")
        return Plan(
            round((card.segment if self.segment is None else self.segment) * card.sample_rate),
            card.overlap if self.overlap is None else self.overlap,
            self.batch_size,
            self.shifts,
            self.seed,
            card.recipe,
        )


class Model(Protocol):
    """Turn a mixture into the stems that it names; `only` prepares one run."""

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
        self, blocks: Iterable[Tensor], monitor: Monitor, statistics: Statistics | None
    ) -> Iterator[Tensor]:
        """Turn blocks `(pairs, channels, time)` into `(pairs, stems, channels, time)`."""


@dataclass(frozen=True)
class Solo:
    """Run one network.

    Attributes:
        stems: Those that are computed, in their order.
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
        self, blocks: Iterable[Tensor], monitor: Monitor, statistics: Statistics | None
    ) -> Iterator[Tensor]:
        """As in `Model`."""
        mean, scale = 0.0, 1.0
        if self.normalized and statistics:
            mean, scale = statistics[0], statistics[1] + _EPSILON
            blocks = ((block - mean) / scale for block in blocks)
        network: Callable[[Tensor], Tensor] = self.runner
        if self.runner.wants_loudest:
            ahead, blocks = copies(blocks, far=True)
            network = partial(self.runner, loudest=self._loudest(ahead, monitor))
        found = separate_stream(
            blocks, network, self.plan, monitor, valid_length=self.runner.valid_length
        )
        for estimates in found:
            yield estimates if (mean, scale) == (0.0, 1.0) else estimates * scale + mean

    def _loudest(self, blocks: Iterable[Tensor], monitor: Monitor) -> float:
        """Measure the track segment by segment."""
        loudest = 0.0
        for segment in cut_segments(blocks, self.plan, self.runner.valid_length):
            monitor.check()
            loudest = max(loudest, self.runner.measure(segment.audio))
        return loudest


@dataclass(frozen=True)
class Part:
    """Run one member of an ensemble.

    Attributes:
        name: Of its card.
        model: Gives the stems in `names`, in their order.
        input: The row that it separates.
        names: The model's stems, and their names in the ensemble.
        residual: Name of the input minus these stems, where it is wanted.
        weights: Of each name that counts for a stem of the ensemble.
    """

    name: str
    model: Model
    input: str
    names: dict[str, str]
    residual: str | None
    weights: dict[str, float]

    @property
    def gives(self) -> tuple[str, ...]:
        """Names of the rows that it appends."""
        return (*self.names.values(), *((self.residual,) if self.residual else ()))

    def only(self, stems: Sequence[str], inputs: set[str]) -> Part | None:
        """Return what these stems, and later members that separate `inputs`, need of it."""
        needed = {name for name in stems if self.weights.get(name)} | inputs
        residual = self.residual if self.residual in needed else None
        names = {stem: name for stem, name in self.names.items() if residual or name in needed}
        if not names:
            return None
        return replace(self, model=self.model.only(tuple(names)), names=names, residual=residual)

    @property
    def measures(self) -> bool:
        """Whether it wants the statistics of a row that isn't the song."""
        return self.input != MIXTURE and self.model.needs_statistics

    def append(
        self,
        rows: Iterator[Tensor],
        index: int,
        monitor: Monitor,
        statistics: Statistics | None,
        measured: dict[str, Statistics],
    ) -> Iterator[Tensor]:
        """Separate one row; yield all rows and what was found, `(pairs, rows, channels, time)`.

        Args:
            rows: The song, and what earlier members gave.
            index: Of the row that is separated.
            monitor: As in `Model.separate`.
            statistics: Of the song.
            measured: Of other rows, as far as they are known; this one is added.
        """
        if self.measures:
            first = next(rows, None)  # by now, earlier members have measured what they need
            rows = chain([] if first is None else [first], rows)
            if self.input not in measured:
                ahead, rows = copies(rows, far=True)
                row = (block[:, index].flatten(0, 1) for block in ahead)
                measured[self.input] = track_statistics(row)
            statistics = measured[self.input]
        kept, source = copies(rows, far=self.model.waits)
        mixture = (block[:, index] for block in source)
        estimates = self.model.separate(mixture, monitor, statistics)
        for before, found in in_step([kept, estimates]):
            pieces = [before, found]
            if self.residual:
                pieces.append(before[:, index : index + 1] - found.sum(1, keepdim=True))
            yield torch.cat(pieces, dim=1)


@dataclass(frozen=True)
class Group:
    """Run the members of an ensemble in step, and make one estimate of each stem.

    Attributes:
        card: Says how; see `separator.cards.Ensemble`.
        parts: In the order in which they run.
        stems: Those that are wanted, in their order.
    """

    card: Ensemble
    parts: tuple[Part, ...]
    stems: tuple[str, ...]

    @property
    def needs_statistics(self) -> bool:
        """As in `Model`."""
        return any(part.model.needs_statistics for part in self.parts if part.input == MIXTURE)

    @property
    def waits(self) -> bool:
        """As in `Model`."""
        return any(part.measures or part.model.waits for part in self.parts)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the members."""
        return {"members": [{"model": part.name, **part.model.settings} for part in self.parts]}

    @property
    def notes(self) -> list[str]:
        """As in `Model`."""
        return [note for part in self.parts for note in part.model.notes]

    @property
    def seconds(self) -> float:
        """As in `Model`."""
        return sum(part.model.seconds for part in self.parts)

    def only(self, stems: Sequence[str]) -> Group:
        """As in `Model`: members that contribute nothing are left out."""
        parts: list[Part] = []
        inputs: set[str] = set()
        computed = self.card.stems if self._refines else stems
        for part in reversed(self.parts):
            if needed := part.only(computed, inputs):
                parts.insert(0, needed)
                inputs.add(needed.input)
        return replace(self, parts=tuple(parts), stems=tuple(stems))

    def segments(self, samples: int) -> int:
        """As in `Model`: those of all members."""
        return sum(part.model.segments(samples) for part in self.parts)

    def separate(
        self, blocks: Iterable[Tensor], monitor: Monitor, statistics: Statistics | None
    ) -> Iterator[Tensor]:
        """As in `Model`."""
        rows: Iterator[Tensor] = (block.unsqueeze(1) for block in blocks)
        names = [MIXTURE]
        measured: dict[str, Statistics] = {}
        for part in self.parts:
            rows = part.append(rows, names.index(part.input), monitor, statistics, measured)
            names += part.gives
        stems = self.card.stems if self._refines else self.stems
        merge = partial(self._merge, sources=[self._sources(stem) for stem in stems])
        # Means of bins are bins of means: no need for a transform.
        if self.card.domain == "time" or self.card.algorithm == "mean":
            rows = map(merge, rows)
            rows = through_stft(rows, self._refine, frames=self._frames) if self._refines else rows
        else:
            rows = through_stft(rows, lambda x: self._refine(merge(x)), frames=self._frames)
        index = [1 + stems.index(stem) for stem in self.stems]
        for row in rows:
            yield row[:, index]

    @property
    def _refines(self) -> bool:
        """Whether stems depend on each other, so that all must be computed."""
        return bool(self.card.wiener) or self.card.consistency != "none"

    @property
    def _frames(self) -> int:
        return _WIENER_FRAMES if self.card.wiener else 64

    def _sources(self, stem: str) -> list[tuple[int, float]]:
        """Return the rows that count for a stem, and their weights."""
        rows = [(name, part.weights) for part in self.parts for name in part.gives]
        return [
            (row, weights[stem])
            for row, (name, weights) in enumerate(rows, start=1)
            if name == stem and weights.get(stem)
        ]

    def _merge(self, rows: Tensor, sources: Sequence[list[tuple[int, float]]]) -> Tensor:
        """Turn mixture and estimates into mixture and stems; time or freq and frames come last."""
        stems = [
            combine([rows[:, row] for row, _ in found], self.card.algorithm, [w for _, w in found])
            for found in sources
        ]
        return torch.stack([rows[:, 0], *stems], dim=1)

    def _refine(self, rows: Tensor) -> Tensor:
        """Refine stems `(pairs, 1 + stems, channels, freq, frames)` by the mixture before them."""
        mixture, stems = rows[:, 0], rows[:, 1:]
        if self.card.wiener:
            stems = wiener(stems, mixture, iterations=self.card.wiener, segment_frames=None)
        if self.card.consistency == "energy":
            stems = make_consistent(stems, mixture)
        return torch.cat([rows[:, :1], stems], dim=1)


def assemble(tree: Tree, runners: Mapping[str, Runner], settings: Settings) -> Model:
    """Put the model of a card together from runners of the networks behind it.

    Args:
        tree: The card and its members, as `separator.members.resolve` returns them.
        runners: Of each tree in `tree.networks`, by its card's name.
        settings: What is asked for, before what the cards say.

    Raises:
        ConfigError: A setting that isn't allowed.
    """
    card = tree.card
    if tree.is_network:
        return _solo(tree, runners[card.name], settings)
    assert isinstance(card, Ensemble)  # a model is a network
    parts = tuple(
        Part(
            name=below.card.name,
            model=assemble(below, runners, settings.or_those_of(member)),
            input=member.input,
            names=taken(member, below.card),
            residual=member.residual,
            weights=_weights(card, member, below.card),
        )
        for member, below in zip(card.members, tree.members, strict=True)
    )
    return Group(card, parts, card.stems)


def _solo(tree: Tree, runner: Runner, settings: Settings) -> Solo:
    first = tree.models[0]  # if there are several, they differ in their stems only
    plan = settings.plan(first)
    _check_length(tree.card, plan, runner)
    return Solo(
        tree.card.stems,
        tuple(stem for model in tree.models for stem in model.stems),
        runner,
        plan,
        first.normalization == "track",
    )


def _weights(card: Ensemble, member: Member, below: AnyCard) -> dict[str, float]:
    return {name: weight(member, name) for name in given(member, below) if name in card.stems}


def _check_length(card: AnyCard, plan: Plan, runner: Runner) -> None:
    """Refuse segments that the network can't separate well."""
    if runner.longest and plan.segment_samples > runner.longest:
        longest, wanted = (n / card.sample_rate for n in (runner.longest, plan.segment_samples))
        raise ConfigError(
            f"'{card.name}' separates at most {longest:g} s at once, as long as the examples that "
            f"it was trained on; got a segment of {wanted:g} s. Use --segment {longest:g}, or less."
        )
