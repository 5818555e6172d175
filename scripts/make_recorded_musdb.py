"""Write a folder of songs made of recordings, shaped like MUSDB18-HQ.

    python scripts/make_recorded_musdb.py data/recorded --train 100

The composer of the synthetic songs writes the notes; what sounds are recordings out of Debian's
packages (`debian_sounds.py` names them): drum loops in a new order, kits of one-shots, sampled
basses, guitars, keys and choirs, soundfonts, electric guitars of released songs, and recorded
syllables that sing. Every part stands in a room or a cabinet, and every song is mastered. A seed
decides every sample, and a second run makes only what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from debian_sounds import REAL_BAND, TRAINING, TRAINING_SONGS, Shelf
from make_synthetic_musdb import write_stems

from separator.synthesis import SAMPLE_RATE, desk
from separator.synthesis.composer import compose
from separator.synthesis.mastering import Mastering, master
from separator.synthesis.oscillators import Audio, filtered
from separator.synthesis.psola import Syllable
from separator.synthesis.sampler import (
    FADE,
    Kit,
    OneShot,
    add,
    faded,
    faster,
    load,
    resequence,
)
from separator.synthesis.score import (
    CLAP,
    COWBELL,
    CRASH,
    HAT,
    HIGH_CONGA,
    HIGH_TOM,
    KICK,
    LOW_CONGA,
    LOW_TOM,
    MID_TOM,
    OPEN_HAT,
    PEDAL_HAT,
    RIDE,
    SHAKER,
    SNARE,
    STICK,
    TAMBOURINE,
    Composition,
    Note,
    PlayerPart,
)
from separator.synthesis.soundfont import (
    DRUM_KITS,
    PROGRAMS,
    Channel,
    play_patches,
    play_soundfont,
)
from separator.synthesis.speech import installed_voices, spoken_tract
from separator.synthesis.voice import Singer, pitch_curve, sing

Generator = np.random.Generator
T = TypeVar("T")
STEMS = ("drums", "bass", "other", "vocals")
LEVELS = {"drums": -19.0, "bass": -20.5, "other": -20.0, "vocals": -18.5}  # dB
SPREAD = 3.5  # dB, how far songs stray from them

# Recordings of `sonic-pi-samples` by drum: patterns of names.
ONE_SHOTS: dict[int, tuple[str, ...]] = {
    KICK: ("bd_*", "drum_heavy_kick", "drum_bass_*", "elec_*_kick"),
    SNARE: ("drum_snare_*", "sn_*", "elec_*snare"),
    CLAP: ("perc_snap*", "elec_filt_snare", "elec_pop"),
    HAT: ("drum_cymbal_closed", "elec_tick", "elec_twip"),
    PEDAL_HAT: ("drum_cymbal_pedal",),
    OPEN_HAT: ("drum_cymbal_open", "elec_cymbal"),
    CRASH: ("drum_splash_*", "drum_cymbal_hard", "perc_swash"),
    RIDE: ("drum_cymbal_soft", "elec_triangle", "elec_bell"),
    LOW_TOM: ("drum_tom_lo_*", "elec_fuzz_tom"),
    MID_TOM: ("drum_tom_mid_*", "elec_bong"),
    HIGH_TOM: ("drum_tom_hi_*", "elec_wood"),
    HIGH_CONGA: ("tabla_na*", "tabla_te*", "tabla_tas*"),
    LOW_CONGA: ("tabla_ghe*", "tabla_tun*"),
    COWBELL: ("drum_cowbell", "elec_ping", "elec_blip"),
    STICK: ("elec_flip", "tabla_ke*", "perc_snap"),
    TAMBOURINE: ("elec_hi_snare", "perc_swoosh"),
    SHAKER: ("elec_tick", "vinyl_scratch"),
}
KIT_LEVELS = {KICK: 1.0, SNARE: 0.8, CRASH: 0.5, LOW_TOM: 0.8, MID_TOM: 0.8, HIGH_TOM: 0.8}
LOOPS = (
    *("amen", "amen_full", "breakbeat", "compus", "industrial", "mehackit1", "mehackit2"),
    *("perc1", "perc2", "electric", "tabla", "safari", "garzul", "weirdo", "3d_printer"),
)
# Recorded tones: their names and their pitches (MIDI), as measured.
BASSES = {
    "bass_dnb_f": 41,
    "bass_hard_c": 36,
    "bass_hit_c": 24,
    "bass_thick_c": 36,
    "bass_trance_c": 36,
    "bass_woodsy_c": 36,
    "bass_drop_c": 36,
    "glitch_bass_g": 50,
}
TONES = {
    "guit_harmonics": 71,
    "guit_e_fifths": 52,
    "guit_em9": 52,
    "guit_e_slide": 64,
    "ambi_piano": 58,
    "ambi_glass_hum": 57,
    "ambi_glass_rub": 78,
    "bass_voxy_c": 60,
    "elec_bell": 60,
    "elec_blup": 54,
    "elec_chime": 95,
    "elec_twang": 65,
    "perc_bell": 88,
    "loop_drone_g_97": 43,
}
# Soundfonts and their shares: most recordings are Fluid's.
FONTS = {
    "fluid-soundfont-gm": 5,
    "musescore-general-soundfont-small": 1,
    "opl3-soundfont": 1,
    "csound-soundfont": 1,
}
CHOIR = 76  # pitch of `ambi_choir`
CHOIR_PROGRAMS = (52, 53)  # "Choir Aahs", "Voice Oohs": recorded singers in most fonts


@dataclass(frozen=True)
class Sounds:
    """Everything that may sound, as files; what is asked for is read."""

    samples: dict[str, Path]
    fonts: tuple[Path, ...]
    patches: Path
    speakers: tuple[tuple[Path, ...], ...]
    talkers: tuple[tuple[Path, ...], ...]
    guitars: tuple[Path, ...]
    voices: tuple[str, ...]

    @classmethod
    def collect(cls, shelf: Shelf) -> Sounds:
        """Find the training sounds in their packages."""
        fonts = [
            path
            for name, share in FONTS.items()
            for path in shelf.files(name, "*.sf[23]") * share
            if not path.is_symlink()
        ]
        syllables = shelf.files("klettres-data", "*.ogg")
        words = [
            path
            for pattern in ("*.wav", "*.ogg")
            for path in shelf.files("ktuberling-data", pattern)
        ]
        return cls(
            samples={path.stem: path for path in shelf.files("sonic-pi-samples", "*.flac")},
            fonts=tuple(fonts),
            patches=shelf.package("freepats") / "etc/timidity/freepats.cfg",
            speakers=_speakers(syllables, 2),
            talkers=_speakers(words, 1),
            guitars=tuple(
                path
                for path in shelf.files(REAL_BAND, "guitar.ogg")
                if path.parent.name in TRAINING_SONGS
            ),
            voices=installed_voices("train"),
        )


def _speakers(paths: list[Path], depth: int) -> tuple[tuple[Path, ...], ...]:
    """Group recordings by the folder of their language: mostly one speaker each."""
    groups: dict[Path, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.parents[depth - 1], []).append(path)
    return tuple(tuple(group) for _, group in sorted(groups.items()) if len(group) >= 10)


def render(seed: int, duration: float, sounds: Sounds) -> dict[str, Audio]:
    """Make one song: stem -> `(2, time)`."""
    song = compose(seed, duration)
    rng = np.random.default_rng([seed, 3])
    length = int(duration * SAMPLE_RATE)
    room = desk.room_response(rng, float(rng.uniform(0.2, 1.8)))
    players: dict[str, Player] = {"drums": _drums, "vocals": _vocals}
    stems = {}
    for stem in STEMS:
        parts = [part for part in song.parts if part.stem == stem]
        audio = np.zeros((2, length), dtype=np.float32)
        if parts:
            audio = players.get(stem, _tuned)(song, parts, length, sounds, rng)
        stems[stem] = _treated(stem, audio, room, rng)
    return master(stems, Mastering.draw(rng))


Player = Callable[[Composition, list[PlayerPart], int, Sounds, Generator], Audio]


def _treated(stem: str, audio: Audio, room: Audio, rng: Generator) -> Audio:
    """Shape a stem as an engineer would: equaliser, compressor, room, level."""
    if not np.any(audio):
        return audio
    audio = filtered(desk.equalized(audio, rng, 4.0), "highpass", 25.0)
    if rng.random() < 0.6:
        threshold = desk.loudness(audio) + rng.uniform(-6, 4)
        audio = desk.compressed(audio, threshold, float(rng.uniform(1.5, 5)))
    if stem != "bass":
        wet = {"drums": 0.25, "other": 0.4, "vocals": 0.6}[stem]
        audio = desk.reverberated(audio, room, float(rng.uniform(0.0, wet)))
    stray = float(np.clip(rng.normal(0.0, SPREAD), -8.0, 8.0))
    return _levelled(audio, LEVELS[stem] + stray)


def _levelled(audio: Audio, level: float = -20.0) -> Audio:
    return audio * desk.linear(level - desk.loudness(audio))


def _pick(rng: Generator, things: Sequence[T]) -> T:
    return things[int(rng.integers(len(things)))]


@lru_cache(maxsize=256)
def _sample(path: Path) -> Audio:
    return load(path)


def _drums(
    song: Composition, parts: list[PlayerPart], length: int, sounds: Sounds, rng: Generator
) -> Audio:
    """Play a loop, a kit of one-shots or a soundfont's kit, or two of them."""
    notes = parts[0].notes
    ways: list[DrumPlayer] = [_loop, _one_shots, _font_drums]
    chosen = rng.choice(3, size=1 + int(rng.random() < 0.25), replace=False, p=(0.35, 0.35, 0.3))
    out = np.zeros((2, length), dtype=np.float32)
    for way in chosen:
        part = ways[int(way)](song, notes, length, sounds, rng)
        out += _levelled(part) * desk.linear(rng.uniform(-6.0, 0.0))
    if rng.random() < 0.15:
        out = desk.saturate(_levelled(out, -14.0), float(rng.uniform(0, 12)))
    return desk.place(out, 0.0, float(rng.uniform(0.3, 1.2)))


DrumPlayer = Callable[[Composition, tuple[Note, ...], int, Sounds, Generator], Audio]


def _loop(
    song: Composition, notes: tuple[Note, ...], length: int, sounds: Sounds, rng: Generator
) -> Audio:
    loop = _sample(sounds.samples[f"loop_{_pick(rng, LOOPS)}"])
    bar = 240.0 / song.tempo
    played = {int(note.start / bar) for note in notes}
    bars = [i in played for i in range(int(length / SAMPLE_RATE / bar) + 1)]
    return resequence(loop, song.tempo, bars, length, rng)


def _one_shots(
    song: Composition, notes: tuple[Note, ...], length: int, sounds: Sounds, rng: Generator
) -> Audio:
    drums, pans, gains = {}, {}, {}
    for key, patterns in ONE_SHOTS.items():
        names = [n for n in sorted(sounds.samples) if any(fnmatch(n, p) for p in patterns)]
        speed = float(2.0 ** (rng.normal(0.0, 2.0) / 12.0))
        take = faster(_sample(sounds.samples[_pick(rng, names)]), speed)
        take = faded(take, int(SAMPLE_RATE * (1.5 if key in (CRASH, RIDE, OPEN_HAT) else 0.8)))
        drums[key] = [take]
        pans[key] = 0.0 if key in (KICK, SNARE) else float(rng.uniform(-0.6, 0.6))
        gains[key] = KIT_LEVELS.get(key, 0.35) * float(rng.uniform(0.6, 1.5))
    return Kit(drums, pans, gains).play(notes, length, rng)


def _font_drums(
    song: Composition, notes: tuple[Note, ...], length: int, sounds: Sounds, rng: Generator
) -> Audio:
    kit = Channel(notes, int(rng.choice(DRUM_KITS)), drums=True)
    if rng.random() < 0.3:
        return play_patches(sounds.patches, [Channel(notes, 0, drums=True)], length)
    return play_soundfont(_pick(rng, sounds.fonts), [kit], length)


def _tuned(
    song: Composition, parts: list[PlayerPart], length: int, sounds: Sounds, rng: Generator
) -> Audio:
    """Play bass or accompaniment, each part by recordings of its own, some behind a cabinet."""
    out = np.zeros((2, length), dtype=np.float32)
    low = parts[0].stem == "bass"
    for part in parts:
        audio = _levelled(_part(part, length, sounds, rng))
        if rng.random() < (0.2 if low else 0.25):
            audio = _levelled(_cabinet(audio, rng))
        pan = 0.0 if low else float(np.clip(rng.normal(0.0, 0.35), -0.9, 0.9))
        audio = desk.place(audio, pan, float(rng.uniform(0.0, 0.3 if low else 1.2)))
        out += audio * desk.linear(rng.uniform(-6.0, 3.0))
    if not low and rng.random() < 0.3:
        guitar = _levelled(_guitar(length, sounds, rng))
        if rng.random() < 0.3:  # the guitar alone, at its own key and tempo
            out *= 0
        out += guitar * desk.linear(rng.uniform(-3.0, 3.0))
    return out


def _part(part: PlayerPart, length: int, sounds: Sounds, rng: Generator) -> Audio:
    """Play one part: a one-shot at its pitches, freepats, or a soundfont."""
    way = rng.random()
    if way < (0.3 if part.stem == "bass" else 0.12):
        tones = BASSES if part.stem == "bass" else TONES
        name = _pick(rng, sorted(tones))
        return OneShot(_sample(sounds.samples[name]), tones[name]).play(part.notes, length)
    channel = Channel(part.notes, int(rng.choice(PROGRAMS[part.role])))
    if way < 0.45:
        audio = play_patches(sounds.patches, [channel], length)
        if np.any(audio):  # freepats lacks some of the programs
            return audio
    return play_soundfont(_pick(rng, sounds.fonts), [channel], length)


def _cabinet(audio: Audio, rng: Generator) -> Audio:
    """Overdrive a part and pass it through a loudspeaker."""
    audio = desk.saturate(_levelled(audio, -12.0), float(rng.uniform(0.0, 24.0)))
    audio = filtered(audio, "highpass", float(rng.uniform(60, 120)))
    audio = filtered(audio, "lowpass", float(rng.uniform(2800, 6500)), 3)
    return desk.equalized(audio, rng, 8.0)


def _guitar(length: int, sounds: Sounds, rng: Generator) -> Audio:
    """Cut a stretch out of a real guitar's recording, at another speed."""
    path = _pick(rng, sounds.guitars)
    speed = float(2.0 ** (rng.integers(-3, 4) / 12.0))
    wanted = int(length * speed) + SAMPLE_RATE
    with soundfile.SoundFile(path) as file:
        file.seek(int(rng.integers(max(len(file) - wanted, 1))))
        audio = file.read(wanted, dtype="float32", always_2d=True).T
    return np.asarray(np.pad(faster(audio, speed), ((0, 0), (0, length)))[:, :length])


def _vocals(
    song: Composition, parts: list[PlayerPart], length: int, sounds: Sounds, rng: Generator
) -> Audio:
    """Sing or rap, perhaps doubled, with a choir where the song has one."""
    out = np.zeros((2, length), dtype=np.float32)
    for part in parts:
        backing = part.role == "backing"
        if backing:
            audio = _choir(part, length, sounds, rng)
        else:
            takes = 1 + int(rng.random() < 0.25)
            audio = _lead(part, length, sounds, rng, takes)
        out += _levelled(audio) * desk.linear(-8.0 if backing else 0.0)
    if rng.random() < 0.25:
        beats = float(rng.choice((0.5, 0.75, 1.0)))
        out = desk.echo(out, beats * 60.0 / song.tempo, rng.uniform(0.2, 0.5), 0.25)
    return out


def _choir(part: PlayerPart, length: int, sounds: Sounds, rng: Generator) -> Audio:
    if rng.random() < 0.3:
        return OneShot(_sample(sounds.samples["ambi_choir"]), CHOIR).play(part.notes, length)
    channel = Channel(part.notes, int(rng.choice(CHOIR_PROGRAMS)))
    return play_soundfont(_pick(rng, sounds.fonts), [channel], length)


def _lead(part: PlayerPart, length: int, sounds: Sounds, rng: Generator, takes: int) -> Audio:
    """Record a lead voice: takes of one singer, the second wide and quiet."""
    rap = part.role == "rap"
    singer = Singer.draw(rng)
    singer = singer.speaking() if rap else singer
    spoken = bool(sounds.voices) and rng.random() < 0.3
    voice = _pick(rng, sounds.voices) if spoken else ""
    size = float(rng.uniform(0.88, 1.15))
    speaker = _pick(rng, sounds.talkers if rap else sounds.speakers)
    out = np.zeros((2, length), dtype=np.float32)
    for take in range(takes):
        if spoken:
            tract = spoken_tract(part.notes, voice, length, np.random.default_rng(len(part.notes)))
            mono = sing(singer, part.notes, tract, length, rng)
        elif rap and rng.random() < 0.6:
            mono = _talk(part.notes, speaker, size, length, rng)
        else:
            mono = _sung(part.notes, speaker, singer, size, length, rng)
        pan = float(rng.uniform(-0.7, 0.7)) if take else 0.0
        out += desk.place(_levelled(np.stack([mono, mono])), pan, 1.0) * (0.4 if take else 1.0)
    return out


def _talk(
    notes: tuple[Note, ...], speaker: tuple[Path, ...], size: float, length: int, rng: Generator
) -> Audio:
    """Say words at the onsets of notes, one after the other."""
    out = np.zeros((2, length), dtype=np.float32)
    free = 0
    for note in notes:
        start = int(note.start * SAMPLE_RATE)
        if start >= free:
            word = faster(_sample(_pick(rng, speaker)), size * 1.15)[:, : 2 * SAMPLE_RATE]
            add(out, faded(word) * np.float32(note.velocity), start)
            free = start + word.shape[1]
    return np.asarray(out.mean(axis=0), dtype=np.float32)


@lru_cache(maxsize=512)
def _syllable(path: Path, size: float) -> Syllable | None:
    mono = faster(_sample(path)[:, : 2 * SAMPLE_RATE], size).mean(axis=0)
    return Syllable.analyze(np.asarray(mono, dtype=np.float32))


def _sung(
    notes: tuple[Note, ...],
    speaker: tuple[Path, ...],
    singer: Singer,
    size: float,
    length: int,
    rng: Generator,
) -> Audio:
    """Sing a recorded syllable on every note."""
    hertz = pitch_curve(singer, notes, length, rng)
    out = np.zeros((1, length), dtype=np.float32)
    for note in notes:
        syllable = next(
            (s for s in (_syllable(_pick(rng, speaker), size) for _ in range(8)) if s), None
        )
        start = int(note.start * SAMPLE_RATE)
        curve = hertz[start : start + int((note.duration + 0.05) * SAMPLE_RATE)]
        if syllable is None or len(curve) < FADE:
            continue
        sound = faded(syllable.sing(curve)[None])
        level = np.sqrt(np.mean(sound**2)) + 1e-4
        add(out, sound * np.float32(0.1 * note.velocity / level), start)
    return out[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=100, help="number of songs")
    parser.add_argument("--duration", type=float, default=24.0, help="seconds of each song")
    parser.add_argument("--seed", type=int, default=2_000_000, help="seed of the first song")
    parser.add_argument(
        "--packages", type=Path, default=Path("data/packages"), help="where packages are unpacked"
    )
    options = parser.parse_args()

    sounds = Sounds.collect(Shelf(options.packages, TRAINING))
    for seed in range(options.seed, options.seed + options.train):
        folder = options.folder / "train" / f"{seed:07d}"
        if not (folder / "mixture.wav").exists():
            write_stems(folder, render(seed, options.duration, sounds))
        print(f"{seed - options.seed + 1}/{options.train} {folder.name}", flush=True)


if __name__ == "__main__":
    main()
