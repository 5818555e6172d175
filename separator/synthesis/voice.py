"""A singing or rapping voice: a glottal source at its pitch under a vocal tract's envelope.

The source is a harmonic wave with portamento, vibrato and jitter, plus breath. The tract is a track
of spectral envelopes: vowels as five resonances with consonants between them, or the envelopes of
speech when `espeak-ng` is installed, stretched so that each syllable falls on a note. The tract is
applied frame by frame in the short-time spectrum.

Reference: Klatt (1980), Software for a cascade/parallel formant synthesizer; vowel formants after
Peterson and Barney (1952).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from scipy import fft
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

from separator.synthesis.oscillators import (
    SAMPLE_RATE,
    Audio,
    frames_of,
    noise,
    phase_of,
    read_table,
)
from separator.synthesis.score import Note

N_FFT, HOP = 1024, 256
FREQUENCIES = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)

# First three formants in Hz of a male voice; a fourth and fifth are added by the singer.
VOWELS: dict[str, tuple[float, float, float]] = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "ae": (660, 1720, 2410),
    "uh": (640, 1190, 2390),
    "er": (490, 1350, 1690),
}
# Consonants: (voiced part, noise part, centre of the noise in Hz, its width, seconds).
CONSONANTS: dict[str, tuple[float, float, float, float, float]] = {
    "": (1.0, 0.0, 1000, 1, 0.0),
    "s": (0.0, 0.5, 7500, 0.35, 0.10),
    "sh": (0.0, 0.5, 3500, 0.35, 0.10),
    "f": (0.0, 0.25, 6000, 0.9, 0.08),
    "t": (0.0, 0.7, 4500, 0.6, 0.04),
    "k": (0.0, 0.6, 2000, 0.5, 0.05),
    "p": (0.0, 0.5, 900, 0.9, 0.04),
    "m": (0.3, 0.0, 1000, 1, 0.07),
    "n": (0.35, 0.0, 1000, 1, 0.06),
    "l": (0.5, 0.0, 1000, 1, 0.06),
    "d": (0.1, 0.3, 3500, 0.6, 0.03),
    "b": (0.1, 0.2, 800, 0.9, 0.03),
    "h": (0.0, 0.2, 1800, 1.0, 0.07),
    "z": (0.4, 0.3, 7000, 0.35, 0.08),
}


@dataclass(frozen=True)
class Tract:
    """What a voice does over time: a spectral envelope, voicing and noise per frame."""

    envelope: Audio  # (frames, bins), of the voiced sound
    hiss: Audio  # (frames, bins), of the noise


@dataclass(frozen=True)
class Singer:
    """The parameters of one voice. `size` scales all formants: above 1 for a shorter tract."""

    size: float
    tilt: float
    vibrato_cents: float
    vibrato_hertz: float
    glide: float
    jitter: float
    breath: float
    width: float
    high_formants: tuple[float, float]
    octave: int

    @classmethod
    def draw(cls, rng: Generator) -> Singer:
        """Draw a voice: low and large, high and small, or between."""
        female = bool(rng.random() < 0.5)
        return cls(
            size=rng.uniform(1.1, 1.3) if female else rng.uniform(0.88, 1.08),
            tilt=rng.uniform(0.8, 1.8),
            vibrato_cents=float(rng.choice((0.0, 1.0, 1.0))) * rng.uniform(10, 60),
            vibrato_hertz=rng.uniform(4.5, 6.8),
            glide=rng.uniform(0.02, 0.12),
            jitter=rng.uniform(2, 12),
            breath=rng.uniform(0.005, 0.08),
            width=rng.uniform(0.8, 1.4),
            high_formants=(rng.uniform(3100, 3700), rng.uniform(4000, 5200)),
            octave=0 if female else -12,
        )

    def speaking(self) -> Singer:
        """Return the same voice when it raps: its pitch follows the words and never rests."""
        return replace(self, vibrato_cents=0.0, glide=0.08, jitter=self.jitter + 8)


def pitch_curve(singer: Singer, notes: tuple[Note, ...], length: int, rng: Generator) -> Audio:
    """Return Hz per sample: notes joined by glides, with vibrato that sets in late and jitter."""
    steps = np.full(length // HOP + 2, notes[0].pitch, dtype=np.float32)
    age = np.zeros_like(steps)
    for note in notes:
        start = int(note.start * SAMPLE_RATE / HOP)
        steps[start:] = note.pitch
        age[start:] = np.arange(len(steps) - start) * (HOP / SAMPLE_RATE)
    keep = float(np.exp(-HOP / SAMPLE_RATE / singer.glide * 3))
    smooth = _one_pole(steps, keep)
    time = np.arange(len(steps)) * (HOP / SAMPLE_RATE)
    vibrato = (
        np.sin(2 * np.pi * singer.vibrato_hertz * time + rng.uniform(0, 6))
        * np.clip(age - 0.2, 0, 0.4)
        / 0.4
    )
    drift = _one_pole(rng.normal(0, 1, len(steps)).astype(np.float32), 0.97) * 4
    cents = singer.vibrato_cents * vibrato + singer.jitter * drift
    pitch = smooth + singer.octave + cents / 100.0
    curve = np.interp(np.arange(length) / HOP, np.arange(len(pitch)), pitch)
    return np.asarray(440.0 * 2.0 ** ((curve - 69.0) / 12.0), dtype=np.float32)


def _one_pole(values: Audio, keep: float) -> Audio:
    start = np.array([values[0] * keep])
    out, _ = lfilter([1.0 - keep], [1.0, -keep], values, zi=start)
    return np.asarray(out, dtype=np.float32)


def glottal_wave(singer: Singer, hertz: Audio, rng: Generator) -> Audio:
    """Make the source: harmonics that fall by `tilt`, band-limited for the highest pitch sung."""
    count = max(int(16000 // float(hertz.max())), 1)
    number = np.arange(1, count + 1, dtype=np.float64)
    table = frames_of((number**-singer.tilt)[None], rng.uniform(-0.3, 0.3, count))
    wave = read_table(table, phase_of(hertz, len(hertz), rng.random()))
    return np.asarray(wave / np.float32(np.sqrt(np.mean(table**2))), dtype=np.float32)


def vowel_envelope(vowel: str, singer: Singer) -> Audio:
    """Return the tract's response over the bins: resonances of one vowel, about unit peak."""
    first = [formant * singer.size for formant in VOWELS[vowel]]
    centres = [*first, *(formant * singer.size for formant in singer.high_formants)]
    widths = np.array([80, 100, 130, 180, 250]) * singer.width
    gains = np.array([1.0, 0.7, 0.45, 0.35, 0.2])
    response = np.full(len(FREQUENCIES), 0.012)
    for centre, width, gain in zip(centres, widths, gains, strict=True):
        response += gain / np.sqrt(1.0 + ((FREQUENCIES - centre) / width) ** 2)
    return response.astype(np.float32)


def _hiss_envelope(centre: float, width: float) -> Audio:
    octaves = np.log(np.maximum(FREQUENCIES, 20.0) / centre)
    return np.asarray(np.exp(-0.5 * (octaves / width) ** 2), dtype=np.float32)


def sung_vowels(singer: Singer, notes: tuple[Note, ...], length: int, rng: Generator) -> Tract:
    """Sing nonsense: a consonant and a vowel for every note, sliding from one to the next."""
    frames = length // HOP + 1
    envelope = np.zeros((frames, len(FREQUENCIES)), dtype=np.float32)
    hiss = np.zeros_like(envelope)
    vowels = {name: vowel_envelope(name, singer) for name in VOWELS}
    names, consonants = list(VOWELS), list(CONSONANTS)
    for note in notes:
        voiced, rough, centre, width, lasts = CONSONANTS[
            consonants[int(rng.integers(len(consonants)))]
        ]
        first, second = (vowels[names[int(i)]] for i in rng.integers(len(names), size=2))
        start = int(note.start * SAMPLE_RATE / HOP)
        end = min(start + max(int(note.duration * SAMPLE_RATE / HOP), 3), frames)
        blend = np.linspace(0, 1, end - start, dtype=np.float32)[:, None] ** 2
        envelope[start:end] = note.velocity * (first * (1 - blend * 0.7) + second * blend * 0.7)
        onset = slice(start, min(start + int(lasts * SAMPLE_RATE / HOP), end))
        envelope[onset] *= voiced
        hiss[onset] += rough * note.velocity * _hiss_envelope(centre, width)
    hiss += singer.breath * envelope
    return Tract(_smoothed(envelope), _smoothed(hiss, 3))


def _smoothed(track: Audio, size: int = 7) -> Audio:
    return np.asarray(uniform_filter1d(track, size, axis=0), dtype=np.float32)


def sing(
    singer: Singer, notes: tuple[Note, ...], tract: Tract, length: int, rng: Generator
) -> Audio:
    """Sing notes into a mono stretch of `(length,)` samples."""
    hertz = pitch_curve(singer, notes, length, rng)
    voiced = _shape(glottal_wave(singer, hertz, rng), tract.envelope, length)
    return voiced + _shape(noise(rng, length), tract.hiss, length)


def _shape(source: Audio, envelope: Audio, length: int) -> Audio:
    """Multiply a source's short-time spectrum by an envelope `(frames, bins)`."""
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    frames = length // HOP + 1
    padded = np.pad(source, (N_FFT // 2, N_FFT))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP][:frames]
    shaped = fft.irfft(fft.rfft(pieces * window) * envelope[:frames]) * window
    out = np.zeros(frames * HOP + N_FFT, dtype=np.float32)
    for offset in range(N_FFT // HOP):  # frames that many apart don't overlap
        part = shaped[offset :: N_FFT // HOP].astype(np.float32).ravel()
        out[offset * HOP : offset * HOP + len(part)] += part
    return out[N_FFT // 2 : N_FFT // 2 + length] * np.float32(1 / 1.5)


def phrases(notes: tuple[Note, ...], gap: float = 0.25) -> list[tuple[Note, ...]]:
    """Cut a melody where the singer breathes: at rests of `gap` seconds or more."""
    groups: list[list[Note]] = []
    for note in sorted(notes, key=lambda n: n.start):
        if groups and note.start - (groups[-1][-1].start + groups[-1][-1].duration) < gap:
            groups[-1].append(note)
        else:
            groups.append([note])
    return [tuple(group) for group in groups]
