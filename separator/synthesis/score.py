"""Notes, parts and songs: what the composer writes and the instruments read.

Times are seconds, pitches are MIDI numbers (60 is middle C, 69 is 440 Hz) and may be fractional,
velocities lie in (0, 1]. A drum part uses the General MIDI drum keys as pitches.
"""

from __future__ import annotations

from dataclasses import dataclass

KICK, STICK, SNARE, CLAP = 36, 37, 38, 39
HAT, PEDAL_HAT, OPEN_HAT = 42, 44, 46
LOW_TOM, MID_TOM, HIGH_TOM = 43, 47, 50
CRASH, RIDE = 49, 51
TAMBOURINE, COWBELL, HIGH_CONGA, LOW_CONGA, SHAKER = 54, 56, 63, 64, 70


@dataclass(frozen=True)
class Note:
    """One note or drum hit."""

    start: float
    duration: float
    pitch: float
    velocity: float


@dataclass(frozen=True)
class PlayerPart:
    """The notes of one player; `role` says what they are: drums, bass, chords, riff, melody..."""

    stem: str
    role: str
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Composition:
    """A composed song: tempo in beats a minute, duration in seconds, one part per player."""

    style: str
    tempo: float
    duration: float
    parts: tuple[PlayerPart, ...]


def frequency(pitch: float) -> float:
    """Convert a MIDI pitch to Hz.

    >>> frequency(69.0)
    440.0
    """
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))
