"""Render a composed song to stems: players, effects, levels and the mix bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator

from separator.synthesis import desk
from separator.synthesis.composer import compose
from separator.synthesis.drums import DrumKit
from separator.synthesis.instruments import draw_instrument, play
from separator.synthesis.oscillators import SAMPLE_RATE, Audio, filtered
from separator.synthesis.score import Composition, PlayerPart
from separator.synthesis.soundfont import (
    DRUM_KITS,
    PROGRAMS,
    Channel,
    installed_fonts,
    play_soundfont,
)
from separator.synthesis.speech import installed_voices, spoken_tract
from separator.synthesis.voice import Singer, sing, sung_vowels

STEMS = ("drums", "bass", "other", "vocals")

# Usual level of each stem in dB and how far songs stray from it.
LEVELS: Mapping[str, tuple[float, float]] = {
    "drums": (-20.0, 2.5),
    "bass": (-20.5, 2.5),
    "other": (-20.0, 2.5),
    "vocals": (-18.5, 2.5),
}


@dataclass(frozen=True)
class Palette:
    """The timbres a song may use.

    The default needs nothing but this package and sounds the same everywhere. `fonts` and `voices`
    add sampled instruments and spoken words where these programs are installed.
    """

    timbres: str = "any"
    fonts: tuple[Path, ...] = ()
    voices: tuple[str, ...] = ()

    @classmethod
    def installed(cls, timbres: str = "any") -> Palette:
        """Use everything found on this computer; "train" and "heldout" share no timbre."""
        return cls(timbres, installed_fonts(timbres), installed_voices(timbres))


def render_song(
    seed: int, duration: float = 30.0, palette: Palette | None = None, style: str | None = None
) -> dict[str, Audio]:
    """Compose and render a song: stem name -> `(2, time)` float32 at 44.1 kHz.

    The stems' sum is the mixture; it and every stem stay within +-0.98. The same arguments give the
    same samples.
    """
    palette = palette or Palette()
    song = compose(seed, duration, style)
    rng = np.random.default_rng([seed, 1])
    length = int(duration * SAMPLE_RATE)
    room = desk.room_response(rng, float(rng.uniform(0.3, 2.2)))
    stems = {stem: _stem(song, stem, length, palette, room, rng) for stem in STEMS}
    return _mastered(stems, rng)


def _mastered(stems: dict[str, Audio], rng: Generator) -> dict[str, Audio]:
    """Apply the bus to all stems alike."""
    mixture = np.sum(list(stems.values()), axis=0)
    threshold = desk.loudness(mixture) + rng.uniform(-2.0, 6.0)
    lift = desk.linear(rng.uniform(0.0, 5.0))
    ratio, ceiling = float(rng.uniform(1.2, 3.0)), float(rng.uniform(0.6, 0.97))
    gain = lift * desk.bus_gain(lift * mixture, threshold, ratio, ceiling)
    stems = {stem: audio * gain for stem, audio in stems.items()}
    peak = max(float(np.abs(audio).max()) for audio in stems.values())
    return {
        stem: audio * np.float32(min(1.0, 0.98 / max(peak, 1e-9))) for stem, audio in stems.items()
    }


def _stem(
    song: Composition, stem: str, length: int, palette: Palette, room: Audio, rng: Generator
) -> Audio:
    parts = [part for part in song.parts if part.stem == stem]
    if not parts:
        return np.zeros((2, length), dtype=np.float32)
    render = {"drums": _drums, "vocals": _vocals}.get(stem, _tuned)
    audio = render(song, parts, length, palette, rng)
    audio = desk.equalized(audio, rng, 5.0)
    audio = filtered(audio, "highpass", 25.0)
    level = desk.loudness(audio)
    if rng.random() < 0.6:
        audio = desk.compressed(audio, level + rng.uniform(-6, 4), float(rng.uniform(1.5, 5)))
    if rng.random() < 0.25:
        audio = desk.saturate(audio * desk.linear(-level - 12.0), float(rng.uniform(0, 10)))
    if stem != "bass":
        wet = {"drums": 0.25, "other": 0.5, "vocals": 0.6}[stem]
        audio = desk.reverberated(audio, room, float(rng.uniform(0.0, wet)))
    usual, spread = LEVELS[stem]
    target = usual + float(np.clip(rng.normal(0.0, spread), -6.0, 6.0))
    return audio * desk.linear(target - desk.loudness(audio))


def _drums(
    song: Composition, parts: list[PlayerPart], length: int, palette: Palette, rng: Generator
) -> Audio:
    notes = parts[0].notes
    sampled = bool(palette.fonts) and rng.random() < 0.5
    out = np.zeros((2, length), dtype=np.float32)
    if sampled:
        font = palette.fonts[int(rng.integers(len(palette.fonts)))]
        kit = Channel(notes, int(rng.choice(DRUM_KITS)), drums=True)
        out += _levelled(play_soundfont(font, [kit], length))
    if not sampled or rng.random() < 0.2:
        out += _levelled(DrumKit(rng).play(notes, length, rng))
    return desk.place(out, 0.0, float(rng.uniform(0.3, 1.2)))


def _tuned(
    song: Composition, parts: list[PlayerPart], length: int, palette: Palette, rng: Generator
) -> Audio:
    """Render bass or accompaniment, each part by an instrument of its own."""
    out = np.zeros((2, length), dtype=np.float32)
    for part in parts:
        if palette.fonts and rng.random() < 0.55:
            font = palette.fonts[int(rng.integers(len(palette.fonts)))]
            program = int(rng.choice(PROGRAMS[part.role]))
            audio = play_soundfont(font, [Channel(part.notes, program)], length)
        else:
            instrument = draw_instrument(part.role, rng, palette.timbres)
            audio = play(instrument, part.notes, length, rng)
        low = part.role == "bass"
        audio = _treated(_levelled(audio), song.tempo, rng, chance=0.1 if low else 0.3)
        pan = 0.0 if low else float(np.clip(rng.normal(0.0, 0.35), -0.9, 0.9))
        audio = desk.place(audio, pan, float(rng.uniform(0.0, 0.3 if low else 1.2)))
        out += audio * desk.linear(rng.uniform(-6.0, 3.0))
    return out


def _treated(audio: Audio, tempo: float, rng: Generator, chance: float) -> Audio:
    if rng.random() < chance:
        depth, rate = rng.uniform(0.0005, 0.004), rng.uniform(0.2, 2.0)
        audio = desk.chorus(audio, float(depth), float(rate), float(rng.uniform(0.2, 0.8)))
    if rng.random() < chance:
        beats = float(rng.choice((0.5, 0.75, 1.0)))
        audio = desk.echo(audio, beats * 60.0 / tempo, rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.4))
    return audio


def _vocals(
    song: Composition, parts: list[PlayerPart], length: int, palette: Palette, rng: Generator
) -> Audio:
    """Render a singer or rapper, perhaps doubled, and a choir where the song has one."""
    out = np.zeros((2, length), dtype=np.float32)
    for part in parts:
        choir, rap = part.role == "backing", part.role == "rap"
        singer = Singer.draw(rng).speaking() if rap else Singer.draw(rng)
        spoken = bool(palette.voices) and not choir and (rap or rng.random() < 0.65)
        voice = palette.voices[int(rng.integers(len(palette.voices)))] if spoken else ""
        for number in range(3 if choir else int(rng.choice((1, 1, 1, 2)))):
            singer = Singer.draw(rng) if choir else singer
            notes = part.notes[number % 2 :: 2] if choir else part.notes
            if not notes:
                continue
            if spoken:
                tract = spoken_tract(notes, voice, length, np.random.default_rng(len(notes)))
            else:
                tract = sung_vowels(singer, notes, length, np.random.default_rng(len(notes)))
            sound = _levelled(np.stack([sing(singer, notes, tract, length, rng)] * 2))
            pan = float(rng.uniform(-0.7, 0.7)) if choir or number else 0.0
            out += desk.place(sound, pan, 1.0) * desk.linear(-9.0 if choir or number else 0.0)
    return _treated(out, song.tempo, rng, chance=0.2)


def _levelled(audio: Audio) -> Audio:
    """Bring a part to -20 dB."""
    return audio * desk.linear(-20.0 - desk.loudness(audio))
