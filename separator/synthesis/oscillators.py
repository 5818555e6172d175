"""Sound sources: wavetables that change over time, decaying modes, FM pairs, envelopes, noise.

A wavetable note is a stack of single periods ("frames"), each built from a list of harmonics, and a
position that moves through the stack: filter sweeps, damped strings and swelling brass are all
paths through frames. Harmonics above 18 kHz are never put into a frame, so nothing aliases.
Arrays are float32, `(time,)` or `(2, time)`, at 44.1 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

SAMPLE_RATE = 44100
TABLE = 2048  # samples in one period of a wavetable
TOP_HZ = 18000.0

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Envelope:
    """Attack, decay and release in seconds; `sustain` is the level held after the decay."""

    attack: float
    decay: float
    sustain: float
    release: float

    def curve(self, duration: float) -> Audio:
        """Return the gain of a note of `duration` seconds, its release included.

        >>> float(Envelope(0.01, 0.1, 0.5, 0.2).curve(1.0)[22050].round(2))
        0.5
        """
        held = seconds(duration)
        time = held / SAMPLE_RATE
        gain = self.sustain + (1.0 - self.sustain) * np.exp(
            -np.maximum(time - self.attack, 0.0) / self.decay
        )
        gain *= np.minimum(time / max(self.attack, 1e-4), 1.0)
        tail = np.exp(-5.0 * np.linspace(0.0, 1.0, samples(self.release), dtype=np.float32))
        tail = (tail - tail[-1]) / (1.0 - tail[-1])
        return np.concatenate([gain, gain[-1] * tail]).astype(np.float32)


def samples(duration: float) -> int:
    """Convert seconds to samples, two at least."""
    return max(int(duration * SAMPLE_RATE), 2)


def seconds(duration: float) -> Audio:
    """Return the sample indices of a stretch of time, as float32."""
    return np.arange(samples(duration), dtype=np.float32)


def frames_of(harmonics: NDArray[np.float64], phases: NDArray[np.float64]) -> Audio:
    """Turn harmonic amplitudes `(frames, harmonics)` into periods `(frames, TABLE)`."""
    spectrum = np.zeros((harmonics.shape[0], TABLE // 2 + 1), dtype=np.complex128)
    count = min(harmonics.shape[1], TABLE // 2 - 1)
    spectrum[:, 1 : count + 1] = harmonics[:, :count] * np.exp(1j * phases[:count])
    return np.fft.irfft(spectrum * (TABLE / 2), axis=-1).astype(np.float32)


def harmonics_below(frequency: float, most: int = 400) -> int:
    """Count the harmonics of a tone that fit under `TOP_HZ`.

    >>> harmonics_below(6000.0)
    3
    """
    return int(np.clip(TOP_HZ // max(frequency, 1.0), 1, most))


def read_table(frames: Audio, phase: NDArray[np.float64], position: Audio | float = 0.0) -> Audio:
    """Read a wavetable at `phase` (periods), cross-fading between the frames around `position`."""
    index = (phase * TABLE).astype(np.int64) & (TABLE - 1)
    if len(frames) == 1:
        return np.asarray(frames[0, index])
    place = np.clip(np.asarray(position, dtype=np.float32), 0.0, len(frames) - 1.001)
    below = place.astype(np.int64)
    fade = place - below
    flat = frames.ravel()
    offset = below * TABLE + index
    low = flat[offset]
    return np.asarray(low + fade * (flat[offset + TABLE] - low))


def phase_of(frequency: float | Audio, length: int, start: float = 0.0) -> NDArray[np.float64]:
    """Integrate a frequency in Hz (a number or a curve) to a phase in periods."""
    if isinstance(frequency, float):
        return np.asarray(start + np.arange(length) * (frequency / SAMPLE_RATE))
    return np.asarray(start + np.cumsum(frequency[:length], dtype=np.float64) / SAMPLE_RATE)


def modes(frequencies: Audio, gains: Audio, decays: Audio, length: int) -> Audio:
    """Sum decaying sines: `decays` are the seconds in which each falls by 60 dB."""
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    out = np.zeros(length, dtype=np.float32)
    for frequency, gain, decay in zip(frequencies, gains, decays, strict=True):
        if frequency < TOP_HZ:
            used = min(length, samples(float(decay) * 1.2))
            part = time[:used]
            turn = np.float32(2 * np.pi * frequency) * part
            out[:used] += gain * np.exp(np.float32(-6.9 / decay) * part) * np.sin(turn)
    return out


def noise(rng: np.random.Generator, length: int) -> Audio:
    """Return white noise of unit variance."""
    return rng.standard_normal(length, dtype=np.float32)


def filtered(audio: Audio, kind: str, cutoff: float | tuple[float, float], order: int = 2) -> Audio:
    """Apply a Butterworth filter along the last axis; cut-offs in Hz."""
    limit = 0.49 * SAMPLE_RATE
    edges = np.clip(np.asarray(cutoff), 10.0, limit)
    sos = signal.butter(order, edges, kind, fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(sos, audio, axis=-1), dtype=np.float32)
