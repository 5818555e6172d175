"""A second opinion about a file that two decoders read: FFmpeg and libsndfile.

It is asked for where the samples decoded aren't as many as the header counts. Decoders that give
the same music may still end at different places; those that don't, can't both be right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av.error
import numpy as np
import numpy.typing as npt
import soundfile

from separator.audio.decoders import Decoder
from separator.audio.ffmpeg import FFmpegDecoder
from separator.audio.sndfile import SndfileDecoder
from separator.errors import AudioError

Block = npt.NDArray[np.float32]

_NOISE = 1e-3  # energy, relative to the music's, by which decoders of lossy formats may differ


@dataclass(frozen=True)
class Opinion:
    """Comparison of one decoder with another.

    Attributes:
        samples: How many the other one gives.
        agrees: Whether both give the same music as far as both go.
    """

    samples: int
    agrees: bool


def other_decoder(decoder: Decoder, path: Path) -> Decoder | None:
    """Open the other library's decoder, if it takes the file for audio of the same form."""
    kind: Callable[[Path], Decoder]
    kind = SndfileDecoder if isinstance(decoder, FFmpegDecoder) else FFmpegDecoder
    try:
        other = kind(path)
    except (AudioError, OSError, ValueError, av.error.FFmpegError, soundfile.LibsndfileError):
        return None
    mine, its = decoder.info, other.info
    if (mine.sample_rate, mine.channels) == (its.sample_rate, its.channels):
        return other
    other.close()
    return None


def compare(one: Decoder, other: Decoder) -> Opinion:
    """Decode both from their start and compare them; an error ends a decoder like its end."""
    music = difference = 0.0
    samples = 0
    mine = _Tape(_quietly(one))
    for block in _quietly(other):
        samples += block.shape[1]
        common = mine.take(block.shape[1])
        music += float(np.square(common, dtype=np.float64).sum())
        difference += float(np.square(common - block[:, : common.shape[1]], dtype=np.float64).sum())
    return Opinion(samples, difference <= _NOISE * music)


def rest(path: Path, decoder: Decoder, first: int) -> Iterator[Block]:
    """Yield what the other decoder has from the sample `first` on."""
    other = other_decoder(decoder, path)
    if other is None:
        return
    with closing(other):
        position = 0
        for block in _quietly(other):
            if position + block.shape[1] > first:
                yield block[:, max(0, first - position) :]
            position += block.shape[1]


def _quietly(decoder: Decoder) -> Iterator[Block]:
    try:
        yield from decoder
    except (AudioError, OSError, av.error.FFmpegError):
        return


class _Tape:
    """Blocks that are taken in other sizes than they come."""

    def __init__(self, blocks: Iterator[Block]):
        self._blocks, self._held = blocks, np.zeros((1, 0), np.float32)

    def take(self, samples: int) -> Block:
        """Return the next samples, fewer at the end."""
        pieces = [self._held]
        while sum(piece.shape[1] for piece in pieces) < samples:
            if (block := next(self._blocks, None)) is None:
                break
            pieces.append(block)
        joined = np.concatenate([piece for piece in pieces if piece.shape[1]] or pieces[:1], axis=1)
        self._held = joined[:, samples:]
        return joined[:, :samples]
