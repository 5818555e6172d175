"""Styles as data: tempo ranges, drum patterns, bass and accompaniment figures, progressions.

A drum pattern is a string of sixteenths per drum: `x` is a hit, `o` a soft one, `.` a rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from separator.synthesis.score import (
    CLAP,
    COWBELL,
    HAT,
    HIGH_CONGA,
    KICK,
    LOW_CONGA,
    OPEN_HAT,
    PEDAL_HAT,
    RIDE,
    SHAKER,
    SNARE,
    STICK,
    TAMBOURINE,
)

Groove = dict[int, str]

GROOVES: dict[str, Groove] = {
    "rock": {KICK: "x.....x.x.......", SNARE: "....x.......x...", HAT: "x.x.x.x.x.x.x.x."},
    "rock busy": {KICK: "x..x..x.x..x....", SNARE: "....x..o....x..o", HAT: "x.x.x.x.x.x.x.x."},
    "half time": {KICK: "x.........x.....", SNARE: "........x.......", RIDE: "x...x...x...x..."},
    "four": {KICK: "x...x...x...x...", CLAP: "....x.......x...", OPEN_HAT: "..x...x...x...x."},
    "four busy": {
        KICK: "x...x...x...x..x",
        SNARE: "....x.......x...",
        HAT: "xoxoxoxoxoxoxoxo",
        TAMBOURINE: "..x...x...x...x.",
    },
    "hip hop": {KICK: "x..x......x..x..", SNARE: "....x.......x...", HAT: "x.x.x.xxx.x.x.x."},
    "trap": {KICK: "x.....x...x.....", CLAP: "........x.......", HAT: "x.xxx.x.xxx.xxxx"},
    "funk": {KICK: "x..x..x...x..x..", SNARE: "....x..o.o..x..o", HAT: "xxxxxxxxxxxxxxxx"},
    "shuffle": {KICK: "x.......x..x....", SNARE: "....x.......x...", RIDE: "x..xx..xx..xx..x"},
    "jazz": {KICK: "o.........o.....", PEDAL_HAT: "....x.......x...", RIDE: "x...x..xx...x..x"},
    "bossa": {KICK: "x..xx..xx..xx..x", STICK: "x..x..x...x..x..", SHAKER: "xoxoxoxoxoxoxoxo"},
    "salsa": {
        KICK: "...x..x....x..x.",
        COWBELL: "x...x...x...x...",
        HIGH_CONGA: "..o.x.o...o.x.o.",
        LOW_CONGA: "......xx......xx",
    },
    "ballad": {KICK: "x.......x.o.....", STICK: "....x.......x...", HAT: "x...x...x...x..."},
    "breakbeat": {KICK: "x.x.......xx....", SNARE: "....x..x.x..x..x", HAT: "x.x.x.x.x.x.x.x."},
    "tribal": {KICK: "x..x..x.x..x..x.", LOW_CONGA: "x..x..x...x.x...", SHAKER: "x.x.x.x.x.x.x.x."},
    "drum and bass": {
        KICK: "x.........x.....",
        SNARE: "....x.......x...",
        RIDE: "x.x.x.x.x.x.x.x.",
    },
}

# Bass figures over one bar: (beat, length in beats, interval).
# r: root, o: octave, f: fifth, t: third, n: a step from the next root.
BASS_FIGURES: dict[str, tuple[tuple[float, float, str], ...]] = {
    "whole": ((0, 4, "r"),),
    "halves": ((0, 2, "r"), (2, 2, "f")),
    "quarters": ((0, 1, "r"), (1, 1, "r"), (2, 1, "r"), (3, 1, "f")),
    "eighths": tuple((i / 2, 0.5, "r") for i in range(8)),
    "octaves": tuple((i / 2, 0.4, "ro"[i % 2]) for i in range(8)),
    "offbeat": tuple((i + 0.5, 0.5, "r") for i in range(4)),
    "syncopated": ((0, 1.5, "r"), (1.5, 1, "r"), (2.5, 0.5, "f"), (3, 0.5, "o"), (3.5, 0.5, "n")),
    "funk": (
        (0, 0.5, "r"),
        (0.75, 0.25, "r"),
        (1.5, 0.25, "o"),
        (2, 0.5, "r"),
        (2.75, 0.25, "f"),
        (3.25, 0.25, "o"),
        (3.5, 0.5, "n"),
    ),
    "walking": ((0, 1, "r"), (1, 1, "t"), (2, 1, "f"), (3, 1, "n")),
    "tumbao": ((0, 1.5, "r"), (1.5, 1.5, "f"), (3, 1, "o")),
    "sixteenths": tuple((i / 4, 0.25, "r") for i in range(16)),
    "long short": ((0, 3, "r"), (3, 0.5, "f"), (3.5, 0.5, "n")),
}

# Accompaniment rhythms over one bar: (beat, length in beats).
COMPING: dict[str, tuple[tuple[float, float], ...]] = {
    "held": ((0, 4),),
    "halves": ((0, 2), (2, 2)),
    "quarters": tuple((i, 0.9) for i in range(4)),
    "offbeats": tuple((i + 0.5, 0.4) for i in range(4)),
    "strum": ((0, 1), (1, 0.5), (1.5, 1), (2.5, 0.5), (3, 0.5), (3.5, 0.5)),
    "eighths": tuple((i / 2, 0.45) for i in range(8)),
    "stabs": ((0, 0.4), (1.5, 0.4), (3, 0.3)),
    "charleston": ((0, 1.2), (1.5, 0.5)),
    "montuno": ((0, 0.5), (0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (3.5, 0.5)),
    "funk": ((0.25, 0.2), (0.75, 0.2), (1.5, 0.2), (2.25, 0.2), (2.75, 0.2), (3.5, 0.2)),
}

# Scales in semitones above the tonic.
MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
}

# Roots of a progression as scale degrees from 0, one per bar.
MAJOR_PROGRESSIONS: tuple[tuple[int, ...], ...] = (
    (0, 4, 5, 3),
    (0, 5, 3, 4),
    (5, 3, 0, 4),
    (1, 4, 0, 0),
    (0, 3, 4, 3),
    (0, 2, 3, 4),
    (3, 4, 2, 5),
    (0, 0, 3, 0, 4, 3, 0, 4),
    (0, 4, 5, 2, 3, 0, 3, 4),
    (1, 4, 0, 5),
)
MINOR_PROGRESSIONS: tuple[tuple[int, ...], ...] = (
    (0, 5, 2, 6),
    (0, 3, 4, 0),
    (0, 6, 5, 4),
    (0, 3, 5, 4),
    (0, 0, 5, 6),
    (5, 6, 0, 0),
    (0, 2, 6, 3),
    (0, 4, 5, 3),
    (1, 4, 0, 0),
    (0, 6, 5, 6),
)


@dataclass(frozen=True)
class Style:
    """What belongs to a style; `swing` is the most the off-beats are late.

    `sevenths` is the chance that a chord has one, `rap` that the words are spoken and not sung.
    """

    tempo: tuple[float, float]
    grooves: tuple[str, ...]
    bass: tuple[str, ...]
    comping: tuple[str, ...]
    swing: float = 0.0
    sevenths: float = 0.2
    rap: float = 0.0


STYLES: dict[str, Style] = {
    "pop": Style(
        (88, 132),
        ("rock", "four busy", "four"),
        ("eighths", "syncopated", "long short", "quarters"),
        ("held", "quarters", "strum", "eighths", "halves"),
        0.1,
    ),
    "rock": Style(
        (96, 168),
        ("rock", "rock busy", "half time"),
        ("eighths", "quarters", "syncopated"),
        ("eighths", "strum", "held", "halves"),
        sevenths=0.05,
    ),
    "electronic": Style(
        (110, 140),
        ("four", "four busy", "breakbeat", "tribal"),
        ("offbeat", "octaves", "eighths", "sixteenths", "whole"),
        ("held", "offbeats", "stabs", "eighths"),
    ),
    "ballad": Style(
        (58, 84),
        ("ballad", "half time", "rock"),
        ("whole", "halves", "long short"),
        ("held", "quarters", "eighths", "halves"),
        0.1,
    ),
    "hip hop": Style(
        (74, 104),
        ("hip hop", "trap", "breakbeat"),
        ("whole", "syncopated", "long short", "halves"),
        ("held", "stabs", "charleston", "halves"),
        0.25,
        0.5,
        rap=0.6,
    ),
    "funk": Style(
        (92, 118),
        ("funk", "breakbeat", "rock busy"),
        ("funk", "syncopated", "octaves"),
        ("funk", "stabs", "offbeats", "held"),
        0.15,
        0.7,
    ),
    "jazz": Style(
        (100, 170),
        ("jazz", "shuffle", "bossa"),
        ("walking", "halves", "quarters"),
        ("charleston", "held", "stabs"),
        0.33,
        0.95,
    ),
    "latin": Style(
        (90, 126),
        ("bossa", "salsa", "tribal"),
        ("tumbao", "syncopated", "halves"),
        ("montuno", "strum", "charleston"),
        sevenths=0.5,
    ),
    "folk": Style(
        (80, 128),
        ("ballad", "rock", "shuffle", "tribal"),
        ("halves", "quarters", "long short"),
        ("strum", "eighths", "quarters"),
        0.2,
        0.1,
    ),
    "drum and bass": Style(
        (150, 170),
        ("drum and bass", "breakbeat"),
        ("whole", "syncopated", "long short", "eighths"),
        ("held", "stabs", "offbeats"),
        sevenths=0.4,
    ),
}
