"""One rate and one number of channels for a stream that changes them on the way.

Joined mp3s do, chained Ogg files, and radio streams: everything becomes what the start is, as
other players do it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from separator.audio.resample import Resampler
from separator.errors import AudioError

Block = npt.NDArray[np.float32]


class Conformer:
    """Converter of blocks (channels, time) to the rate and channels of a stream's start."""

    def __init__(self, name: str, sample_rate: int, channels: int):
        self.notes: list[str] = []
        self._name, self._rate, self._channels = name, sample_rate, channels
        self._resampler: Resampler | None = None

    def process(self, block: Block, sample_rate: int) -> Iterator[Block]:
        """Yield what is ready after a block at `sample_rate`."""
        if self._resampler is not None and self._resampler.in_rate != sample_rate:
            yield from self.finish()
        if (len(block), sample_rate) == (self._channels, self._rate):
            yield block
            return
        self._tell(len(block), sample_rate)
        block = self._remixed(block)
        if sample_rate != self._rate:
            self._resampler = self._resampler or Resampler(sample_rate, self._rate, self._channels)
            block = self._resampler.process(block)
        yield block

    def finish(self) -> Iterator[Block]:
        """Yield what is left."""
        if self._resampler is not None:
            yield self._resampler.process(self._resampler.silence(0), last=True)
            self._resampler = None

    def _tell(self, channels: int, sample_rate: int) -> None:
        if not self.notes:
            self.notes.append(
                f"The file changes from {self._rate} Hz and {self._channels} channels to "
                f"{sample_rate} Hz and {channels} channels on the way; it was converted to "
                "what it begins with."
            )

    def _remixed(self, block: Block) -> Block:
        """Turn mono into all channels, or all channels into their mean."""
        if len(block) == self._channels:
            return block
        if len(block) == 1:
            return np.repeat(block, self._channels, axis=0)
        if self._channels == 1:
            mean: Block = block.mean(axis=0, keepdims=True)
            return mean
        raise AudioError(
            f"'{self._name}' changes from {self._channels} to {len(block)} channels on the way; "
            "convert it to wav first."
        )
