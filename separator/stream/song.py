"""Separate one song as a stream, in the song's own rate and channels.

song ──┬──> adapter ──> model: segments ──> network ──> overlap-add ──> adapter ──> stems
       └──> residual = song - stems
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from torch import Tensor

from separator.stream.adapt import Adapter
from separator.stream.blocks import in_step
from separator.stream.facts import Facts
from separator.stream.model import Model
from separator.stream.progress import Monitor
from separator.stream.spool import copies


@dataclass
class Stream:
    """Iterator over a separation: dictionaries of stem name to `(channels, time)`.

    The pieces are of the stream's own choosing, together exactly as long as the input.
    """

    blocks: Iterator[Tensor]
    names: tuple[str, ...]
    residual: bool
    model: Model
    monitor: Monitor
    facts: Facts
    adapter: Callable[[int], Adapter]

    @property
    def notes(self) -> list[str]:
        """What the user should know, such as a batch that did not fit into memory."""
        return self.model.notes

    @property
    def network_seconds(self) -> float:
        """Wall-clock time spent inside networks so far."""
        return self.model.seconds

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Separate; to be iterated once."""
        first = next(self.blocks, None)
        if first is None:
            return
        adapter = self.adapter(len(first))
        mixture, source = copies(chain([first], self.blocks), far=self.model.waits)
        estimates = self.model.separate(adapter.to_model(source), self.monitor, self.facts)
        for original, stems in in_step([mixture, adapter.to_song(estimates)]):
            pieces = list(stems)
            if self.residual:
                pieces.append(original - stems.sum(0))
            yield dict(zip(self.names, pieces, strict=True))
