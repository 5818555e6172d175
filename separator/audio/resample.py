"""Resampling of streams by soxr, without delay and with exact lengths.

The quality is soxr's VHQ: on 44.1 <-> 48 kHz stereo it costs 1.2 ms of CPU time per second of
music, HQ costs 0.9 ms; next to a network the difference is nothing, and VHQ's errors lie below
those of 24-bit audio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import soxr

Block = npt.NDArray[np.float32]

_QUALITY = "VHQ"
_PIECE = 1 << 16  # samples at once at the higher rate, so that memory stays flat at any rate


def resampled_length(samples: int, in_rate: int, out_rate: int) -> int:
    """Return how many samples `samples` become: the duration, rounded up to whole samples.

    >>> resampled_length(44100, 44100, 48000), resampled_length(1, 48000, 44100)
    (48000, 1)
    """
    return -(-samples * out_rate // in_rate)


class Resampler:
    """Resampler of a stream of blocks.

    The output is aligned with the input (an impulse at time t stays at time t) and has
    `resampled_length` samples in all. Equal rates pass through untouched.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int, samples: int | None = None):
        """Begin a stream.

        Args:
            in_rate: Hz.
            out_rate: Hz.
            channels: Number of channels.
            samples: Total length of the output, where it isn't to be `resampled_length`.
        """
        self.in_rate, self.out_rate, self.channels = in_rate, out_rate, channels
        self.samples_in = self.samples_out = 0
        self._samples = samples
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality=_QUALITY)
        )

    def process(self, block: Block, *, last: bool = False) -> Block:
        """Return what is ready after `block` (channels, time); with `last`, all that is left."""
        self.samples_in += block.shape[1]
        if self._stream is not None:
            tail = self.silence(self.in_rate // 10 + 1 if last else 0)
            chunk = np.ascontiguousarray(np.concatenate([block, tail], 1).T)
            block = np.ascontiguousarray(self._stream.resample_chunk(chunk, last=last).T)
        block = self._fit(block, last)
        self.samples_out += block.shape[1]
        return block

    def _fit(self, block: Block, last: bool) -> Block:
        """Cut what is beyond the total length; at the end, fill what is missing with silence."""
        samples = self._samples
        if samples is None and last:
            samples = resampled_length(self.samples_in, self.in_rate, self.out_rate)
        if samples is None:
            return block
        missing = samples - self.samples_out - block.shape[1]
        if missing < 0:
            return block[:, : max(0, block.shape[1] + missing)]
        if missing and last:
            return np.concatenate([block, self.silence(missing)], 1)
        return block

    def silence(self, samples: int) -> Block:
        """Return zeros (channels, `samples`)."""
        return np.zeros((self.channels, samples), np.float32)


def resampled(
    blocks: Iterable[Block], in_rate: int, out_rate: int, samples: int | None = None
) -> Iterator[Block]:
    """Yield `blocks` at another rate.

    Args:
        blocks: Arrays (channels, time) at `in_rate`.
        in_rate: Hz.
        out_rate: Hz.
        samples: Total length of the output; `resampled_length` of the input where absent. On the
            way back to a file's own rate it is the file's length, so that nothing is lost or added.
    """
    resampler = None
    step = max(1, _PIECE * in_rate // max(in_rate, out_rate))
    for block in blocks:
        if resampler is None:
            resampler = Resampler(in_rate, out_rate, block.shape[0], samples)
        for begin in range(0, block.shape[1], step):
            if (ready := resampler.process(block[:, begin : begin + step])).shape[1]:
                yield ready
    if resampler is not None:
        ready = resampler.process(resampler.silence(0), last=True)
        if ready.shape[1]:
            yield ready
