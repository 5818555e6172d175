"""Recordings as instruments: one-shots at any pitch, drum kits, loops cut and put in a new order.

Audio is float32 `(2, time)` at 44.1 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from scipy import signal

from separator.synthesis.oscillators import SAMPLE_RATE, Audio, filtered
from separator.synthesis.score import Note

FADE = 220  # samples, at both ends of whatever is cut
QUIET = 0.003  # of the peak: what a recording's ends are trimmed to


def load(path: Path) -> Audio:
    """Read a recording: `(2, time)` of unit peak, without its silent ends and rumble."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = audio.T[:2] if audio.shape[1] > 1 else np.repeat(audio.T, 2, axis=0)
    if rate != SAMPLE_RATE:
        audio = signal.resample_poly(audio, SAMPLE_RATE, rate, axis=-1)
    audio = filtered(audio - audio.mean(axis=1, keepdims=True), "highpass", 25.0)
    peak = float(np.abs(audio).max(initial=0.0))
    loud = np.flatnonzero(np.abs(audio).max(axis=0) > QUIET * peak)
    if peak < 1e-5 or len(loud) == 0:
        return np.zeros((2, 1), dtype=np.float32)
    return np.asarray(audio[:, loud[0] : loud[-1] + 1] / peak, dtype=np.float32)


def faster(audio: Audio, ratio: float) -> Audio:
    """Play a recording `ratio` times as fast, and so higher.

    >>> faster(np.ones((2, 1000), np.float32), 2.0).shape
    (2, 500)
    """
    step = Fraction(ratio).limit_denominator(60)
    if step == 1:
        return audio
    played = signal.resample_poly(audio, step.denominator, step.numerator, axis=-1)
    return np.asarray(played, dtype=np.float32)


def faded(audio: Audio, length: int | None = None) -> Audio:
    """Cut to `length` samples and fade the end, so that no cut clicks."""
    cut = audio[:, :length].copy()
    tail = min(FADE, cut.shape[1])
    cut[:, cut.shape[1] - tail :] *= np.linspace(1, 0, tail, dtype=np.float32)
    return cut


def add(out: Audio, sound: Audio, start: int) -> None:
    """Add a sound into a stretch from a sample on, as far as it fits."""
    used = min(sound.shape[1], out.shape[1] - start)
    if used > 0:
        out[:, start : start + used] += sound[:, :used]


@dataclass(frozen=True)
class OneShot:
    """A recording of one tone, and the MIDI pitch that it has."""

    audio: Audio
    pitch: float

    def play(self, notes: tuple[Note, ...], length: int) -> Audio:
        """Play notes by changing the speed, each as long as it is written or the tone lasts."""
        out = np.zeros((2, length), dtype=np.float32)
        tones: dict[int, Audio] = {}
        for note in notes:
            shift = round(note.pitch - self.pitch)
            if shift not in tones:
                tones[shift] = faster(self.audio, 2.0 ** (shift / 12))
            held = int((note.duration + 0.03) * SAMPLE_RATE)
            sound = faded(tones[shift], held) * np.float32(note.velocity)
            add(out, sound, int(note.start * SAMPLE_RATE))
        return out


@dataclass(frozen=True)
class Kit:
    """Recorded drums by MIDI key; `pans` and `gains` place each in the kit."""

    drums: dict[int, list[Audio]]
    pans: dict[int, float]
    gains: dict[int, float]

    def play(self, notes: tuple[Note, ...], length: int, rng: Generator) -> Audio:
        """Play hits; no two of a drum are quite alike."""
        out = np.zeros((2, length), dtype=np.float32)
        for note in notes:
            key = int(note.pitch)
            if key not in self.drums:
                continue
            takes = self.drums[key]
            take = takes[int(rng.integers(len(takes)))]
            loud = self.gains[key] * note.velocity * rng.uniform(0.9, 1.1)
            angle = np.pi / 4 * (1.0 + self.pans[key])
            sides = np.sqrt(2.0) * np.array([[np.cos(angle)], [np.sin(angle)]])
            add(out, take * (loud * sides).astype(np.float32), int(note.start * SAMPLE_RATE))
        return out


def resequence(loop: Audio, tempo: float, bars: list[bool], length: int, rng: Generator) -> Audio:
    """Cut a drum loop into eighths and play them in a new order at another tempo.

    `bars` says in which bars of four beats it plays. Two patterns return, as verse and chorus do.
    """
    count = _eighths(loop)
    step = 30.0 / tempo * SAMPLE_RATE
    rate = float(np.clip(loop.shape[1] / count / step, 0.75, 1.4))
    slices = np.array_split(faster(loop, rate), count, axis=1)
    patterns = [_pattern(count, rng) for _ in range(2)]
    section = int(rng.choice((4, 8)))
    out = np.zeros((2, length), dtype=np.float32)
    for bar, sounding in enumerate(bars):
        pattern = patterns[bar // section % 2]
        for eighth in range(8 if sounding else 0):
            piece = slices[pattern[(8 * bar + eighth) % len(pattern)]]
            add(out, faded(piece, int(step) + FADE), int((8 * bar + eighth) * step))
    return out


def _eighths(loop: Audio) -> int:
    """Count the eighths of a loop: whole bars at the slowest tempo over 80 beats a minute."""
    seconds = loop.shape[1] / SAMPLE_RATE
    return next((8 * bars for bars in (1, 2, 4, 8) if 240.0 * bars / seconds > 80.0), 64)


def _pattern(count: int, rng: Generator) -> list[int]:
    """Draw an order of slices: the loop's own with some replaced, as many as fill whole bars."""
    own = [int(i) for i in np.arange(max(count, 16)) % count]
    other = rng.random() * 0.6
    return [int(rng.integers(count)) if rng.random() < other else i for i in own]
