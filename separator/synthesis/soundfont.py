"""Sampled instruments: notes played by the `fluidsynth` program from General MIDI soundfonts.

Optional. Where the program or a font is missing, the song is made of synthesised instruments alone.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from separator.errors import AudioError
from separator.synthesis import programs
from separator.synthesis.oscillators import SAMPLE_RATE, Audio
from separator.synthesis.score import Note

TICKS = 480  # per second: a quarter note at 60 beats a minute
DRUM_CHANNEL = 9
DRUM_KITS = (0, 0, 0, 8, 16, 24, 25, 32, 40)
# General MIDI programs by role. Choirs and voices (52-54, 85, 91) are left out: they'd be vocals.
PROGRAMS: dict[str, tuple[int, ...]] = {
    "bass": (32, 33, 33, 34, 35, 36, 37, 38, 39),
    "chords": (
        *(*range(8), 11, 16, 17, 18, 19, 21, 22, *range(24, 31), *range(48, 52)),
        *(61, 62, 63, 88, 89, 90, 92, 93, 94, 95),
    ),
    "arpeggio": (*range(16), 24, 25, 26, 27, 28, 45, 46, 80, 81, 84, 104, 105, 106, 107, 108),
    "riff": (*range(8), 11, 12, 26, 27, 29, 30, 56, 61, 62, 63, 66, 80, 81, 84, 87, 104, 114),
    "lead": (
        *(22, 40, 41, 42, 56, 57, 59, 60, *range(64, 70), 71, 72, 73, 74, 75, 78, 79),
        *(80, 81, 82, 29, 30, 26, 110, 111),
    ),
}
FONT_FOLDERS = (Path("/usr/share/sounds/sf2"), Path("/usr/share/sounds/sf3"))
HELD_OUT_FONTS = frozenset({"TimGM6mb"})
# Fonts of songs that models are judged by elsewhere; composed songs leave them alone.
KEPT_BACK_FONTS = frozenset({"MuseScore_General", "Black_Pearl_4_LV2", "Red_Zeppelin_4_LV2"})


@dataclass(frozen=True)
class Channel:
    """One player on a MIDI channel: a program, the drums' kit when `drums` is set."""

    notes: tuple[Note, ...]
    program: int
    pan: float = 0.0
    drums: bool = False


def installed_fonts(timbres: str = "any") -> tuple[Path, ...]:
    """List the soundfonts that `fluidsynth` can play here, for "train", "heldout" or "any"."""
    if shutil.which("fluidsynth") is None:
        return ()
    found = sorted(path for folder in FONT_FOLDERS for path in folder.glob("*.sf[23]"))
    fonts = [p for p in found if not p.is_symlink() and p.stem not in KEPT_BACK_FONTS]
    if timbres == "any":
        return tuple(fonts)
    return tuple(p for p in fonts if (p.stem in HELD_OUT_FONTS) == (timbres == "heldout"))


def midi_file(channels: list[Channel]) -> bytes:
    """Write channels as a one-track Standard MIDI File.

    >>> midi_file([])[:4]
    b'MThd'
    """
    from mido import Message, MetaMessage, MidiFile, MidiTrack  # only soundfonts need it

    events: list[tuple[int, int, Message]] = []
    numbers = [number for number in range(16) if number != DRUM_CHANNEL]
    for channel in channels:
        to = {"channel": DRUM_CHANNEL if channel.drums else numbers.pop(0)}
        pan = round(64 + 63 * channel.pan)
        events.append((0, 0, Message("program_change", program=channel.program, **to)))
        events.append((0, 0, Message("control_change", control=10, value=pan, **to)))
        for note in channel.notes:
            key = int(np.clip(round(note.pitch), 0, 127))
            start, end = round(note.start * TICKS), round((note.start + note.duration) * TICKS)
            loud = int(np.clip(note.velocity * 120, 1, 127))
            events.append((start, 2, Message("note_on", note=key, velocity=loud, **to)))
            off = Message("note_off", note=key, velocity=0, **to)
            events.append((max(end, start + 1), 1, off))
    track = MidiTrack([MetaMessage("set_tempo", tempo=1_000_000)])
    now = 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - now))
        now = tick
    file = BytesIO()
    MidiFile(type=0, ticks_per_beat=TICKS, tracks=[track]).save(file=file)
    return file.getvalue()


def play_soundfont(font: Path, channels: list[Channel], length: int) -> Audio:
    """Render channels through a soundfont into `(2, length)` samples, without its own effects.

    Raises:
        AudioError: `fluidsynth` is missing or failed.
    """
    command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.6", "-T", "wav"]
    command += ["-O", "float", "-o", "synth.dynamic-sample-loading=1", "-r", str(SAMPLE_RATE)]
    return _played([*command, "-F", "song.wav", str(font.resolve()), "song.mid"], channels, length)


def play_patches(config: Path, channels: list[Channel], length: int) -> Audio:
    """Render channels with the program `timidity` and the patches of `freepats`.

    `config` lies where the package puts it, at etc/timidity under a root that need not be `/`.

    Raises:
        AudioError: `timidity` is missing or failed.
    """
    patches = config.resolve().parents[2] / "usr/share/midi/freepats"
    command = ["timidity", "-c", str(config.resolve()), "-L", str(patches), "-Ow1sl", "--quiet=7"]
    command += ["-s", str(SAMPLE_RATE), "-EFreverb=0", "-EFchorus=0", "-o", "song.wav", "song.mid"]
    return _played(command, channels, length)


def _played(command: list[str], channels: list[Channel], length: int) -> Audio:
    """Run a program that reads `song.mid` and writes `song.wav` in its folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "song.mid").write_bytes(midi_file(channels))
        try:
            programs.run_program(command, 120.0, Path(folder))
            audio, _ = soundfile.read(Path(folder, "song.wav"), dtype="float32", always_2d=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise AudioError(
                f"{command[0]} could not play {len(channels)} parts: {error}."
            ) from error
    stretch = np.zeros((2, length), dtype=np.float32)
    used = min(length, len(audio))
    stretch[:, :used] = audio[:used].T
    return stretch
