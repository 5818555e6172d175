"""Recorded syllables that sing: pitch-synchronous overlap-add.

```
syllable --> pitch --> one mark a period --> a grain of two periods at each mark
note's pitch --> one place a period --> the grain of the mark that time has come to --> overlap-add
```

The grains are the recorded voice itself, so the timbre of its speaker stays. Where the voice is
unvoiced (consonants) time runs as recorded; a vowel is held for as long as its note.
Audio is float32 `(time,)` at 44.1 kHz.

Reference: Moulines and Charpentier (1990), Pitch-synchronous waveform processing techniques for
text-to-speech synthesis using diphones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from separator.synthesis.oscillators import SAMPLE_RATE, Audio

LOWEST, HIGHEST = 70.0, 500.0  # Hz, of a speaker
HOP, WINDOW = 256, 2048
REST = 220  # samples between the marks of unvoiced sound


@dataclass(frozen=True)
class Syllable:
    """A recorded syllable with its marks: sample positions, periods in samples, voicing."""

    audio: Audio
    marks: NDArray[np.int64]
    periods: NDArray[np.int64]
    voiced: NDArray[np.bool_]

    @classmethod
    def analyze(cls, audio: Audio) -> Syllable | None:
        """Find a syllable's marks; None where there is no voice in it."""
        pitch = periods_of(audio)
        sounding = np.flatnonzero(pitch)
        if len(sounding) * HOP < 0.06 * SAMPLE_RATE:
            return None
        marks: list[int] = []
        periods: list[int] = []
        place = max(int(sounding[0] * HOP - 0.15 * SAMPLE_RATE), 0)
        audio = audio[: int(sounding[-1] * HOP + 0.1 * SAMPLE_RATE)]
        while place < len(audio):
            period = int(pitch[min(place // HOP, len(pitch) - 1)])
            mark = _peak(audio, place, period, marks[-1] + 1 if marks else 0)
            marks.append(mark)
            periods.append(period)
            place = mark + (period or REST)
        every = np.array(periods, dtype=np.int64)
        return cls(audio, np.array(marks, dtype=np.int64), every, every > 0)

    def sing(self, hertz: Audio) -> Audio:
        """Sing the syllable at a pitch curve (Hz per sample), for as long as the curve is."""
        out = np.zeros(len(hertz) + WINDOW, dtype=np.float32)
        clock = self._clock(len(hertz))
        place = 0
        while place < len(hertz):
            mark = int(np.searchsorted(self.marks, clock[place])) % len(self.marks)
            voiced = bool(self.voiced[mark])
            half = int(self.periods[mark]) if voiced else REST
            grain = _grain(self.audio, int(self.marks[mark]), half)
            start = place - half
            skip = max(-start, 0)
            used = min(len(grain), len(out) - start)
            out[start + skip : start + used] += grain[skip:used]
            place += max(int(SAMPLE_RATE / hertz[place]), 20) if voiced else REST
        return out[: len(hertz)]

    def _clock(self, length: int) -> NDArray[np.float64]:
        """Map the note's time to the recording's: consonants run, the vowel is stretched."""
        sounding = np.repeat(self.voiced, np.diff(self.marks, append=len(self.audio)))
        vowel = int(np.count_nonzero(sounding))
        rest = len(sounding) - vowel
        rest_rate = max(1.0, 2.0 * rest / length)  # at most half of the note is consonants
        vowel_rate = vowel / max(length - rest / rest_rate, 1.0)
        spent = np.cumsum(np.where(sounding, 1.0 / vowel_rate, 1.0 / rest_rate))
        source = np.arange(len(spent)) + self.marks[0]
        return np.asarray(np.interp(np.arange(length), spent, source), dtype=np.float64)


def periods_of(audio: Audio) -> NDArray[np.int64]:
    """Return the period in samples of each frame of `HOP` samples, 0 where it is unvoiced."""
    padded = np.pad(audio, (WINDOW // 2, WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(WINDOW)
    correlation = _correlation(frames) / _correlation(np.hanning(WINDOW)[None])
    low, high = int(SAMPLE_RATE / HIGHEST), int(SAMPLE_RATE / LOWEST)
    power = correlation[:, 0]
    search = correlation[:, low:high] / (power[:, None] + 1e-9)
    best = search.max(axis=1)
    first = np.argmax(search > 0.9 * best[:, None], axis=1)  # not an octave below
    near = np.arange(-20, 21)
    place = np.clip(first[:, None] + near, 0, search.shape[1] - 1)
    peak = np.take_along_axis(place, np.argmax(np.take_along_axis(search, place, 1), 1)[:, None], 1)
    voiced = (best > 0.6) & (power > 0.01 * power.max(initial=0.0))
    return np.where(voiced, peak[:, 0] + low, 0)


def _correlation(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the autocorrelation of frames, relative to its value at lag 0 for windows."""
    spectrum = fft.rfft(frames, 2 * WINDOW)
    result = np.asarray(fft.irfft(np.abs(spectrum) ** 2)[:, :WINDOW], dtype=np.float64)
    return result if len(frames) > 1 else result / result[:, :1]


def _peak(audio: Audio, place: int, period: int, first: int) -> int:
    """Find the period's highest point near to where it is expected, from `first` on."""
    start = max(place - period // 4, first)
    return start + int(np.argmax(audio[start : place + period // 4 + 1]))


def _grain(audio: Audio, mark: int, half: int) -> Audio:
    """Cut two periods around a mark."""
    piece = audio[max(mark - half, 0) : mark + half]
    before = max(half - mark, 0)
    piece = np.pad(piece, (before, 2 * half - before - len(piece)))
    return np.asarray(piece * np.hanning(2 * half + 1)[:-1], dtype=np.float32)
