"""Resampling of streams by soxr, without delay and with exact lengths.

The quality is soxr's VHQ: on 44.1 <-> 48 kHz stereo it costs 1.2 ms of CPU time per second of
music, HQ costs 0.9 ms; next to a network the difference is nothing, and VHQ's errors lie below
those of 24-bit audio.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import soxr

Block = npt.NDArray[np.float32]

_QUALITY = "VHQ"


def resampled_length(samples: int, in_rate: int, out_rate: int) -> int:
    """Return how many samples `samples` become: the duration, rounded up to whole samples.

    >>> resampled_length(44100, 44100, 48000), resampled_length(1, 48000, 44100)
    (48000, 1)
    """
    return -(-samples * out_rate // in_rate)


class Resampler:
    """Resample a stream of blocks.

    The output is aligned with the input (an impulse at time t stays at time t) and has
    `resampled_length` samples in all. Equal rates pass through untouched.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int):
        self.in_rate, self.out_rate, self.channels = in_rate, out_rate, channels
        self.samples_in = self.samples_out = 0
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality=_QUALITY)
        )

    def process(self, block: Block, *, last: bool = False, samples: int | None = None) -> Block:
        """Return what is ready after `block`; with `last`, everything that is left.

        Args:
            block: (channels, time), may be empty.
            last: The stream ends with this block.
            samples: With `last`, the total length wanted instead of `resampled_length`.
        """
        self.samples_in += block.shape[1]
        if self._stream is None:
            ready = block
        else:
            tail = self.silence(self.in_rate // 10 + 1) if last else self.silence(0)
            chunk = np.ascontiguousarray(np.concatenate([block, tail], 1).T)
            ready = np.ascontiguousarray(self._stream.resample_chunk(chunk, last=last).T)
        if last:
            ready = self._fit(ready, samples)
        self.samples_out += ready.shape[1]
        return ready

    def _fit(self, ready: Block, samples: int | None) -> Block:
        """Cut the end, or fill it with silence, so that the total length is right."""
        if samples is None:
            samples = resampled_length(self.samples_in, self.in_rate, self.out_rate)
        missing = samples - self.samples_out
        if missing <= ready.shape[1]:
            return ready[:, : max(missing, 0)]
        return np.concatenate([ready, self.silence(missing - ready.shape[1])], 1)

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
    for block in blocks:
        if resampler is None:
            resampler = Resampler(in_rate, out_rate, block.shape[0])
        if (ready := resampler.process(block)).shape[1]:
            yield ready
    if resampler is not None:
        ready = resampler.process(resampler.silence(0), last=True, samples=samples)
        if ready.shape[1]:
            yield ready
