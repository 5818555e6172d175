"""A seeded composer: key, chords, form, and what every player plays.

The music is plain on purpose (diatonic harmony, four beats in a bar, motifs that return), for what
separation learns from it is how the parts of a song move together: shared beats, shared chords,
entries and rests. Everything random comes from one generator, so a seed is a song.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.random import Generator

from separator.synthesis.score import (
    CRASH,
    HIGH_TOM,
    KICK,
    LOW_TOM,
    MID_TOM,
    SNARE,
    Composition,
    Note,
    PlayerPart,
)
from separator.synthesis.styles import (
    BASS_FIGURES,
    COMPING,
    GROOVES,
    MAJOR_PROGRESSIONS,
    MINOR_PROGRESSIONS,
    MODES,
    STYLES,
    Style,
)

BEATS = 4  # in a bar


@dataclass(frozen=True)
class Bar:
    """One bar: its chord as scale degree, the section it belongs to and its place in it."""

    index: int
    degree: int
    seventh: bool
    section: int
    position: int
    last: bool


@dataclass
class Sketch:
    """What all players of a song agree on."""

    rng: Generator
    style: Style
    tempo: float
    swing: float
    tonic: int
    scale: tuple[int, ...]
    bars: list[Bar] = field(default_factory=list)

    def seconds(self, beat: float) -> float:
        """Place a beat in time; swing delays the second half of every beat."""
        whole, part = divmod(beat, 1.0)
        half = 0.5 + 0.5 * self.swing
        warped = part * half / 0.5 if part < 0.5 else half + (part - 0.5) * (1 - half) / 0.5
        return (whole + warped) * 60.0 / self.tempo

    def pitch(self, degree: int, octave: int = 0) -> int:
        """Return the MIDI pitch of a scale degree; degrees run on into the next octaves."""
        turn, step = divmod(degree, len(self.scale))
        return self.tonic + self.scale[step] + 12 * (turn + octave)

    def chord(self, bar: Bar) -> list[int]:
        """Return the pitches of the bar's chord in root position."""
        steps = (0, 2, 4, 6) if bar.seventh else (0, 2, 4)
        return [self.pitch(bar.degree + step) for step in steps]

    def note(self, bar: Bar, beat: float, length: float, pitch: float, velocity: float) -> Note:
        """Write a note at a beat of a bar, with the small unevenness of a human player."""
        start = self.seconds(BEATS * bar.index + beat)
        end = self.seconds(BEATS * bar.index + beat + length)
        late = float(abs(self.rng.normal(0.0, 0.004)))
        loud = float(np.clip(velocity * self.rng.uniform(0.85, 1.1), 0.05, 1.0))
        return Note(start + late, max(end - start, 0.04), pitch, loud)


def compose(seed: int, duration: float, style: str | None = None) -> Composition:
    """Write a song of at least one section and about `duration` seconds; `seed` decides everything.

    >>> compose(3, 20.0) == compose(3, 20.0)
    True
    """
    rng = np.random.default_rng(seed)
    name = str(rng.choice(sorted(STYLES)))
    sketch = _sketch(rng, STYLES[style or name])
    sketch.bars = _form(sketch, duration)
    sections = sketch.bars[-1].section + 1
    parts = [
        PlayerPart("drums", "drums", _play(sketch, _drums(sketch), _presence(rng, sections, 0.88))),
        PlayerPart("bass", "bass", _play(sketch, _bass(sketch), _presence(rng, sections, 0.88))),
    ]
    players = [_chords, _chords, _arpeggio, _riff]
    for i in range(int(rng.integers(1, 5))):
        player = _chords if i == 0 else players[int(rng.integers(len(players)))]
        role = player.__name__.strip("_")
        presence = _presence(rng, sections, 0.9 if i == 0 else 0.6)
        parts.append(PlayerPart("other", role, _play(sketch, player(sketch), presence)))
    sung = _presence(rng, sections, 0.75)
    if sketch.style.rap and rng.random() < sketch.style.rap:
        parts.append(PlayerPart("vocals", "rap", _play(sketch, _rap(sketch), sung)))
    else:
        parts.append(PlayerPart("vocals", "melody", _play(sketch, _melody(sketch, 57, 74), sung)))
    if rng.random() < 0.5:
        solo = {section for section in range(sections) if section not in sung}
        parts.append(PlayerPart("other", "lead", _play(sketch, _melody(sketch, 60, 82), solo)))
    if rng.random() < 0.35:
        presence = _presence(rng, sections, 0.4) & sung
        parts.append(PlayerPart("vocals", "backing", _play(sketch, _backing(sketch), presence)))
    return Composition(style or name, sketch.tempo, duration, _within(parts, duration))


def _within(parts: list[PlayerPart], duration: float) -> tuple[PlayerPart, ...]:
    kept = [(p, tuple(n for n in p.notes if n.start < duration - 0.05)) for p in parts]
    return tuple(PlayerPart(part.stem, part.role, notes) for part, notes in kept if notes)


def _sketch(rng: Generator, style: Style) -> Sketch:
    mode = str(rng.choice(list(MODES), p=(0.4, 0.32, 0.12, 0.1, 0.06)))
    tempo = float(rng.uniform(*style.tempo))
    swing = float(rng.uniform(0.0, style.swing)) if style.swing else 0.0
    return Sketch(rng, style, tempo, swing, int(rng.integers(41, 53)), MODES[mode])


def _form(sketch: Sketch, duration: float) -> list[Bar]:
    """Lay out sections of four or eight bars; each has a progression, and progressions return."""
    rng = sketch.rng
    minor = sketch.scale[2] == 3
    pool = MINOR_PROGRESSIONS if minor else MAJOR_PROGRESSIONS
    chosen = [pool[i] for i in rng.choice(len(pool), size=2, replace=False)]
    total = int(np.ceil(duration / sketch.seconds(BEATS)))
    bars: list[Bar] = []
    section = 0
    while len(bars) < total:
        length = int(rng.choice((4, 8), p=(0.6, 0.4)))
        progression = chosen[int(rng.integers(2))]
        for position in range(length):
            degree = progression[position % len(progression)]
            seventh = bool(rng.random() < sketch.style.sevenths)
            last = position == length - 1
            bars.append(Bar(len(bars), degree, seventh, section, position, last))
        section += 1
    return bars


def _presence(rng: Generator, sections: int, chance: float) -> set[int]:
    """Choose the sections in which a player plays: at least one."""
    chosen = {section for section in range(sections) if rng.random() < chance}
    return chosen or {int(rng.integers(sections))}


Player = Callable[[Bar], list[Note]]


def _play(sketch: Sketch, player: Player, presence: set[int]) -> tuple[Note, ...]:
    return tuple(note for bar in sketch.bars if bar.section in presence for note in player(bar))


def _drums(sketch: Sketch) -> Player:
    rng = sketch.rng
    names = rng.choice(sketch.style.grooves, size=2)
    grooves = [GROOVES[str(name)] for name in names]
    if rng.random() < 0.5:  # the same drums, thinned: a verse beside its chorus
        grooves[1] = {drum: hits for drum, hits in grooves[0].items() if drum != SNARE}

    def play(bar: Bar) -> list[Note]:
        groove = grooves[bar.section % 2]
        filling = bar.last and rng.random() < 0.7
        end = 12 if filling else 16
        notes = [
            sketch.note(bar, step / 4, 0.25, drum, 0.9 if hits[step] == "x" else 0.4)
            for drum, hits in groove.items()
            for step in range(end)
            if hits[step] != "." and rng.random() > 0.03
        ]
        if filling:
            toms = rng.choice((SNARE, HIGH_TOM, MID_TOM, LOW_TOM), size=4)
            notes += [sketch.note(bar, 3 + i / 4, 0.25, int(t), 0.8) for i, t in enumerate(toms)]
        if bar.position == 0 and rng.random() < 0.7:
            notes += [sketch.note(bar, 0, 2, CRASH, 0.9), sketch.note(bar, 0, 0.25, KICK, 1.0)]
        return notes

    return play


def _bass(sketch: Sketch) -> Player:
    rng = sketch.rng
    figures = [BASS_FIGURES[str(name)] for name in rng.choice(sketch.style.bass, size=2)]
    low = int(rng.integers(28, 36))

    def place(pitch: int) -> int:
        return low + (pitch - low) % 12

    def play(bar: Bar) -> list[Note]:
        chord = sketch.chord(bar)
        following = sketch.bars[(bar.index + 1) % len(sketch.bars)]
        root = place(chord[0])
        steps = {
            "r": root,
            "o": root + 12,
            "f": root + (chord[2] - chord[0]),
            "t": root + (chord[1] - chord[0]),
            "n": place(sketch.chord(following)[0]) + int(rng.choice((-1, 0, 2))),
        }
        figure = figures[bar.section % 2]
        return [
            sketch.note(bar, beat, length * rng.uniform(0.75, 1.0), steps[step], 0.85)
            for beat, length, step in figure
        ]

    return play


def _voicing(chord: list[int], centre: int) -> list[int]:
    """Move every chord tone by octaves to within six semitones of a centre."""
    return sorted(centre - 6 + (pitch - centre + 6) % 12 for pitch in chord)


def _chords(sketch: Sketch) -> Player:
    rng = sketch.rng
    rhythms = [COMPING[str(name)] for name in rng.choice(sketch.style.comping, size=2)]
    centre = int(rng.integers(52, 70))
    doubled = bool(rng.random() < 0.3)
    strum = float(rng.choice((0.0, 0.0, 0.02, 0.04)))  # beats between neighbouring strings

    def play(bar: Bar) -> list[Note]:
        pitches = _voicing(sketch.chord(bar), centre)
        if doubled:
            pitches.append(pitches[0] + 12)
        return [
            sketch.note(bar, beat + strum * i, length, pitch, 0.7)
            for beat, length in rhythms[bar.section % 2]
            for i, pitch in enumerate(pitches)
        ]

    return play


def _arpeggio(sketch: Sketch) -> Player:
    rng = sketch.rng
    step = float(rng.choice((0.25, 0.5, 0.5)))
    centre = int(rng.integers(58, 76))
    order = rng.permutation(8)
    span = int(rng.choice((1, 2)))
    length = step * float(rng.choice((0.5, 1.0, 2.0)))

    def play(bar: Bar) -> list[Note]:
        chord = _voicing(sketch.chord(bar), centre)
        pool = chord + [pitch + 12 for pitch in chord[:span]]
        return [
            sketch.note(bar, i * step, length, pool[int(order[i % 8]) % len(pool)], 0.65)
            for i in range(int(BEATS / step))
        ]

    return play


def _rhythm(rng: Generator, density: float) -> list[tuple[float, float]]:
    """Draw onsets and lengths (beats) of a bar on a grid of eighths, strong beats first."""
    weight = np.array([1.0, 0.45, 0.75, 0.5, 0.9, 0.45, 0.75, 0.4])
    onsets = np.flatnonzero(rng.random(8) < np.clip(weight * density, 0.0, 1.0)) / 2
    if len(onsets) == 0:
        onsets = np.array([0.0])
    ends = np.append(onsets[1:], BEATS)
    lengths = np.minimum(ends - onsets, rng.choice((0.9, 1.5, 4.0)))
    return list(zip(onsets.tolist(), lengths.tolist(), strict=True))


def _riff(sketch: Sketch) -> Player:
    """A one-bar motif that follows the chords."""
    rng = sketch.rng
    rhythm = _rhythm(rng, float(rng.uniform(0.6, 1.2)))
    steps = rng.choice((0, 0, 1, 2, 2, 4, 4, 7), size=len(rhythm))
    octave = int(rng.integers(0, 3))

    def play(bar: Bar) -> list[Note]:
        degree = bar.degree % len(sketch.scale)
        return [
            sketch.note(bar, beat, length, sketch.pitch(degree + int(step), octave), 0.75)
            for (beat, length), step in zip(rhythm, steps, strict=True)
        ]

    return play


def _melody(sketch: Sketch, low: int, high: int) -> Player:
    """Phrases from two returning rhythms: chord tones on the beats, steps between them."""
    rng = sketch.rng
    shift = int(rng.integers(-5, 6))
    low, high = low + shift, high + shift
    motifs = [_rhythm(rng, float(rng.uniform(0.6, 1.3))) for _ in range(3)]
    scale = [pitch for pitch in (sketch.pitch(d) for d in range(40)) if low <= pitch <= high]
    place = len(scale) // 2

    def nearest_chord_tone(bar: Bar) -> int:
        tones = {pitch % 12 for pitch in sketch.chord(bar)}
        return min(range(len(scale)), key=lambda i: (scale[i] % 12 not in tones, abs(i - place)))

    def play(bar: Bar) -> list[Note]:
        nonlocal place
        if bar.position % 4 == 3 and rng.random() < 0.35:  # breath at a phrase's end
            return []
        notes = []
        for beat, length in motifs[(bar.position + bar.section) % 3]:
            place = int(np.clip(place + rng.choice((-2, -1, -1, 0, 1, 1, 2)), 0, len(scale) - 1))
            if beat % 2 == 0:
                place = nearest_chord_tone(bar)
            notes.append(sketch.note(bar, beat, length, scale[place], 0.8))
        return notes

    return play


def _rap(sketch: Sketch) -> Player:
    """Lines of fast syllables, one a bar, in a speaker's tones: stressed on beats, then falling."""
    rng = sketch.rng
    base = float(rng.uniform(54, 60))
    flows = [np.flatnonzero(rng.random(16) < rng.uniform(0.5, 0.95)) for _ in range(3)]

    def play(bar: Bar) -> list[Note]:
        flow = flows[(bar.position + bar.section) % 3]
        steps: list[int] = flow[flow < rng.choice((12, 14, 16))].tolist()  # then a breath
        notes = []
        for step, following in pairwise([*steps, 16]):
            stress = 2.5 if step % 4 == 0 else 0.0
            tone = base + stress + 3.0 * (1 - step / 16) + float(rng.normal(0, 0.8))
            length = min(following - step, 2) / 4
            notes.append(sketch.note(bar, step / 4, length, tone, 0.9 if stress else 0.7))
        return notes

    return play


def _backing(sketch: Sketch) -> Player:
    """Held chord tones, for a choir behind the singer."""
    centre = int(sketch.rng.integers(60, 68))

    def play(bar: Bar) -> list[Note]:
        pitches = _voicing(sketch.chord(bar), centre)[:2]
        return [sketch.note(bar, 0, 3.8, pitch, 0.6) for pitch in pitches]

    return play
