"""Write songs to judge models by, made in another way than any that they were trained on.

    python scripts/make_judge_songs.py data/judge

gives data/judge/test/SONG/{mixture,drums,bass,other,vocals}.wav in the shape of MUSDB18-HQ, and
data/judge/real/SONG/{mixture,instrumental,vocals}.wav: real recordings of a band, with a voice.
Nothing is shared with `separator.synthesis` but its file formats, its effects and the mastering:

- an arranger of its own: chords by a Markov chain, drums and rhythms by chance, a tempo that
  drifts, players who are early or late by habit;
- strings as physical models (Karplus-Strong), a singer of pulses and formants, `flite`'s voices;
- recorded drums and soundfonts of packages that `debian_sounds.py` keeps from training.

A seed decides every sample.

Reference: Karplus and Strong (1983), Digital synthesis of plucked-string and drum timbres;
Rosenberg (1971), Effect of glottal pulse shape on the quality of natural vowels; Klatt (1980),
Software for a cascade/parallel formant synthesizer.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from debian_sounds import JUDGE, JUDGE_SONGS, REAL_BAND, Shelf
from make_synthetic_musdb import write_stems
from scipy import signal

from separator.errors import AudioError
from separator.synthesis import SAMPLE_RATE, desk, programs
from separator.synthesis.mastering import Mastering, master
from separator.synthesis.oscillators import Audio, filtered
from separator.synthesis.sampler import Kit, add, faded, load
from separator.synthesis.score import Note, frequency
from separator.synthesis.soundfont import Channel, play_soundfont

Generator = np.random.Generator
T = TypeVar("T")
STEPS = 4  # in a beat

# Degrees that may follow a degree, with their weights; those of a scale of seven, from 0.
FOLLOWING: dict[int, dict[int, float]] = {
    0: {3: 3, 4: 3, 5: 3, 1: 1, 2: 1},
    1: {4: 4, 3: 1, 6: 1},
    2: {5: 3, 3: 2},
    3: {0: 3, 4: 3, 1: 1, 5: 1},
    4: {0: 4, 5: 2, 3: 2},
    5: {3: 3, 1: 2, 4: 2, 0: 1},
    6: {0: 2, 2: 2, 5: 1},
}
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10))
KITS = (
    *("ForzeeStereo", "The Black Pearl 1.0", "ColomboAcousticDrumkit", "BJA_Pacific"),
    *("Millo_MultiLayered2", "Millo_MultiLayered3", "Audiophob", "VariBreaks"),
)
# Drums: MIDI key, the words that name it in kits, its level and its place.
DRUMS: dict[str, tuple[int, tuple[str, ...], float, float]] = {
    "kick": (36, ("kick", "bassdrum"), 1.0, 0.0),
    "snare": (38, ("snare",), 0.9, 0.05),
    "closed": (42, ("closed", "hat 1 cl"), 0.4, 0.35),
    "open": (46, ("open", "hat 1 op"), 0.4, 0.35),
    "crash": (49, ("crash",), 0.5, -0.5),
    "ride": (51, ("ride", "closed"), 0.4, -0.4),
    "low": (43, ("tom low", "floor"), 0.8, -0.4),
    "high": (50, ("tom hi", "tom 1", "tom"), 0.8, 0.3),
}
KEYS = (0, 1, 2, 4, 5, 16, 17, 18, 21, 48, 49, 50, 61, 62, 88, 89, 90)  # General MIDI programs
LINES = (11, 12, 22, 40, 42, 56, 57, 60, 64, 65, 66, 68, 71, 73, 75, 80, 81)
BASSES = (32, 33, 34, 35, 36, 38, 39)
WORDS = (
    *("river", "mountain", "follow", "silver", "yellow", "never", "summer", "open", "window"),
    *("carry", "water", "letter", "morning", "hollow", "tender", "people", "over", "number"),
    *("sailor", "paper", "corner", "shadow", "table", "garden", "ever", "winter", "lemon"),
)
FLITE = ("slt", "awb", "kal16")
# Formants of vowels in Hz and their bandwidths, of a tenor; a soprano's lie 16 % higher.
VOWELS: dict[str, tuple[int, ...]] = {
    "a": (650, 1080, 2650, 2900, 3250),
    "e": (400, 1700, 2600, 3200, 3580),
    "i": (290, 1870, 2800, 3250, 3540),
    "o": (400, 800, 2600, 2800, 3000),
    "u": (350, 600, 2700, 2900, 3300),
}
BANDWIDTHS = (80, 90, 120, 130, 140)
HISSES: tuple[tuple[float, float, float], ...] = (  # from, to in Hz, seconds
    (4500, 12000, 0.09),
    (2000, 6500, 0.08),
    (1500, 9000, 0.05),
    (300, 1800, 0.03),
    (2500, 5500, 0.03),
)


def pick(rng: Generator, things: Sequence[T]) -> T:
    """Draw one thing of many."""
    return things[int(rng.integers(len(things)))]


@dataclass(frozen=True)
class Plan:
    """What the players agree on: the time of each step, and the chord of each bar."""

    times: Audio  # seconds at which each sixteenth begins
    chords: tuple[int, ...]  # degrees, one a bar
    scale: tuple[int, ...]
    tonic: int
    beats: int  # in a bar
    tempo: float

    @classmethod
    def draw(cls, rng: Generator, duration: float) -> Plan:
        """Draw a metre, a key, chords, and a tempo that wanders by a few per cent."""
        tempo = float(np.exp(rng.uniform(np.log(68), np.log(160))))
        beats = int(rng.choice((4, 4, 4, 3)))
        steps = int(duration * tempo / 60 * STEPS * 1.3) + 64
        wander = signal.lfilter([1.0], [1.0, -0.995], rng.normal(0, 0.0025, steps))
        times = np.concatenate([[0.0], np.cumsum(60 / tempo / STEPS * np.exp(wander))])
        phrase = [0]
        while len(phrase) < 8:
            following = FOLLOWING[phrase[-1]]
            weights = np.array(list(following.values()))
            phrase.append(int(rng.choice(list(following), p=weights / weights.sum())))
        bars = len(times) // (STEPS * beats)
        chords = tuple(phrase[(bar % 4) + 4 * (bar // 4 % 4 == 2)] for bar in range(bars))  # AABA
        scale = pick(rng, SCALES)
        return cls(times.astype(np.float32), chords, scale, int(rng.integers(36, 48)), beats, tempo)

    def pitch(self, degree: int) -> int:
        """Return the MIDI pitch of a degree of the scale, counted from the tonic."""
        octave, step = divmod(degree, 7)
        return self.tonic + 12 * octave + self.scale[step]

    def note(self, feel: Feel, step: float, length: float, pitch: float, loud: float) -> Note:
        """Place a note as a player with a certain feel plays it; `step` and `length` in steps."""
        steps = np.arange(len(self.times))
        start, end = np.interp([step, step + length], steps, self.times)
        start = max(float(start + feel.late + feel.rng.normal(0, feel.loose)), 0.0)
        loud = float(np.clip(loud * np.exp(feel.rng.normal(0, 0.15)), 0.05, 1.0))
        return Note(start, max(float(end) - start, 0.05), pitch, loud)


@dataclass(frozen=True)
class Feel:
    """How a player keeps time: late by habit (seconds) and loosely."""

    rng: Generator
    late: float
    loose: float

    @classmethod
    def draw(cls, rng: Generator) -> Feel:
        """Draw a player."""
        return cls(rng, float(rng.normal(0, 0.008)), float(rng.uniform(0.003, 0.012)))


def drum_notes(plan: Plan, rng: Generator) -> list[Note]:
    """Play drums: where a hit falls is drawn once and mostly kept."""
    feel, steps = Feel.draw(rng), STEPS * plan.beats
    weights = np.where(
        np.arange(steps) % STEPS == 0, 0.45, np.where(np.arange(steps) % 2, 0.08, 0.2)
    )
    kick = rng.random(steps) < weights
    kick[0] = True
    ghost = rng.random(steps) < rng.uniform(0, 0.2)
    every = int(pick(rng, (1, 2, 2, 4)))
    metal = pick(rng, ("closed", "closed", "ride"))
    notes = []
    for bar in range(len(plan.chords)):
        first = bar * steps
        fill = bar % 4 == 3 and rng.random() < 0.6
        for step in range(steps):
            beat = step // STEPS
            if fill and beat == plan.beats - 1:
                hits = [(pick(rng, ("snare", "high", "low")), 0.8)]
            else:
                hits = [("kick", 0.9)] if kick[step] != (rng.random() < 0.04) else []
                if step % STEPS == 0 and beat % 2:
                    hits.append(("snare", 0.9))
                elif ghost[step]:
                    hits.append(("snare", 0.2))
                if step % every == 0:
                    opened = step % STEPS == 2 and rng.random() < 0.1
                    hits.append(("open" if opened else metal, 0.8 if step % STEPS == 0 else 0.5))
            if step == 0 and bar % 4 == 0 and rng.random() < 0.7:
                hits.append(("crash", 0.9))
            notes += [plan.note(feel, first + step, 1, DRUMS[d][0], loud) for d, loud in hits]
    return notes


def bass_notes(plan: Plan, rng: Generator) -> list[Note]:
    """Play roots, fifths and steps that lead to the next root, in a rhythm of chance."""
    feel, steps = Feel.draw(rng), STEPS * plan.beats
    onsets = [
        0,
        *(s for s in range(2, steps, 2) if rng.random() < (0.6 if s % STEPS == 0 else 0.35)),
    ]
    notes = []
    for bar, degree in enumerate(plan.chords):
        root = 28 + (plan.pitch(degree) - 28) % 12
        following = plan.pitch(plan.chords[(bar + 1) % len(plan.chords)])
        for onset, end in zip(onsets, [*onsets[1:], steps], strict=True):
            pitch = root + int(rng.choice((0, 0, 0, 7, 12)))
            if end == steps and rng.random() < 0.4:
                pitch = 28 + (following - 28) % 12 + int(rng.choice((-2, -1, 2)))
            held = (end - onset) * rng.uniform(0.6, 1.0)
            notes.append(plan.note(feel, bar * steps + onset, held, pitch, 0.8))
    return notes


def chord_notes(plan: Plan, rng: Generator, centre: int, strummed: bool) -> list[Note]:
    """Play chords: strummed up and down, or held."""
    feel, steps = Feel.draw(rng), STEPS * plan.beats
    stroke = rng.random(steps) < np.where(np.arange(steps) % 2, 0.15, 0.6)
    stroke[0] = True
    onsets = (
        np.flatnonzero(stroke).tolist() if strummed else [0, steps // 2][: int(rng.integers(1, 3))]
    )
    notes = []
    for bar, degree in enumerate(plan.chords):
        voices = [
            plan.pitch(degree + third)
            for third in (0, 2, 4, *((6,) if rng.random() < 0.25 else ()))
        ]
        voices = sorted(centre + (v - centre) % 12 - 12 * int(rng.random() < 0.2) for v in voices)
        if strummed:
            voices = sorted([*voices, voices[0] - 12, voices[1] + 12])
        for onset, end in zip(onsets, [*onsets[1:], steps], strict=True):
            order = voices if onset % STEPS == 0 else voices[::-1]
            for i, pitch in enumerate(order):
                late = i * 0.12 * strummed
                notes.append(plan.note(feel, bar * steps + onset + late, end - onset, pitch, 0.6))
    return notes


def melody_notes(plan: Plan, rng: Generator, centre: int) -> list[Note]:
    """Write phrases: a walk by steps and few leaps, long notes at the ends, breaths between."""
    feel, steps = Feel.draw(rng), STEPS * plan.beats
    step, last, notes = int(rng.integers(0, steps)), 0, []
    degree = 7 * round((centre - plan.tonic) / 12)
    home = degree
    while step < len(plan.times) - steps:
        for _ in range(int(rng.integers(4, 11))):
            length = int(rng.choice((1, 2, 2, 3, 4, 6)))
            degree += int(rng.choice((-4, -2, -1, -1, 0, 1, 1, 2, 3)))
            degree = int(np.clip(degree, home - 4, home + 6))
            notes.append(plan.note(feel, step, length * 0.95, plan.pitch(degree), 0.8))
            step += length
        last = int(rng.integers(4, 9))
        chord = plan.chords[min(step // steps, len(plan.chords) - 1)]
        near = min(
            (chord + third + 7 * o for third in (0, 2, 4) for o in range(6)),
            key=lambda tone: abs(tone - degree),
        )
        notes.append(plan.note(feel, step, last, plan.pitch(near), 0.9))
        degree = near
        step += last + int(rng.integers(3, steps))
    return notes


@dataclass(frozen=True)
class PluckedString:
    """A string as a delay line with a filter in its loop.

    `pluck` is where it is plucked (fraction of its length), `soft` how dull the plectrum is,
    `damping` the loop filter's side taps and `ring` the seconds to -60 dB.
    """

    pluck: float
    soft: float
    damping: float
    ring: float

    @classmethod
    def draw(cls, rng: Generator, low: bool) -> PluckedString:
        """Draw a string: a bass' where it is low."""
        return cls(
            pluck=float(rng.uniform(0.08, 0.4)),
            soft=float(rng.uniform(1500, 4000) if low else rng.uniform(3000, 12000)),
            damping=float(rng.uniform(0.02, 0.15) if low else rng.uniform(0.005, 0.08)),
            ring=float(rng.uniform(1.5, 6.0)),
        )

    def sound(self, hertz: float, seconds: float, rng: Generator) -> Audio:
        """Pluck once: `(time,)`.

        One turn of the loop is `N + 1 + s` samples: the delay, the symmetric filter, the rest.
        """
        period = SAMPLE_RATE / hertz
        whole = int(period - 1.0)
        rest = period - 1.0 - whole
        gain = 10.0 ** (-3.0 / (self.ring * hertz))
        side = self.damping
        loop = gain * np.convolve([side, 1.0 - 2.0 * side, side], [1.0 - rest, rest])
        length = int(seconds * SAMPLE_RATE)
        out = np.zeros(length + whole + 4)
        burst = filtered(rng.standard_normal(whole).astype(np.float32), "lowpass", self.soft, 1)
        out[4 : 4 + whole] = burst - np.roll(burst, int(self.pluck * whole))
        for start in range(4 + whole, len(out), whole):
            end = min(start + whole, len(out))
            for tap, value in enumerate(loop):  # from the delay of N samples on
                lag = whole + tap
                source = out[max(start - lag, 0) : end - lag]
                out[end - len(source) : end] += value * source
        return np.asarray(out[4 : 4 + length] / (np.abs(out).max() + 1e-9), dtype=np.float32)

    def play(self, notes: list[Note], length: int, rng: Generator) -> Audio:
        """Play notes: `(2, length)`, the higher ones further right."""
        out = np.zeros((2, length), dtype=np.float32)
        for note in notes:
            held = note.duration + 0.04
            tone = self.sound(frequency(note.pitch), held, rng) * np.float32(note.velocity)
            side = np.clip((note.pitch - 60) / 60, -0.5, 0.5)
            placed = np.stack([tone * (1 - side), tone * (1 + side)]).astype(np.float32)
            add(out, faded(placed), int(note.start * SAMPLE_RATE))
        return out


@dataclass(frozen=True)
class FormantSinger:
    """A voice of glottal pulses through five resonators in a row."""

    size: float
    opening: float
    closing: float
    vibrato: float
    rate: float
    breath: float
    octave: int

    @classmethod
    def draw(cls, rng: Generator) -> FormantSinger:
        """Draw a voice, half of them an octave higher."""
        high = bool(rng.random() < 0.5)
        return cls(
            size=float(rng.uniform(1.1, 1.22) if high else rng.uniform(0.93, 1.06)),
            opening=float(rng.uniform(0.35, 0.5)),
            closing=float(rng.uniform(0.1, 0.2)),
            vibrato=float(rng.uniform(0, 50)),
            rate=float(rng.uniform(4.8, 6.2)),
            breath=float(rng.uniform(0.01, 0.06)),
            octave=12 if high else 0,
        )

    def sing(self, notes: list[Note], length: int, rng: Generator) -> Audio:
        """Sing notes, each a syllable, into `(length,)` samples."""
        hop = 220
        frames = length // hop + 1
        pitch, level = np.full(frames, float(notes[0].pitch)), np.zeros(frames)
        formants = np.tile(np.array(VOWELS["a"], dtype=float), (frames, 1))
        noise = np.zeros(length, dtype=np.float32)
        for note in notes:
            start, end = (
                int(t * SAMPLE_RATE / hop) for t in (note.start, note.start + note.duration)
            )
            pitch[start:] = note.pitch
            fade = np.minimum(np.arange(max(end - start, 0)) / 6, 1.0)
            level[start:end] = (note.velocity * fade * (0.8 + 0.2 * fade[::-1]))[: frames - start]
            formants[start:] = VOWELS[pick(rng, sorted(VOWELS))]
            low, high, lasts = pick(rng, HISSES)
            if rng.random() < 0.6 and start * hop < length - SAMPLE_RATE:
                burst = rng.standard_normal(int(lasts * SAMPLE_RATE)).astype(np.float32)
                burst = filtered(burst, "bandpass", (low, high), 1) * np.hanning(len(burst))
                add(noise[None], burst[None].astype(np.float32) * 0.25, start * hop)
                level[start : start + int(lasts * SAMPLE_RATE / hop)] *= 0.1
        smooth = signal.savgol_filter
        pitch = smooth(pitch, 15, 2)
        pitch = pitch + self.vibrato / 100 * np.sin(
            2 * np.pi * self.rate * np.arange(frames) * hop / SAMPLE_RATE
        )
        pitch += signal.lfilter([1], [1, -0.98], rng.normal(0, 0.02, frames))
        formants = smooth(formants, 13, 1, axis=0) * self.size
        level = np.maximum(smooth(level, 9, 1), 0)
        source = self._pulses(pitch + self.octave, hop, length, rng)
        source *= np.interp(np.arange(length), np.arange(frames) * hop, level)
        air = filtered(source.astype(np.float32), "highpass", 4000.0, 1)  # of higher formants
        return np.asarray(resonated(source, formants, hop) + 0.1 * air + noise, dtype=np.float32)

    def _pulses(self, pitch: Audio, hop: int, length: int, rng: Generator) -> Audio:
        """Make the flow's derivative (Rosenberg's pulse C) and breath."""
        curve = np.interp(np.arange(length), np.arange(len(pitch)) * hop, pitch)
        hertz = 440.0 * 2.0 ** ((curve - 69) / 12)
        phase = np.cumsum(hertz / SAMPLE_RATE) % 1.0
        opened, closed = self.opening, self.opening + self.closing
        rising = 0.5 * (1 - np.cos(np.pi * phase / opened))
        falling = np.cos(np.pi / 2 * (phase - opened) / self.closing)
        flow = np.where(phase < opened, rising, np.where(phase < closed, falling, 0.0))
        voice = np.diff(flow, prepend=0.0) * 20
        breath = rng.standard_normal(length) * self.breath * (0.3 + flow)
        return np.asarray(filtered((voice + breath).astype(np.float32), "lowpass", 14000.0, 1))


def resonated(source: Audio, formants: Audio, hop: int) -> Audio:
    """Pass a source through resonators in a row; `formants` (frames, 5) are their centres in Hz."""
    out = source.astype(np.float64)
    for number, bandwidth in enumerate(BANDWIDTHS):
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
        state = np.zeros(2)
        for frame, centre in enumerate(formants[:, number]):
            piece = slice(frame * hop, (frame + 1) * hop)
            if out[piece].size == 0:
                break
            turn = 2 * np.pi * centre / SAMPLE_RATE
            feedback = [1.0, -2 * radius * np.cos(turn), radius**2]
            out[piece], state = signal.lfilter([sum(feedback)], feedback, out[piece], zi=state)
    return np.asarray(out + 0.3 * np.diff(out, prepend=0.0), dtype=np.float32)


@lru_cache(maxsize=512)
def flite(word: str, voice: str, hertz: int, stretch: float) -> Audio:
    """Let `flite` say a word at one pitch: mono at 44.1 kHz.

    Raises:
        AudioError: `flite` is missing or failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["flite", "-voice", voice, "--setf", f"int_f0_target_mean={hertz}"]
        command += ["--setf", "int_f0_target_stddev=1", "--setf", f"duration_stretch={stretch:.2f}"]
        try:
            programs.run_program([*command, "-t", word, "-o", "word.wav"], 30.0, Path(folder))
            audio, rate = soundfile.read(Path(folder, "word.wav"), dtype="float32")
        except (OSError, subprocess.SubprocessError) as error:
            raise AudioError(
                f"flite could not say {word!r} with voice {voice}: {error}."
            ) from error
    loud = np.flatnonzero(np.abs(audio) > 0.02 * np.abs(audio).max())
    audio = audio[loud[0] : loud[-1] + 1]
    return np.asarray(signal.resample_poly(audio, SAMPLE_RATE // 100, rate // 100), np.float32)


def flite_sings(notes: list[Note], length: int, rng: Generator) -> Audio:
    """Sing a word on each note that is long enough, with vibrato by a swinging speed."""
    out = np.zeros((1, length), dtype=np.float32)
    voice, octave = pick(rng, FLITE), int(rng.choice((0, 12)))
    free = 0
    for note in notes:
        start = int(note.start * SAMPLE_RATE)
        if start < free:
            continue
        stretch = float(np.clip(round(note.duration * 3) / 2, 0.8, 4.0))
        word = flite(pick(rng, WORDS), voice, round(frequency(note.pitch + octave)), stretch)
        time = np.arange(len(word))
        depth = 0.012 / (2 * np.pi * 5.5) * SAMPLE_RATE
        swing = time + depth * np.sin(2 * np.pi * 5.5 * time / SAMPLE_RATE)
        word = np.interp(swing, time, word).astype(np.float32)
        add(out, faded(word[None]) * np.float32(note.velocity), start)
        free = start + int(0.8 * len(word))
    return out[0]


def actor_speaks(lines: list[Path], length: int, rng: Generator) -> Audio:
    """Cut an actor's lines together, with pauses."""
    out = np.zeros((2, length), dtype=np.float32)
    place = int(rng.uniform(0, 1.5) * SAMPLE_RATE)
    while place < length:
        line = faded(load(pick(rng, lines)))
        add(out, line, place)
        place += line.shape[1] + int(rng.uniform(0.05, 1.0) * SAMPLE_RATE)
    return np.asarray(out.mean(axis=0), dtype=np.float32)


def hydrogen_kit(folder: Path) -> Kit:
    """Read the drums of a Hydrogen kit: every layer of the instrument that names each best."""
    tree = ElementTree.parse(folder / "drumkit.xml").getroot()
    instruments: dict[str, list[str]] = {}
    for element in tree.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]
    for instrument in tree.iter("instrument"):
        names = [e.text or "" for e in instrument.iter("filename")]
        if names:
            instruments[(instrument.findtext("name") or "").lower()] = names
    drums = {}
    for key, words, _, _ in DRUMS.values():
        found = [n for word in words for n in instruments if word in n and "roll" not in n]
        if found:
            drums[key] = [load(folder / name) for name in instruments[found[0]][-4:]]
    pans = {key: pan for key, _, _, pan in DRUMS.values()}
    return Kit(drums, pans, {key: level for key, _, level, _ in DRUMS.values()})


def hall(rng: Generator, seconds: float) -> Audio:
    """Make a room of velvet noise: sparse pulses of random sign that die away."""
    length = int(seconds * SAMPLE_RATE)
    response = np.zeros((2, length), dtype=np.float32)
    for side in response:
        places = rng.integers(0, length, int(seconds * 1800))
        side[places] = rng.choice((-1.0, 1.0), len(places)) * np.exp(-6.9 * places / length)
    response = filtered(response, "lowpass", float(rng.uniform(3000, 9000)), 1)
    return np.asarray(response / np.sqrt(np.sum(response**2) / 2), dtype=np.float32)


def levelled(audio: Audio, level: float = -20.0) -> Audio:
    """Bring what sounds to a level in dB."""
    return audio * desk.linear(level - desk.loudness(audio))


@dataclass(frozen=True)
class Stage:
    """The sounds of the judging songs."""

    shelf: Shelf

    def drums(self, plan: Plan, length: int, rng: Generator) -> Audio:
        """Play a recorded kit, or one of the two of avldrums."""
        notes = tuple(drum_notes(plan, rng))
        if rng.random() < 0.3:
            fonts = self.shelf.files("avldrums.lv2-soundfont", "*_4_LV2.sf2")
            return play_soundfont(pick(rng, fonts), [Channel(notes, 0, drums=True)], length)
        (kits,) = self.shelf.package("hydrogen-drumkits").rglob("drumkits")
        return hydrogen_kit(kits / pick(rng, KITS)).play(notes, length, rng)

    def bass(self, plan: Plan, length: int, rng: Generator) -> Audio:
        """Play a string, or a bass of a soundfont."""
        notes = bass_notes(plan, rng)
        if rng.random() < 0.6:
            audio = PluckedString.draw(rng, low=True).play(notes, length, rng)
            if rng.random() < 0.3:
                audio = desk.saturate(levelled(audio, -12.0), float(rng.uniform(0, 12)))
            return desk.place(filtered(audio, "lowpass", float(rng.uniform(1500, 6000))), 0, 0)
        return self._font(notes, int(rng.choice(BASSES)), length)

    def other(self, plan: Plan, length: int, rng: Generator) -> Audio:
        """Play strings, keys, a line above them, and in a quarter of songs a real guitar."""
        out = np.zeros((2, length), dtype=np.float32)
        ways = rng.permutation(4)[: int(rng.integers(1, 4))]
        for way in ways:
            if way == 0:
                string = PluckedString.draw(rng, low=False)
                audio = string.play(chord_notes(plan, rng, 48, True), length, rng)
                audio = desk.equalized(audio, rng, 6.0)
            elif way == 1:
                string = PluckedString.draw(rng, low=False)
                audio = string.play(melody_notes(plan, rng, 60), length, rng)
                audio = desk.saturate(levelled(audio, -10.0), float(rng.uniform(6, 30)))
                audio = filtered(audio, "bandpass", (90.0, float(rng.uniform(3000, 5500))))
            elif way == 2:
                notes = chord_notes(plan, rng, int(rng.integers(50, 64)), False)
                audio = self._font(notes, int(rng.choice(KEYS)), length)
            else:
                notes = melody_notes(plan, rng, int(rng.integers(60, 76)))
                audio = self._font(notes, int(rng.choice(LINES)), length)
            pan = float(rng.uniform(-0.6, 0.6))
            out += desk.place(levelled(audio), pan, 1.0) * desk.linear(rng.uniform(-6, 0))
        if rng.random() < 0.25:
            guitar, _ = self.band(length, rng)
            out += levelled(guitar) * desk.linear(rng.uniform(-3, 3))
        return out

    def vocals(self, plan: Plan, length: int, rng: Generator, way: int) -> Audio:
        """Sing by formants (0) or by `flite` (1), or speak as an actor (2); often doubled."""
        if way == 2:
            lines = self.shelf.files("fillets-ng-data-cs", "*.ogg")
            mono = actor_speaks(lines, length, rng)
            return np.stack([mono, mono])
        notes = melody_notes(plan, rng, int(rng.integers(52, 60)))
        notes = [note for note in notes if note.start + note.duration < length / SAMPLE_RATE]
        out = np.zeros((2, length), dtype=np.float32)
        singer = FormantSinger.draw(rng)
        for take in range(int(rng.choice((1, 1, 2)))):
            mono = singer.sing(notes, length, rng) if way == 0 else flite_sings(notes, length, rng)
            pan = float(rng.uniform(-0.6, 0.6)) if take else 0.0
            out += desk.place(levelled(np.stack([mono, mono])), pan, 1.0) * (0.5 if take else 1)
        return out

    def band(self, length: int, rng: Generator) -> tuple[Audio, Audio]:
        """Cut a stretch out of a real recording: its guitar and the rest of the band."""
        (songs,) = self.shelf.package(REAL_BAND).rglob("sectoid")
        song = songs / pick(rng, JUDGE_SONGS)
        parts = []
        with soundfile.SoundFile(song / "guitar.ogg") as file:
            start = int(rng.integers(20 * SAMPLE_RATE, len(file) - length - 20 * SAMPLE_RATE))
        for name in ("guitar.ogg", "song.ogg"):
            audio, _ = soundfile.read(song / name, length, start, dtype="float32", always_2d=True)
            parts.append(np.asarray(audio.T))
        return parts[0], parts[1]

    def _font(self, notes: list[Note], program: int, length: int) -> Audio:
        (font,) = self.shelf.files("timgm6mb-soundfont", "TimGM6mb.sf2")
        return play_soundfont(font, [Channel(tuple(notes), program)], length)


def mastering(rng: Generator) -> Mastering:
    """Draw a loud master, limited hard."""
    return Mastering(
        low_db=rng.uniform(-1, 2),
        high_db=rng.uniform(0, 3),
        above_db=rng.uniform(-3, 3),
        ratio=rng.uniform(1.5, 3.0),
        level_db=rng.uniform(-12, -8),
    )


def judge_song(seed: int, duration: float, stage: Stage) -> dict[str, Audio]:
    """Make one song: stem -> `(2, time)`."""
    rng = np.random.default_rng([seed, 7])
    length = int(duration * SAMPLE_RATE)
    plan = Plan.draw(rng, duration)
    room = hall(rng, float(rng.uniform(0.3, 2.0)))
    stems = {
        "drums": levelled(stage.drums(plan, length, rng), -18.0 + rng.normal(0, 2)),
        "bass": levelled(stage.bass(plan, length, rng), -20.0 + rng.normal(0, 2)),
        "other": levelled(stage.other(plan, length, rng), -20.0 + rng.normal(0, 2)),
        "vocals": levelled(stage.vocals(plan, length, rng, seed % 3), -18.0 + rng.normal(0, 2)),
    }
    for stem, wet in (("drums", 0.15), ("other", 0.3), ("vocals", 0.4)):
        stems[stem] = desk.reverberated(stems[stem], room, float(rng.uniform(0, wet)))
    return master(stems, mastering(rng))


def real_song(seed: int, duration: float, stage: Stage) -> dict[str, Audio]:
    """Put a voice before a real band: vocals and accompaniment, each `(2, time)`."""
    rng = np.random.default_rng([seed, 8])
    length = int(duration * SAMPLE_RATE)
    guitar, rest = stage.band(length, rng)
    plan = Plan.draw(rng, duration)
    voice = stage.vocals(plan, length, rng, seed % 3)
    voice = desk.reverberated(voice, hall(rng, 1.2), float(rng.uniform(0, 0.4)))
    band = levelled(guitar + rest, -18.0)
    return master(
        {"instrumental": band, "vocals": levelled(voice, -18.0 + rng.uniform(-3, 2))},
        mastering(rng),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--songs", type=int, default=12, help="number of songs with four stems")
    parser.add_argument("--real", type=int, default=6, help="number of songs with a real band")
    parser.add_argument("--duration", type=float, default=24.0, help="seconds of each song")
    parser.add_argument("--seed", type=int, default=3_000_000, help="seed of the first song")
    parser.add_argument(
        "--packages", type=Path, default=Path("data/packages"), help="where packages are unpacked"
    )
    options = parser.parse_args()

    stage = Stage(Shelf(options.packages, JUDGE))
    for part, count, make in (
        ("test", options.songs, judge_song),
        ("real", options.real, real_song),
    ):
        for seed in range(options.seed, options.seed + count):
            folder = options.folder / part / f"{seed:07d}"
            if not (folder / "mixture.wav").exists():
                write_stems(folder, make(seed, options.duration, stage))
            print(f"{part} {folder.name}", flush=True)


if __name__ == "__main__":
    main()
