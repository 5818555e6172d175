"""Three ways to make a note: a moving wavetable, decaying modes, frequency modulation.

Each class holds the parameters of one timbre and renders notes as float32 `(2, time)` at 44.1 kHz.

Reference: Karplus and Strong (1983), Digital synthesis of plucked-string and drum timbres;
Chowning (1973), The synthesis of complex audio spectra by means of frequency modulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator

from separator.synthesis.oscillators import (
    SAMPLE_RATE,
    Audio,
    Envelope,
    filtered,
    frames_of,
    harmonics_below,
    modes,
    noise,
    phase_of,
    read_table,
    samples,
)

FM_TOP_HZ = 16000.0


class Instrument(Protocol):
    """Anything that turns a note into sound."""

    def render(self, hertz: float, duration: float, velocity: float, rng: Generator) -> Audio:
        """Return `(2, time)`: the note and its release."""


@dataclass(frozen=True)
class Wavetable:
    """Harmonics that pass a moving low-pass, in several detuned voices.

    `rolloff` is the slope of the spectrum (1: saw, 2: triangle), `odd` the level of the even
    harmonics' absence, `comb` the place at which a string is plucked (0: nowhere). `bright` and
    `dull` are the filter's ends in harmonics, `sweep` the seconds from one to the other (negative:
    it opens). `damping` makes higher harmonics die faster, as on a string. `body` holds resonances
    (Hz, gain, relative width).
    """

    envelope: Envelope
    rolloff: float = 1.0
    odd: float = 0.0
    comb: float = 0.0
    bright: float = 60.0
    dull: float = 8.0
    sweep: float = 0.3
    slope: float = 4.0
    damping: float = 0.0
    body: tuple[tuple[float, float, float], ...] = ()
    partials: tuple[float, ...] = ()
    voices: int = 1
    detune: float = 0.0
    width: float = 0.0
    vibrato_cents: float = 0.0
    vibrato_hertz: float = 5.0
    tremolo: float = 0.0
    breath: float = 0.0
    drive: float = 0.0

    frame_count = 6

    def render(self, hertz: float, duration: float, velocity: float, rng: Generator) -> Audio:
        """Return `(2, time)`: the note and its release."""
        gain = self.envelope.curve(duration) * np.float32(velocity)
        length = len(gain)
        table = self._frames(hertz, velocity, rng)
        position = self._position(length)
        pitch = self._pitch(hertz, length, rng)
        out = np.zeros((2, length), dtype=np.float32)
        for voice in range(self.voices):
            place = 2.0 * (voice + 0.5) / self.voices - 1.0 if self.voices > 1 else 0.0
            cents = self.detune * (place + 0.2 * rng.normal())
            phase = phase_of(pitch, length) * 2.0 ** (cents / 1200.0) + rng.random()
            sound = read_table(table, phase, position)
            angle = np.pi / 4 * (1.0 + self.width * place)
            out += np.outer([np.cos(angle), np.sin(angle)], sound).astype(np.float32)
        out *= np.float32(1.0 / np.sqrt(self.voices))
        if self.breath:
            out += np.float32(self.breath) * _breath(hertz, length, rng)
        if self.drive:
            out = np.tanh(out * np.float32(self.drive)) / np.float32(np.sqrt(self.drive))
        return np.asarray(out * gain * self._tremolo(length), dtype=np.float32)

    def _frames(self, hertz: float, velocity: float, rng: Generator) -> Audio:
        count = harmonics_below(hertz)
        number = np.arange(1, count + 1, dtype=np.float64)
        level = number**-self.rolloff
        if self.partials:
            level = np.zeros(count)
            level[: len(self.partials)] = self.partials[:count]
        level[1::2] *= 1.0 - self.odd
        if self.comb:
            level *= np.abs(np.sin(np.pi * number * self.comb)) + 0.02
        for centre, gain, width in self.body:
            level *= 1.0 + gain * np.exp(-0.5 * ((number * hertz / centre - 1.0) / width) ** 2)
        reach = 0.6 + 0.6 * velocity
        cutoffs = np.geomspace(self.bright * reach, self.dull * reach, self.frame_count)
        low_pass = 1.0 / (1.0 + (number / cutoffs[:, None]) ** self.slope)
        frames = level * low_pass * np.exp(-self.damping * number * np.arange(6.0)[:, None])
        frames /= np.sqrt(np.sum(frames[:1] ** 2)) + 1e-9
        return frames_of(frames, rng.uniform(-0.5, 0.5, count))

    def _position(self, length: int) -> Audio:
        """Move through the frames: from bright to dull, or the other way for a negative sweep."""
        time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
        left = np.exp(-time / abs(self.sweep))
        moved = left if self.sweep < 0 else 1.0 - left
        return np.asarray((self.frame_count - 1) * moved, dtype=np.float32)

    def _pitch(self, hertz: float, length: int, rng: Generator) -> float | Audio:
        if not self.vibrato_cents:
            return float(hertz)
        time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
        rise = np.minimum(time / 0.4, 1.0)
        wave = np.sin(2 * np.pi * (self.vibrato_hertz * time + rng.random()))
        return np.asarray(hertz * 2.0 ** (self.vibrato_cents / 1200.0 * rise * wave), np.float32)

    def _tremolo(self, length: int) -> Audio | np.float32:
        if not self.tremolo:
            return np.float32(1.0)
        time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
        wave = np.sin(2 * np.pi * self.vibrato_hertz * time)
        return np.asarray(1.0 - self.tremolo * 0.5 * (1.0 + wave), dtype=np.float32)


@dataclass(frozen=True)
class Struck:
    """Decaying inharmonic modes: bars, bells, tines. Ratios are relative to the pitch."""

    ratios: tuple[float, ...]
    gains: tuple[float, ...]
    decay: float
    knock: float
    damped: bool
    spread: float

    def render(self, hertz: float, duration: float, velocity: float, rng: Generator) -> Audio:
        """Return `(2, time)`: the note and its ringing."""
        ring = self.decay * float((440.0 / hertz) ** 0.4)
        length = samples(min(duration + 0.25, ring) if self.damped else min(ring, 3.0))
        ratios = np.asarray(self.ratios, dtype=np.float32)
        gains = np.asarray(self.gains, dtype=np.float32) * velocity ** np.sqrt(ratios)
        decays = np.asarray(ring / ratios**0.7, dtype=np.float32)
        sound = modes(hertz * ratios, gains.astype(np.float32), decays, length)
        hit = samples(0.02)
        sound[:hit] += self.knock * noise(rng, hit)[:length] * np.linspace(1, 0, hit)[:length] ** 2
        fade = min(samples(0.03), length)
        sound[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        pan = rng.uniform(-self.spread, self.spread)
        return np.outer([1.0 - pan, 1.0 + pan], sound * velocity).astype(np.float32)


@dataclass(frozen=True)
class Modulated:
    """A two-operator FM tone whose index decays."""

    envelope: Envelope
    ratio: float
    index: float
    decay: float
    floor: float
    width: float

    def render(self, hertz: float, duration: float, velocity: float, rng: Generator) -> Audio:
        """Return `(2, time)`: the note and its release."""
        gain = self.envelope.curve(duration) * np.float32(velocity)
        time = np.arange(len(gain), dtype=np.float32) / SAMPLE_RATE
        most = max(0.5, (FM_TOP_HZ / hertz - 1.0) / self.ratio - 1.0)  # Carson's bandwidth
        depth = min(self.index * (0.5 + velocity), most)
        index = depth * (self.floor + (1 - self.floor) * np.exp(-time / self.decay))
        out = np.empty((2, len(gain)), dtype=np.float32)
        for channel, sign in enumerate((-1.0, 1.0)):
            turn = (2 * np.pi * hertz * (1.0 + sign * self.width * 0.001)) * time
            out[channel] = np.sin(turn + index * np.sin(self.ratio * turn)) * gain
        return out


def _breath(hertz: float, length: int, rng: Generator) -> Audio:
    return filtered(noise(rng, 2 * length).reshape(2, length), "bandpass", (hertz, 6 * hertz), 1)
