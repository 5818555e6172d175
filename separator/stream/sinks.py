"""Where the stems of a song go: files, memory, or whatever else takes them block by block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from separator.audio.resample import Block


class Sink(Protocol):
    """Destination of stems, which keeps all of them or none."""

    def write(self, blocks: Mapping[str, Block]) -> None:
        """Take one block `(channels, time)` of every stem; it won't change afterwards."""

    def close(self) -> object:
        """Keep what was written."""

    def discard(self) -> None:
        """Forget what was written."""


def pour(pieces: Iterable[Mapping[str, Tensor]], *sinks: Sink) -> None:
    """Write a separation into sinks; if it or one of them fails, all forget what they had."""
    try:
        for stems in pieces:
            blocks = {name: stem.numpy() for name, stem in stems.items()}
            for sink in sinks:
                sink.write(blocks)
        for sink in sinks:
            sink.close()
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise


class Gathering:
    """Sink that keeps all stems in memory.

    Attributes:
        stems: `(channels, time)` by name, once it is closed.
    """

    def __init__(self) -> None:
        self.stems: dict[str, Tensor] = {}
        self._blocks: list[Mapping[str, Block]] = []

    def write(self, blocks: Mapping[str, Block]) -> None:
        """As in `Sink`."""
        self._blocks.append(blocks)

    def close(self) -> None:
        """As in `Sink`."""
        for name in self._blocks[0] if self._blocks else ():
            pieces = [torch.from_numpy(blocks[name]) for blocks in self._blocks]
            self.stems[name] = torch.cat(pieces, dim=-1)
        self._blocks = []

    def discard(self) -> None:
        """As in `Sink`."""
        self.stems, self._blocks = {}, []
