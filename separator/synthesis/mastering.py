"""The mastering of a song, done to its stems: whatever it does, they still sum to the mixture.

Equaliser and crossover are linear filters that all stems share; compressor and limiter are curves
of gain over time, measured on the mixture and multiplied into every stem.

```
stems --> equaliser --> three bands --> gain of the band's mixture --> sum --> lift --> limiter
```
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import signal

from separator.synthesis.desk import bell, bus_gain, linear, loudness, shelf
from separator.synthesis.oscillators import SAMPLE_RATE, Audio

LOUDEST = 0.98  # sample value that no stem exceeds


@dataclass(frozen=True)
class Mastering:
    """Settings of a mastering chain.

    `low_db`, `middle_db` and `high_db` are the equaliser's gains; `crossover` holds the two
    frequencies in Hz between which the compressor's bands lie; `above_db` is its threshold over
    the band's level; `level_db` is the level that the limiter is driven to.
    """

    low_db: float = 0.0
    middle_db: float = 0.0
    middle_hertz: float = 1000.0
    high_db: float = 0.0
    crossover: tuple[float, float] = (200.0, 3000.0)
    above_db: float = 0.0
    ratio: float = 2.0
    level_db: float = -14.0
    ceiling: float = 0.97

    @classmethod
    def draw(cls, rng: Generator) -> Mastering:
        """Draw the settings of a released song, from dynamic to loud."""
        return cls(
            low_db=rng.uniform(-2.0, 3.0),
            middle_db=rng.uniform(-2.5, 2.5),
            middle_hertz=float(np.exp(rng.uniform(np.log(300), np.log(4000)))),
            high_db=rng.uniform(-2.0, 4.0),
            crossover=(float(rng.uniform(110, 280)), float(rng.uniform(1800, 5000))),
            above_db=rng.uniform(-6.0, 4.0),
            ratio=rng.uniform(1.2, 3.5),
            level_db=rng.uniform(-16.0, -8.0),
            ceiling=rng.uniform(0.85, 0.99),
        )


def master(stems: dict[str, Audio], settings: Mastering) -> dict[str, Audio]:
    """Master stems `(2, time)` so that their sum is the mastered sum.

    Neither the mixture nor a stem exceeds 0.98.
    """
    names = list(stems)
    audio = np.stack([stems[name] for name in names])  # (stems, 2, time)
    audio = _equalized(audio, settings)
    audio = np.asarray(sum(_compressed(band, settings) for band in _bands(audio, settings)))
    audio = audio * linear(settings.level_db - loudness(audio.sum(axis=0)))
    audio = audio * bus_gain(audio.sum(axis=0), 0.0, 1.0, settings.ceiling)
    peak = max(float(np.abs(audio).max()), float(np.abs(audio.sum(axis=0)).max()), 1e-9)
    audio = audio * np.float32(min(1.0, LOUDEST / peak))
    return {name: np.asarray(part, np.float32) for name, part in zip(names, audio, strict=True)}


def _equalized(audio: Audio, settings: Mastering) -> Audio:
    audio = shelf(audio, 120.0, settings.low_db, True)
    audio = bell(audio, settings.middle_hertz, settings.middle_db, 0.7)
    return shelf(audio, 7000.0, settings.high_db, False)


def _bands(audio: Audio, settings: Mastering) -> tuple[Audio, Audio, Audio]:
    """Split by filters without delay; the bands' sum is what came in."""
    low = _low_pass(audio, settings.crossover[0])
    high = audio - _low_pass(audio, settings.crossover[1])
    return low, audio - low - high, high


def _low_pass(audio: Audio, hertz: float) -> Audio:
    sos = signal.butter(2, hertz, fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfiltfilt(sos, audio, axis=-1), dtype=np.float32)


def _compressed(band: Audio, settings: Mastering) -> Audio:
    mixture = band.sum(axis=0)
    threshold = loudness(mixture) + settings.above_db
    return band * bus_gain(mixture, threshold, settings.ratio, np.inf)
