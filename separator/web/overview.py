"""What a track looks like from afar: its waveform and its spectrogram, for drawing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Block = npt.NDArray[np.float32]

COLUMNS = 1200  # points in time: more than a large screen is wide
BANDS = 96  # bands of frequency, evenly spaced in octaves
LOWEST, HIGHEST = 40.0, 16000.0  # Hz
RANGE_DB = 72.0  # below full scale; what is softer is drawn black
_FFT = 4096


@dataclass(frozen=True)
class Overview:
    """Pictures of one track.

    Attributes:
        peaks: Largest sample of each column, full scale is 255. Shape `(columns,)`.
        spectrogram: Level in dB, from `-RANGE_DB` (0) to full scale (255), the lowest band first.
            Shape `(columns, bands)`.
    """

    peaks: Bytes
    spectrogram: Bytes

    @property
    def is_silent(self) -> bool:
        """Whether nothing would be seen of the track, or heard."""
        return not self.peaks.any()


def overview(blocks: Iterable[Block], samples: int, sample_rate: int) -> Overview:
    """Draw a track while it streams by.

    Args:
        blocks: Float samples, full scale at 1. Shape `(channels, time)` each.
        samples: Length of the whole track, per channel.
        sample_rate: In Hz.
    """
    columns = min(COLUMNS, max(1, samples))
    peaks = np.zeros(columns, np.float32)
    spectra = np.full((columns, BANDS), -RANGE_DB, np.float32)  # a track may end before its song
    sizes = np.diff(np.arange(columns + 1) * samples // columns)
    painter = _Painter(sample_rate)
    column, buffer = 0, None
    for block in _with_silence(blocks, _FFT):
        buffer = block if buffer is None else np.concatenate([buffer, block], axis=1)
        mono, begin, first, frames = buffer.mean(0), 0, column, []
        while column < columns and len(mono) - begin >= max(sizes[column], _FFT):
            size = sizes[column]
            peaks[column] = np.abs(buffer[:, begin : begin + size]).max(initial=0)
            middle = begin + max(0, size - _FFT) // 2
            frames.append(mono[middle : middle + _FFT])
            begin, column = begin + size, column + 1
        if frames:
            spectra[first:column] = painter(np.stack(frames))
        buffer = buffer[:, begin:]
    return Overview(_bytes(peaks), _bytes(1 + spectra / RANGE_DB))


def _with_silence(blocks: Iterable[Block], samples: int) -> Iterator[Block]:
    """Yield the blocks and then silence, for the last columns look beyond the end."""
    channels = 1
    for block in blocks:
        channels = len(block)
        yield block
    yield np.zeros((channels, samples), np.float32)


class _Painter:
    """Levels in dB of the bands of frames of sound `(frames, time)`."""

    def __init__(self, sample_rate: int) -> None:
        edges = np.geomspace(LOWEST, min(HIGHEST, sample_rate / 2), BANDS + 1)
        bins = np.round(edges * _FFT / sample_rate).astype(int)
        self._starts = np.minimum(bins[:-1], _FFT // 2)
        self._stop = max(int(self._starts[-1]), min(int(bins[-1]), _FFT // 2)) + 1
        self._window = np.hanning(_FFT).astype(np.float32)

    def __call__(self, frames: Block) -> npt.NDArray[np.float32]:
        spectra = np.abs(np.fft.rfft(frames * self._window)) * (4 / _FFT)
        levels = np.maximum.reduceat(spectra[:, : self._stop], self._starts, axis=1)
        decibels: npt.NDArray[np.float32] = 20 * np.log10(np.maximum(levels, 1e-6))
        return decibels


def _bytes(values: npt.NDArray[np.float32]) -> Bytes:
    """Round [0, 1] to bytes; what is heard at all is never drawn as nothing."""
    scaled: Bytes = np.clip(np.ceil(values * 255 - 1e-3), 0, 255).astype(np.uint8)
    return scaled
