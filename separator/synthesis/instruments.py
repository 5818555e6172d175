"""Tuned instruments: a family draws an instrument, an instrument plays notes.

Every family is a function of a random generator, and what it draws (spectrum, filter, envelope,
detuning, vibrato, noise) makes one timbre out of a continuum. The families cover subtractive and
additive synthesis, damped strings (the closed form of Karplus-Strong), struck bars, FM, organs,
winds, brass and bowed strings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from separator.synthesis.oscillators import SAMPLE_RATE, Audio, Envelope
from separator.synthesis.score import Note, frequency
from separator.synthesis.tones import Instrument, Modulated, Struck, Wavetable


def _plucked_string(rng: Generator) -> Instrument:
    length = float(np.exp(rng.uniform(np.log(0.25), np.log(2.5))))
    return Wavetable(
        Envelope(0.002, length, 0.0, rng.uniform(0.05, 0.3)),
        rolloff=rng.uniform(0.5, 1.4),
        comb=rng.uniform(0.06, 0.35),
        bright=rng.uniform(20, 90),
        dull=rng.uniform(1.5, 5),
        sweep=length * rng.uniform(0.3, 0.9),
        slope=rng.uniform(1.5, 3),
        damping=rng.uniform(0.0, 0.05),
        body=_body(rng, 100, 1500, 3),
        voices=int(rng.choice((1, 1, 2))),
        detune=rng.uniform(1, 6),
        width=rng.uniform(0, 0.7),
    )


def _piano(rng: Generator) -> Instrument:
    length = rng.uniform(0.8, 2.5)
    return Wavetable(
        Envelope(0.002, length, 0.0, rng.uniform(0.1, 0.35)),
        rolloff=rng.uniform(0.8, 1.5),
        comb=rng.uniform(0.1, 0.14),
        bright=rng.uniform(12, 40),
        dull=rng.uniform(3, 8),
        sweep=rng.uniform(0.2, 0.8),
        slope=rng.uniform(2, 4),
        body=_body(rng, 80, 2500, 4),
        voices=2,
        detune=rng.uniform(0.5, 3),
        width=rng.uniform(0.2, 0.9),
    )


def _distorted_guitar(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(0.003, rng.uniform(1, 3), rng.uniform(0.3, 0.8), rng.uniform(0.05, 0.15)),
        rolloff=rng.uniform(0.3, 0.9),
        comb=rng.uniform(0.08, 0.3),
        bright=rng.uniform(25, 60),
        dull=rng.uniform(8, 20),
        sweep=rng.uniform(0.3, 1.5),
        slope=rng.uniform(3, 6),
        body=_body(rng, 300, 4000, 3),
        voices=2,
        detune=rng.uniform(4, 12),
        width=rng.uniform(0.4, 1.0),
        drive=rng.uniform(2, 12),
    )


def _organ(rng: Generator) -> Instrument:
    drawbars = np.zeros(16)
    drawbars[[0, 1, 2, 3, 4, 5, 7, 9, 11, 15]] = rng.uniform(0, 1, 10) ** 1.5
    drawbars[0] = max(drawbars[0], 0.5)
    return Wavetable(
        Envelope(rng.uniform(0.004, 0.03), 1.0, 1.0, rng.uniform(0.03, 0.12)),
        partials=tuple(drawbars.tolist()),
        bright=60,
        dull=60,
        voices=int(rng.choice((1, 2))),
        detune=rng.uniform(0, 4),
        width=rng.uniform(0.2, 1),
        vibrato_cents=float(rng.choice((0.0, 8.0, 15.0))),
        vibrato_hertz=rng.uniform(0.8, 7),
        tremolo=rng.uniform(0, 0.3),
        drive=float(rng.choice((0.0, 0.0, 2.0))),
    )


def _synth(rng: Generator) -> Instrument:
    opening = bool(rng.random() < 0.2)
    return Wavetable(
        Envelope(rng.uniform(0.002, 0.05), rng.uniform(0.1, 0.8), rng.uniform(0.2, 0.9), 0.15),
        rolloff=rng.uniform(0.7, 1.6),
        odd=float(rng.choice((0.0, 0.0, 0.6, 0.95))),
        bright=float(np.exp(rng.uniform(np.log(8), np.log(120)))),
        dull=float(np.exp(rng.uniform(np.log(2), np.log(30)))),
        sweep=rng.uniform(0.05, 0.6) * (-1 if opening else 1),
        slope=rng.uniform(2, 6),
        voices=int(rng.choice((1, 2, 3, 5))),
        detune=rng.uniform(3, 22),
        width=rng.uniform(0, 1),
        vibrato_cents=float(rng.choice((0.0, 0.0, 10.0))),
    )


def _pad(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(rng.uniform(0.1, 0.6), 1.0, rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.2)),
        rolloff=rng.uniform(0.8, 1.8),
        odd=rng.uniform(0, 0.7),
        bright=float(np.exp(rng.uniform(np.log(5), np.log(40)))),
        dull=float(np.exp(rng.uniform(np.log(3), np.log(20)))),
        sweep=rng.uniform(0.5, 2.0) * float(rng.choice((-1.0, 1.0))),
        slope=rng.uniform(2, 4),
        voices=int(rng.choice((3, 4, 5))),
        detune=rng.uniform(5, 18),
        width=rng.uniform(0.6, 1),
        vibrato_cents=rng.uniform(0, 12),
        tremolo=rng.uniform(0, 0.4),
        vibrato_hertz=rng.uniform(0.3, 5),
    )


def _strings(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(rng.uniform(0.04, 0.25), 1.0, 0.9, rng.uniform(0.15, 0.5)),
        rolloff=rng.uniform(0.9, 1.3),
        bright=rng.uniform(15, 40),
        dull=rng.uniform(10, 20),
        slope=rng.uniform(2, 4),
        body=_body(rng, 250, 3500, 5),
        voices=int(rng.choice((1, 4, 5))),
        detune=rng.uniform(5, 16),
        width=rng.uniform(0.3, 1),
        vibrato_cents=rng.uniform(8, 30),
        vibrato_hertz=rng.uniform(4.5, 6.5),
        breath=rng.uniform(0, 0.03),
    )


def _brass(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(rng.uniform(0.02, 0.08), 0.3, rng.uniform(0.7, 0.95), rng.uniform(0.06, 0.2)),
        rolloff=rng.uniform(0.4, 1.0),
        bright=rng.uniform(8, 25),
        dull=rng.uniform(1.5, 4),
        sweep=-rng.uniform(0.03, 0.12),
        slope=rng.uniform(2, 5),
        body=_body(rng, 500, 2500, 2),
        voices=int(rng.choice((1, 2, 3))),
        detune=rng.uniform(2, 10),
        width=rng.uniform(0, 0.8),
        vibrato_cents=rng.uniform(0, 20),
    )


def _reed(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(rng.uniform(0.02, 0.08), 0.5, 0.85, rng.uniform(0.05, 0.15)),
        rolloff=rng.uniform(0.6, 1.3),
        odd=float(rng.choice((0.0, 0.5, 0.9))),
        bright=rng.uniform(10, 30),
        dull=rng.uniform(5, 15),
        body=_body(rng, 400, 3000, 3),
        vibrato_cents=rng.uniform(0, 30),
        vibrato_hertz=rng.uniform(4, 6.5),
        breath=rng.uniform(0.01, 0.1),
    )


def _flute(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(rng.uniform(0.03, 0.12), 0.5, 0.9, rng.uniform(0.08, 0.2)),
        rolloff=rng.uniform(1.5, 3.0),
        bright=rng.uniform(4, 12),
        dull=rng.uniform(2, 6),
        vibrato_cents=rng.uniform(5, 35),
        tremolo=rng.uniform(0, 0.3),
        vibrato_hertz=rng.uniform(4, 6.5),
        breath=rng.uniform(0.05, 0.3),
    )


def _bars(rng: Generator) -> Instrument:
    kinds = (
        (1.0, 3.93, 9.2),
        (1.0, 4.0, 10.0),
        (1.0, 2.76, 5.4, 8.93),
        (1.0, 2.0, 3.01, 4.17, 5.43),
    )
    ratios = np.asarray(kinds[int(rng.integers(len(kinds)))])
    ratios = np.concatenate([ratios[:1], ratios[1:] * rng.uniform(0.96, 1.04, len(ratios) - 1)])
    gains = np.concatenate([[1.0], rng.uniform(0.05, 0.6, len(ratios) - 1)])
    decay = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    return Struck(
        tuple(ratios.tolist()),
        tuple(gains.tolist()),
        decay,
        rng.uniform(0, 0.3),
        bool(rng.random() < 0.4),
        rng.uniform(0, 0.5),
    )


def _electric_piano(rng: Generator) -> Instrument:
    return Modulated(
        Envelope(0.002, rng.uniform(0.8, 2.0), 0.0, rng.uniform(0.1, 0.3)),
        float(rng.choice((1.0, 2.0, 3.0, 7.0, 14.0))),
        rng.uniform(0.5, 2.5),
        rng.uniform(0.05, 0.6),
        rng.uniform(0.0, 0.3),
        rng.uniform(0, 2),
    )


def _metallic(rng: Generator) -> Instrument:
    return Modulated(
        Envelope(rng.uniform(0.002, 0.1), rng.uniform(0.3, 1.5), rng.uniform(0, 0.6), 0.3),
        float(rng.choice((0.5, 1.41, 1.5, 2.0, 3.5, 5.19))),
        rng.uniform(1.0, 6.0),
        rng.uniform(0.1, 1.5),
        rng.uniform(0.0, 0.5),
        rng.uniform(0, 3),
    )


def _sub_bass(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(rng.uniform(0.004, 0.02), 0.5, rng.uniform(0.6, 1.0), rng.uniform(0.04, 0.12)),
        rolloff=rng.uniform(1.8, 4.0),
        bright=rng.uniform(3, 12),
        dull=rng.uniform(2, 6),
        drive=float(rng.choice((0.0, 2.0, 4.0))),
    )


def _synth_bass(rng: Generator) -> Instrument:
    return Wavetable(
        Envelope(0.003, rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.9), rng.uniform(0.04, 0.1)),
        rolloff=rng.uniform(0.8, 1.3),
        odd=float(rng.choice((0.0, 0.9))),
        bright=float(np.exp(rng.uniform(np.log(8), np.log(120)))),
        dull=rng.uniform(2, 12),
        sweep=rng.uniform(0.04, 0.4),
        slope=rng.uniform(3, 8),
        voices=int(rng.choice((1, 1, 2, 3))),
        detune=rng.uniform(2, 14),
        width=rng.uniform(0, 0.4),
        drive=float(rng.choice((0.0, 0.0, 3.0))),
    )


def _plucked_bass(rng: Generator) -> Instrument:
    length = rng.uniform(0.5, 2.5)
    return Wavetable(
        Envelope(0.003, length, 0.0, rng.uniform(0.04, 0.12)),
        rolloff=rng.uniform(0.8, 1.6),
        comb=rng.uniform(0.08, 0.35),
        bright=rng.uniform(8, 50),
        dull=rng.uniform(2, 6),
        sweep=rng.uniform(0.1, 0.6),
        slope=rng.uniform(2, 4),
        body=_body(rng, 80, 900, 2),
        drive=float(rng.choice((0.0, 0.0, 1.5))),
    )


def _modulated_bass(rng: Generator) -> Instrument:
    return Modulated(
        Envelope(0.003, rng.uniform(0.2, 1.0), rng.uniform(0.2, 0.8), rng.uniform(0.04, 0.1)),
        float(rng.choice((0.5, 1.0, 2.0, 3.0))),
        rng.uniform(0.8, 4.0),
        rng.uniform(0.05, 0.4),
        rng.uniform(0.1, 0.5),
        rng.uniform(0, 1),
    )


def _body(
    rng: Generator, low: float, high: float, count: int
) -> tuple[tuple[float, float, float], ...]:
    centres = np.exp(rng.uniform(np.log(low), np.log(high), count))
    return tuple((float(c), rng.uniform(0.5, 4.0), rng.uniform(0.05, 0.3)) for c in centres)


InstrumentFamily = Callable[[Generator], Instrument]

BASSES: dict[str, InstrumentFamily] = {
    "sub": _sub_bass,
    "synth": _synth_bass,
    "plucked": _plucked_bass,
    "modulated": _modulated_bass,
}
SHORT: dict[str, InstrumentFamily] = {
    "string": _plucked_string,
    "piano": _piano,
    "guitar": _distorted_guitar,
    "organ": _organ,
    "synth": _synth,
    "bars": _bars,
    "electric piano": _electric_piano,
    "metallic": _metallic,
    "brass": _brass,
}
LONG: dict[str, InstrumentFamily] = {
    "pad": _pad,
    "strings": _strings,
    "organ": _organ,
    "synth": _synth,
    "guitar": _distorted_guitar,
    "piano": _piano,
    "electric piano": _electric_piano,
}
LEADS: dict[str, InstrumentFamily] = {
    "reed": _reed,
    "flute": _flute,
    "brass": _brass,
    "strings": _strings,
    "synth": _synth,
    "guitar": _distorted_guitar,
    "bars": _bars,
    "string": _plucked_string,
}
INSTRUMENTS = {
    "bass": BASSES,
    "chords": SHORT | LONG,
    "arpeggio": SHORT,
    "riff": SHORT,
    "lead": LEADS,
}
# Families that training may keep for the held-out songs alone.
HELD_OUT = {"metallic", "bars", "reed", "organ", "modulated"}


def draw_instrument(role: str, rng: Generator, timbres: str = "any") -> Instrument:
    """Draw an instrument for a role: bass, chords, arpeggio, riff or lead.

    `timbres` chooses among the families: "train", "heldout" (disjoint from it) or "any".
    """
    names = sorted(INSTRUMENTS[role])
    if timbres != "any":
        names = [name for name in names if (name in HELD_OUT) == (timbres == "heldout")]
    return INSTRUMENTS[role][names[int(rng.integers(len(names)))]](rng)


def play(instrument: Instrument, notes: tuple[Note, ...], length: int, rng: Generator) -> Audio:
    """Play notes into a stretch of `(2, length)` samples."""
    out = np.zeros((2, length), dtype=np.float32)
    for note in notes:
        start = int(note.start * SAMPLE_RATE)
        sound = instrument.render(frequency(note.pitch), note.duration, note.velocity, rng)
        used = min(sound.shape[1], length - start)
        out[:, start : start + used] += sound[:, :used]
    return out
