"""Cut a stream into overlapping segments.

Recipes say where segments lie, what surrounds them and how they are weighed. All of them are
streams: a tape holds what is still needed of the track, a few segments at most.

    default   full segments, the last one moved back to the end; triangular weights
    demucs    on a grid from the start, the last ones short; a network that wants more samples than
              the segment has gets the real audio around it; triangular weights
    msst      on a grid, over a track whose ends are mirrored; flat weights with short ramps
    msst-flat on a grid, the last ones filled up with silence; equal weights
    spleeter  on a grid of frames that begins with one of silence; each frame is in one segment, and
              weighs as its window does

`demucs` gives what demucs' `apply_model` gives, `msst` and `msst-flat` what `demix` of
Music-Source-Separation-Training does with one segment at a time, the latter for Demucs, `spleeter`
what Spleeter does with chunks of its spectrogram, if nothing overlaps but the frames. `default`
needs the fewest segments, and each of them is full of audio.

Reference: Défossez et al. 2019, arXiv 1911.13254, section 5.4 (triangular weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.errors import ConfigError
from separator.spectral.overlap_add import triangle

#: Samples of a frame of Spleeter's, and from one to the next.
_FRAME, _STEP = 4096, 1024

#: Samples that a network wants to see for a stretch of that many: at least as many.
ValidLength = Callable[[int], int]


class Segment(NamedTuple):
    """Stretch that a network sees, and the part of its answer that counts.

    Attributes:
        start: Sample of the track where the answer begins.
        audio: `(..., channels, time)`
        context: Samples of the audio before `start`; their estimate is thrown away.
        weights: Weights `(samples,)` of the answer; what comes beyond it is thrown away, too.
    """

    start: int
    audio: Tensor
    context: int
    weights: Tensor


class Tape:
    """Stretch of a stream of blocks `(..., time)` that is still needed."""

    def __init__(self, blocks: Iterable[Tensor]) -> None:
        self.end = 0  # samples that have come so far
        self._blocks = iter(blocks)
        self._kept: list[Tensor] = []
        self._first = 0  # of the samples that are kept

    def reaches(self, position: int) -> bool:
        """Read until `position` samples have come; tell whether there are so many."""
        while self.end < position:
            block = next(self._blocks, None)
            if block is None:
                return False
            if block.shape[-1]:
                self._kept.append(block)
                self.end += block.shape[-1]
        return True

    def read(self, start: int, end: int) -> Tensor:
        """Return the samples from `start` to `end`; silence where the stream has none."""
        buffer = self._buffer()
        low, high = max(start, self._first), min(end, self.end)
        piece = buffer[..., low - self._first : high - self._first]
        return piece if high - low == end - start else F.pad(piece, (low - start, end - high))

    def forget(self, position: int) -> None:
        """Drop what lies before `position`."""
        position = min(position, self.end)
        if position > self._first:
            self._kept = [self._buffer()[..., position - self._first :]]
            self._first = position

    def _buffer(self) -> Tensor:
        if len(self._kept) > 1:
            self._kept = [torch.cat(self._kept, dim=-1)]
        return self._kept[0]


def _cut_default(tape: Tape, size: int, hop: int, _: ValidLength) -> Iterator[Segment]:
    """Move the last segment back to the end; a shorter stream is one segment of its own length."""
    weights, start = triangle(size), 0
    while tape.reaches(start + size):
        yield Segment(start, tape.read(start, start + size), 0, weights)
        tape.forget(start)  # the last segment may be moved back to here
        start += hop
    covered = start - hop + size if start else 0
    if covered < tape.end:
        last = max(0, tape.end - size)
        yield Segment(last, tape.read(last, tape.end), 0, triangle(tape.end - last))


def _cut_demucs(tape: Tape, size: int, hop: int, valid_length: ValidLength) -> Iterator[Segment]:
    """Keep to the grid; put what surrounds a segment evenly on both sides of it."""
    weights, farthest, start = triangle(size), valid_length(size), 0
    while tape.reaches(start + 1):
        samples = size if tape.reaches(start + size) else tape.end - start
        length = valid_length(samples)
        context = (length - samples) // 2
        first = start - context
        tape.reaches(first + length)
        yield Segment(start, tape.read(first, first + length), context, weights[:samples])
        start += hop
        tape.forget(start - farthest)


def _cut_msst(tape: Tape, size: int, hop: int, _: ValidLength) -> Iterator[Segment]:
    """Mirror the ends of the track, if it is long enough, so that segments overlap there too."""
    border = size - hop
    if not tape.reaches(2 * border + 1):
        yield from _cut_msst_short(tape, size, hop)
        return
    weights, start = _trapezoid(size, hop), -border
    while start < 0 or tape.reaches(start + 1):
        if tape.reaches(start + size):
            audio, stop = _mirrored_start(tape, start, size), start + size
        else:
            audio, stop = _mirrored_end(tape, start, border), tape.end
        first = max(0, start)
        yield Segment(
            first, _filled(audio, size), first - start, weights[first - start :][: stop - first]
        )
        start += hop
        tape.forget(start - border - 1)


def _cut_msst_short(tape: Tape, size: int, hop: int) -> Iterator[Segment]:
    fade = size // 10
    for start in range(0, tape.end, hop):
        weights = _trapezoid(size, hop)
        if start == 0:
            weights[:fade] = 1
        elif start + hop >= tape.end:
            weights[size - fade :] = 1
        audio = tape.read(start, min(start + size, tape.end))
        yield Segment(start, _filled(audio, size), 0, weights[: audio.shape[-1]])


def _cut_msst_flat(tape: Tape, size: int, hop: int, _: ValidLength) -> Iterator[Segment]:
    start = 0
    while tape.reaches(start + 1):
        samples = size if tape.reaches(start + size) else tape.end - start
        yield Segment(start, tape.read(start, start + size), 0, torch.ones(samples, device="cpu"))
        start += hop
        tape.forget(start)


def _cut_spleeter(tape: Tape, size: int, hop: int, _: ValidLength) -> Iterator[Segment]:
    """Cut frames of Spleeter's: as many begin in a segment as it has steps."""
    weights, start = _windows(_steps(size)), -_FRAME
    while tape.reaches(max(0, start) + 1):
        end = start + len(weights)
        tape.reaches(end)
        first, stop = max(0, start), min(end, tape.end)
        context = first - start
        yield Segment(first, tape.read(start, end), context, weights[context : stop - start])
        start += hop
        tape.forget(start)


def _windows(frames: int) -> Tensor:
    """Return the sum of so many squared Hann windows, one where four of them overlap."""
    window = torch.hann_window(_FRAME).square()[None, None] / 1.5
    return F.conv_transpose1d(torch.ones(1, 1, frames), window, stride=_STEP)[0, 0]


def _trapezoid(samples: int, hop: int) -> Tensor:
    """Return flat weights with short ramps; without, where nothing overlaps to fill a ramp up."""
    fade = samples // 10 if hop < samples else 0
    weights = torch.ones(samples, device="cpu")
    weights[:fade] = torch.linspace(0, 1, fade, device="cpu")
    weights[samples - fade :] = torch.linspace(1, 0, fade, device="cpu")
    return weights


def _mirrored_start(tape: Tape, start: int, size: int) -> Tensor:
    if start >= 0:
        return tape.read(start, start + size)
    mirrored = tape.read(1, 1 - start).flip(-1)
    return torch.cat([mirrored, tape.read(0, start + size)], dim=-1)


def _mirrored_end(tape: Tape, start: int, border: int) -> Tensor:
    mirrored = tape.read(tape.end - 1 - border, tape.end - 1).flip(-1)
    return torch.cat([tape.read(start, tape.end), mirrored], dim=-1)


def _filled(audio: Tensor, size: int) -> Tensor:
    """Lengthen a piece to a segment: mirrored if it is more than half of one, else by silence."""
    missing = size - audio.shape[-1]
    if missing <= 0:
        return audio[..., :size]
    if audio.shape[-1] <= size // 2:
        return F.pad(audio, (0, missing))
    mirrored = audio[..., -1 - missing : -1].flip(-1)
    return torch.cat([audio, mirrored], dim=-1)


def _count_default(samples: int, size: int, hop: int) -> int:
    return 1 + math.ceil(max(0, samples - size) / hop)


def _count_grid(samples: int, size: int, hop: int) -> int:
    return math.ceil(samples / hop)


def _count_msst(samples: int, size: int, hop: int) -> int:
    border = size - hop
    return math.ceil((samples + (border if samples > 2 * border else 0)) / hop)


def _count_spleeter(samples: int, size: int, hop: int) -> int:
    return math.ceil((samples + _FRAME) / hop) if samples else 0


def _steps(samples: float) -> int:
    return max(1, round(samples / _STEP))


def _hop_msst(size: int, overlap: float) -> int:
    parts = round(1 / (1 - overlap))
    if abs(1 - 1 / parts - overlap) > 0.01 or size < 2 * parts:
        raise ConfigError(
            f"MSST's recipes cut a segment into equal parts; the overlap is {overlap} of {size} "
            "samples, allowed are 0, 0.5, 0.667, 0.75, 0.8 and so on. Use the recipe 'default' for "
            "others."
        )
    return size // parts


class Recipe(NamedTuple):
    """Rule by which a track is cut.

    Attributes:
        hop: Distance between segments, from their length and the overlap.
        total: How many there are, from the length of the track, of a segment and of a hop.
        cut: Yields them.
        pieces: The network is told that a segment is a piece of a track.
    """

    hop: Callable[[int, float], int]
    total: Callable[[int, int, int], int]
    cut: Callable[[Tape, int, int, ValidLength], Iterator[Segment]]
    pieces: bool = False


RECIPES = {
    "default": Recipe(
        lambda size, overlap: max(1, round(size * (1 - overlap))), _count_default, _cut_default
    ),
    "demucs": Recipe(
        lambda size, overlap: max(1, int((1 - overlap) * size)), _count_grid, _cut_demucs
    ),
    "msst": Recipe(_hop_msst, _count_msst, _cut_msst),
    "msst-flat": Recipe(_hop_msst, _count_grid, _cut_msst_flat),
    "spleeter": Recipe(
        lambda size, overlap: _steps(size * (1 - overlap)) * _STEP,
        _count_spleeter,
        _cut_spleeter,
        pieces=True,
    ),
}
