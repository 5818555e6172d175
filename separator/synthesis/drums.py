"""Drum kits: every drum is synthesised once per kit, in a few variations, then placed.

A drum is a pitch that falls, modes of a skin or a plate, and filtered noise with its own decay;
acoustic, electronic and 808-like kits are regions of the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from separator.synthesis.oscillators import SAMPLE_RATE, Audio, filtered, modes, noise, samples
from separator.synthesis.score import (
    CLAP,
    COWBELL,
    CRASH,
    HAT,
    HIGH_CONGA,
    HIGH_TOM,
    KICK,
    LOW_CONGA,
    LOW_TOM,
    MID_TOM,
    OPEN_HAT,
    PEDAL_HAT,
    RIDE,
    SHAKER,
    SNARE,
    STICK,
    TAMBOURINE,
    Note,
)

Drum = Callable[[Generator], Audio]
VARIATIONS = 3


def _decay(length: int, fall: float) -> Audio:
    """Fall by 60 dB in `fall` seconds."""
    return np.exp(-6.9 / fall * np.arange(length, dtype=np.float32) / SAMPLE_RATE)


def _swept(start: float, end: float, bend: float, fall: float) -> Audio:
    """A sine whose pitch falls from `start` to `end` Hz, `bend` seconds being the time constant."""
    length = samples(fall)
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    turns = end * time + (start - end) * bend * (1.0 - np.exp(-time / bend))
    return np.asarray(np.sin(2 * np.pi * turns) * _decay(length, fall), dtype=np.float32)


def _burst(rng: Generator, band: tuple[float, float], fall: float) -> Audio:
    """Band-passed noise that decays, of unit peak."""
    length = samples(fall)
    sound = filtered(noise(rng, length), "bandpass", band, 1) * _decay(length, fall)
    return np.asarray(sound / (np.abs(sound).max() + 1e-9), dtype=np.float32)


def _mixed(*sounds: Audio) -> Audio:
    out = np.zeros(max(len(sound) for sound in sounds), dtype=np.float32)
    for sound in sounds:
        out[: len(sound)] += sound
    return out


def _jitter(rng: Generator, value: float, amount: float = 0.03) -> float:
    return float(value * (1.0 + amount * rng.normal()))


def _kick(rng: Generator) -> Drum:
    end = rng.uniform(38, 68)
    start, bend = end * rng.uniform(2, 7), rng.uniform(0.008, 0.05)
    fall = float(np.exp(rng.uniform(np.log(0.15), np.log(1.1))))
    click, top = rng.uniform(0, 0.5), rng.uniform(2000, 7000)
    drive = rng.uniform(0.5, 4)

    def strike(rng: Generator) -> Audio:
        tone = np.tanh(drive * _swept(_jitter(rng, start), end, bend, fall)) / np.tanh(drive)
        return _mixed(tone, click * _burst(rng, (400, top), 0.02))

    return strike


def _snare(rng: Generator) -> Drum:
    pitch, fall = rng.uniform(140, 300), rng.uniform(0.08, 0.35)
    wires, band = rng.uniform(0.4, 1.5), (rng.uniform(200, 1500), rng.uniform(6000, 14000))
    tone, length = rng.uniform(0.2, 1.0), rng.uniform(0.12, 0.45)
    ratios = np.array([1.0, 1.59, 2.14, 2.65], dtype=np.float32)

    def strike(rng: Generator) -> Audio:
        gains = np.array([1.0, 0.5, 0.3, 0.2], dtype=np.float32) * tone
        falls = np.full(4, fall, dtype=np.float32) / ratios
        skin = modes(_jitter(rng, pitch) * ratios, gains, falls, samples(fall))
        knock = 0.5 * _swept(pitch * 2, pitch, 0.01, fall * 0.7)
        return _mixed(skin, knock, wires * _burst(rng, band, length))

    return strike


def _tom(low: float, high: float) -> Callable[[Generator], Drum]:
    def draw(rng: Generator) -> Drum:
        pitch, fall = rng.uniform(low, high), rng.uniform(0.2, 0.8)
        bend, skin = rng.uniform(1.1, 1.8), rng.uniform(0.05, 0.4)

        def strike(rng: Generator) -> Audio:
            tone = _swept(pitch * bend, _jitter(rng, pitch), 0.06, fall)
            over = 0.3 * _swept(pitch * 1.7 * bend, pitch * 1.6, 0.05, fall * 0.4)
            return _mixed(tone, over, skin * _burst(rng, (300, 5000), 0.06))

        return strike

    return draw


def _metal(rng: Generator, low: float, count: int) -> tuple[Audio, Audio]:
    frequencies = np.exp(rng.uniform(np.log(low), np.log(15000), count)).astype(np.float32)
    return frequencies, rng.uniform(0.2, 1.0, count).astype(np.float32)


def _cymbal(lows: tuple[float, float], falls: tuple[float, float]) -> Callable[[Generator], Drum]:
    """Hats, rides and crashes: many modes of a plate under high-passed noise."""

    def draw(rng: Generator) -> Drum:
        low = rng.uniform(*lows)
        fall = float(np.exp(rng.uniform(np.log(falls[0]), np.log(falls[1]))))
        frequencies, gains = _metal(rng, low, 24)
        metal, hiss = rng.uniform(0.02, 0.25), rng.uniform(0.3, 1.0)
        attack = samples(rng.uniform(0.0005, 0.004))

        def strike(rng: Generator) -> Audio:
            decays = np.full(len(frequencies), fall, np.float32) * rng.uniform(0.3, 1, 24)
            plate = modes(frequencies, gains * metal, decays.astype(np.float32), samples(fall))
            sound = _mixed(plate, hiss * _burst(rng, (low, 16000), fall))
            sound = filtered(sound, "highpass", low * 0.7)
            sound[:attack] *= np.linspace(0, 1, attack, dtype=np.float32)[: len(sound)]
            return sound

        return strike

    return draw


def _clap(rng: Generator) -> Drum:
    centre, width = rng.uniform(900, 2200), rng.uniform(1.3, 2.5)
    gaps, tail = rng.uniform(0.006, 0.016, 3), rng.uniform(0.08, 0.3)

    def strike(rng: Generator) -> Audio:
        out = np.zeros(samples(tail + 0.06), dtype=np.float32)
        starts = np.concatenate([[0.0], np.cumsum(gaps)])
        for i, start in enumerate(starts):
            hand = _burst(rng, (centre / width, centre * width), tail if i == 3 else 0.012)
            at = int(start * SAMPLE_RATE)
            out[at : at + len(hand)] += hand[: len(out) - at]
        return out

    return strike


def _short_noise(
    lows: tuple[float, float], falls: tuple[float, float]
) -> Callable[[Generator], Drum]:
    def draw(rng: Generator) -> Drum:
        low, fall = rng.uniform(*lows), rng.uniform(*falls)
        swell = rng.uniform(0.002, 0.02)

        def strike(rng: Generator) -> Audio:
            sound = _burst(rng, (low, 14000), fall)
            rise = samples(swell)
            sound[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)[: len(sound)]
            return sound

        return strike

    return draw


def _tuned(
    lows: tuple[float, float], ratios: tuple[float, ...], fall: float
) -> Callable[[Generator], Drum]:
    """Cowbells, sticks and congas: a few modes and a knock."""

    def draw(rng: Generator) -> Drum:
        pitch = rng.uniform(*lows)
        spread = np.asarray(ratios) * rng.uniform(0.95, 1.05, len(ratios))
        falls = fall * rng.uniform(0.6, 1.4) / np.sqrt(spread)
        knock = rng.uniform(0.1, 0.5)

        def strike(rng: Generator) -> Audio:
            ring = modes(
                (_jitter(rng, pitch, 0.01) * spread).astype(np.float32),
                (1.0 / spread).astype(np.float32),
                falls.astype(np.float32),
                samples(float(falls.max())),
            )
            return _mixed(ring, knock * _burst(rng, (500, 8000), 0.012))

        return strike

    return draw


# Drum -> (what draws it, its level against the snare, how far it may be panned).
_DRUMS: dict[int, tuple[Callable[[Generator], Drum], float, float]] = {
    KICK: (_kick, 1.1, 0.0),
    STICK: (_tuned((400, 1800), (1.0, 2.3, 4.1), 0.06), 0.5, 0.2),
    SNARE: (_snare, 0.7, 0.1),
    CLAP: (_clap, 0.6, 0.3),
    HAT: (_cymbal((3000, 7500), (0.03, 0.12)), 0.3, 0.4),
    PEDAL_HAT: (_cymbal((3000, 7500), (0.04, 0.1)), 0.25, 0.4),
    OPEN_HAT: (_cymbal((2500, 7000), (0.2, 0.7)), 0.3, 0.4),
    LOW_TOM: (_tom(65, 95), 0.8, 0.6),
    MID_TOM: (_tom(95, 140), 0.8, 0.4),
    HIGH_TOM: (_tom(130, 210), 0.8, 0.6),
    CRASH: (_cymbal((800, 3500), (1.0, 3.0)), 0.45, 0.7),
    RIDE: (_cymbal((1500, 4500), (0.4, 1.6)), 0.3, 0.7),
    TAMBOURINE: (_cymbal((4500, 8000), (0.08, 0.25)), 0.25, 0.6),
    COWBELL: (_tuned((500, 900), (1.0, 1.48, 2.6), 0.25), 0.35, 0.5),
    HIGH_CONGA: (_tuned((250, 420), (1.0, 1.6, 2.3), 0.25), 0.5, 0.6),
    LOW_CONGA: (_tuned((150, 260), (1.0, 1.6, 2.3), 0.35), 0.5, 0.6),
    SHAKER: (_short_noise((3000, 7000), (0.04, 0.12)), 0.25, 0.6),
}


class DrumKit:
    """A kit drawn from a generator; drums are made when they are first struck."""

    def __init__(self, rng: Generator) -> None:
        self._seeds = {drum: int(rng.integers(2**31)) for drum in _DRUMS}
        self._made: dict[int, list[Audio]] = {}
        self._pans = {drum: rng.uniform(-pan, pan) for drum, (_, _, pan) in _DRUMS.items()}
        self._levels = {
            drum: level * rng.uniform(0.6, 1.5) for drum, (_, level, _) in _DRUMS.items()
        }

    def strikes(self, drum: int) -> list[Audio]:
        """Return the variations of one drum, each `(2, time)`."""
        if drum not in self._made:
            rng = np.random.default_rng(self._seeds[drum])
            strike = _DRUMS[drum][0](rng)
            angle = np.pi / 4 * (1.0 + self._pans[drum])
            sides = np.array([[np.cos(angle)], [np.sin(angle)]], dtype=np.float32)
            level = np.float32(self._levels[drum])
            self._made[drum] = [level * sides * _faded(strike(rng)) for _ in range(VARIATIONS)]
        return self._made[drum]

    def play(self, notes: tuple[Note, ...], length: int, rng: Generator) -> Audio:
        """Play hits into a stretch of `(2, length)` samples."""
        out = np.zeros((2, length), dtype=np.float32)
        for note in notes:
            strikes = self.strikes(int(note.pitch))
            sound = strikes[int(rng.integers(len(strikes)))]
            start = int(note.start * SAMPLE_RATE)
            used = min(sound.shape[1], length - start)
            out[:, start : start + used] += np.float32(note.velocity) * sound[:, :used]
        return out


def _faded(sound: Audio) -> Audio:
    tail = min(len(sound), 256)
    sound[-tail:] *= np.linspace(1, 0, tail, dtype=np.float32)
    return sound
