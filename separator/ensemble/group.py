"""Several models that work as one.

    mixture ──────────────────────────────┬─────────> rows: mixture
      ├──> member 0 ──> vocals            │                 vocals
      │         └──> residual ──> member 1 ──> drums        residual
      └──> member 2 ──> vocals                              drums
                                                            vocals
    rows ──combine──> stems ──refine──> stems

An ensemble is one stream of rows: each member takes one of them, or several as more channels of
one signal, and appends what it gives. All
members run in step, so memory does not grow with the track's length. Only a member that wants mean
and deviation of what an earlier one gives waits until that is done, and reads it from a file; so
does a network that wants to know how loud its input gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from separator.ensemble.combine import combine, make_consistent
from separator.spectral.frames import through_stft
from separator.spectral.masks import wiener
from separator.stream.blocks import in_step
from separator.stream.facts import UNKNOWN, Facts, Statistics, read_ahead, track_statistics
from separator.stream.model import Model
from separator.stream.progress import Monitor
from separator.stream.spool import copies
from separator.words import MIXTURE
from separator.zoo.cards import Ensemble

_WIENER_FRAMES = 300  # of a segment in which sources stand still: 7 s at 44.1 kHz


@dataclass(frozen=True)
class Part:
    """Member of an ensemble at work.

    Attributes:
        name: Name of its card.
        model: Gives the stems in `names`, in their order.
        inputs: The rows that it hears; the first is the one that it separates.
        names: The model's stems, and their names in the ensemble.
        residual: Name of the input minus these stems, where it is wanted.
        weights: Weight of each name that counts for a stem of the ensemble.
    """

    name: str
    model: Model
    inputs: tuple[str, ...]
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
        return self.inputs[0] != MIXTURE and self.model.needs_statistics

    def append(
        self,
        rows: Iterator[Tensor],
        indices: Sequence[int],
        monitor: Monitor,
        facts: dict[str, Facts],
    ) -> Iterator[Tensor]:
        """Separate rows; yield all rows and what was found, `(pairs, rows, channels, time)`.

        Args:
            rows: The song, and what earlier members gave.
            indices: Numbers of the rows that are heard.
            monitor: As in `Model.separate`.
            facts: Facts of each row, by its name, as far as known; those of this one are added.
        """
        first = indices[0]
        if self.measures:
            start = next(rows, None)  # by now, earlier members have measured what they need
            rows = chain([] if start is None else [start], rows)
            if self.inputs[0] not in facts:
                found, rows = read_ahead(rows, partial(_row_statistics, first))
                facts[self.inputs[0]] = Facts(found)
        kept, source = copies(rows, far=self.model.waits)
        mixture = (block[:, list(indices)].flatten(1, 2) for block in source)
        known = facts.get(self.inputs[0], UNKNOWN)
        estimates = self.model.separate(mixture, monitor, known)
        for before, stems in in_step([kept, estimates]):
            pieces = [before, stems]
            if self.residual:
                pieces.append(before[:, first : first + 1] - stems.sum(1, keepdim=True))
            yield torch.cat(pieces, dim=1)


def _row_statistics(index: int, rows: Iterable[Tensor]) -> Statistics:
    return track_statistics(block[:, index].flatten(0, 1) for block in rows)


@dataclass(frozen=True)
class Group:
    """Members of an ensemble in step, and the one estimate that they make of each stem.

    Attributes:
        card: Says how; see `separator.zoo.cards.Ensemble`.
        parts: In the order in which they run.
        stems: Wanted stems, in their order.
    """

    card: Ensemble
    parts: tuple[Part, ...]
    stems: tuple[str, ...]

    @property
    def needs_statistics(self) -> bool:
        """As in `Model`."""
        return any(part.model.needs_statistics for part in self.parts if not part.measures)

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
                inputs.update(needed.inputs)
        return replace(self, parts=tuple(parts), stems=tuple(stems))

    def segments(self, samples: int) -> int:
        """As in `Model`: those of all members."""
        return sum(part.model.segments(samples) for part in self.parts)

    def separate(
        self, blocks: Iterable[Tensor], monitor: Monitor, facts: Facts
    ) -> Iterator[Tensor]:
        """As in `Model`."""
        rows: Iterator[Tensor] = (block.unsqueeze(1) for block in blocks)
        names = [MIXTURE]
        known = {MIXTURE: facts}
        for part in self.parts:
            indices = [names.index(name) for name in part.inputs]
            rows = part.append(rows, indices, monitor, known)
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
