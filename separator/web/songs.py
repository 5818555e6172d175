"""Separated songs on disk: private to whoever has the link, playable, deleted after a time.

A song is found by its token alone, 128 random bits. Its tracks are addressed by number, so that no
name from outside ever becomes a path.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from separator.audio.reader import open_audio, rechunk
from separator.audio.resample import resampled
from separator.audio.stems import StemWriter
from separator.errors import AudioError
from separator.files import whole_file
from separator.web.overview import BANDS, Block, Overview, overview

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Track:
    """One thing to hear: the file, and the sample in it where the song begins.

    Attributes:
        group: What the track belongs to where several separations are compared.
        gain: What the file must be multiplied by to fit the other tracks.
    """

    name: str
    path: Path
    first: int = 0
    group: str = ""
    gain: float = 1.0


@dataclass(eq=False)
class Song:
    """A separated song: the mixture is track 0, the stems follow.

    Attributes:
        token: What its address is made of; whoever knows it may listen.
        samples: Length of every track, per channel.
        notes: What the user should know, one line each.
        facts: What else the player gets to see.
        truth: What a blind comparison hides until it is asked for.
    """

    token: str
    folder: Path
    title: str
    sample_rate: int
    channels: int
    samples: int
    tracks: tuple[Track, ...]
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    overviews: tuple[Overview, ...] = ()
    used: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def touch(self) -> None:
        """Take note that the song is used, so that it stays."""
        self.used = time.monotonic()

    def draw(self, check: Callable[[], None] = lambda: None) -> None:
        """Read every track once, for its waveform and spectrogram.

        Args:
            check: Called before each block; what it raises ends the drawing.
        """
        self.overviews = tuple(
            overview(self.blocks(track, check), self.samples, self.sample_rate)
            for track in self.tracks
        )

    def blocks(self, track: Track, check: Callable[[], None] = lambda: None) -> Iterator[Block]:
        """Yield a track as it is heard, `(channels, time)` a block; `check` as in `draw`."""
        for block in self._stream(track, 0, self.samples):
            check()
            yield block

    def _stream(self, track: Track, start: int, count: int) -> Iterator[Block]:
        """Yield a piece of a track at the song's rate (Opus files have 48 kHz), up to its end."""
        rate = self.sample_rate
        begin, duration = (track.first + start) / rate, count / rate
        with open_audio(track.path, start=begin, duration=duration) as reader:
            blocks = resampled(reader.blocks(_BLOCK), reader.sample_rate, rate)
            try:
                for block in rechunk(blocks, _BLOCK):
                    yield block * track.gain
            except AudioError:
                if reader.samples_read or not begin:
                    raise  # else it ends before its song does, as a lossy reference may

    def as_dict(self) -> dict[str, Any]:
        """Return what the player needs to know, for JSON."""
        return {
            "title": self.title,
            "sampleRate": self.sample_rate,
            "channels": min(2, self.channels),
            "samples": self.samples,
            "bands": BANDS,
            "notes": list(self.notes),
            "tracks": [
                {"name": track.name, "group": track.group, "peaks": view.peaks.tolist()}
                for track, view in zip(self.tracks, self.overviews, strict=True)
            ],
            **self.facts,
        }

    def pcm(self, start: int, count: int) -> bytes:
        """Return a piece of all tracks for listening, little-endian 16-bit integers.

        Shape: `(tracks, count, channels)`, at most two channels.
        """
        count = max(0, min(count, self.samples - start))
        pieces = [self._read(track, start, count) for track in self.tracks]
        stacked = np.stack([_for_two_ears(piece) for piece in pieces])  # (tracks, channels, count)
        scaled = np.clip(np.round(stacked * 32768), -32768, 32767)
        return scaled.transpose(0, 2, 1).astype("<i2").tobytes()

    def _read(self, track: Track, start: int, count: int) -> Block:
        """Return a piece of a track, silent beyond its end.

        It is cut out of a longer one, as resampling needs what comes before and after; that begins
        at a whole second of the file, where the samples of all rates meet.
        """
        begin, margin = track.first + start, self.sample_rate // 10
        before = begin - max(0, (begin - margin) // self.sample_rate * self.sample_rate)
        silence = np.zeros((self.channels, before + count), np.float32)
        blocks = self._stream(track, start - before, before + count + margin) if count else ()
        return np.concatenate([*blocks, silence], axis=1)[:, before : before + count]

    def mix(self, gains: Mapping[int, float]) -> Path:
        """Write the sum of some tracks, each times its gain, as they sound in the player.

        Args:
            gains: Number of a track, and what it is multiplied by.

        Raises:
            AudioError: No such track, or nothing would be heard.
        """
        heard = {number: gain for number, gain in gains.items() if gain > 0}
        if not heard or not set(heard) <= set(range(len(self.tracks))):
            raise AudioError("The mix is empty: unmute a stem or raise its volume.")
        path = self.folder / f"mix-{secrets.token_hex(8)}.wav"
        with StemWriter({"mix": path}, self.sample_rate, self.channels, bit_depth=24) as writer:
            for start in range(0, self.samples, 10 * _BLOCK):
                count = min(10 * _BLOCK, self.samples - start)
                pieces = (
                    gain * self._read(self.tracks[number], start, count)
                    for number, gain in heard.items()
                )
                writer.write({"mix": sum(pieces, np.zeros((self.channels, count), np.float32))})
        return path

    def archive(self) -> Path:
        """Return a zip of the stems, made when it is first asked for."""
        path = self.folder / "stems.zip"
        with self.lock:
            if not path.exists():
                write_zip(path, [(self.file_name(t), t.path) for t in self.tracks[1:]])
        return path

    def file_name(self, track: Track) -> str:
        """Return the name under which a track is downloaded."""
        group = f"{track.group} - " if track.group else ""
        return f"{self.title} - {group}{track.name}{track.path.suffix}"


def write_zip(path: Path, files: Sequence[tuple[str, Path]]) -> None:
    """Write files into a zip, uncompressed: audio hardly shrinks."""
    with whole_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, file in files:
            archive.write(file, name)


def _for_two_ears(piece: Block) -> Block:
    """Fold more than two channels to left and right: those of even and of odd number."""
    if len(piece) <= 2:
        return piece
    return np.stack([piece[0::2].mean(0), piece[1::2].mean(0)])


class Library:
    """Songs in a private folder, each kept for a time after its last use."""

    def __init__(self, root: Path, keep_seconds: float) -> None:
        self.root = root
        self.keep_seconds = keep_seconds
        self._songs: dict[str, Song] = {}
        self._lock = threading.Lock()

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Make a folder whose name is a new token; an error that passes takes it away again."""
        folder = self.root / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700, parents=True)
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def add(self, song: Song) -> Song:
        """Make a song reachable."""
        with self._lock:
            self._songs[song.token] = song
        return song

    def get(self, token: str) -> Song:
        """Return a song.

        Raises:
            AudioError: There is none under this token, or no longer.
        """
        with self._lock:
            song = self._songs.get(token)
            if song is None:
                raise AudioError("This result is no longer here; separate the song again.")
            song.touch()
            return song

    def bundle(self, songs: Sequence[Song]) -> Path:
        """Write the stems of several songs into one zip, a folder for each song."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.root / f"bundle-{secrets.token_hex(8)}.zip"
        write_zip(
            path,
            [
                (f"{number:02d} {song.title}/{song.file_name(track)}", track.path)
                for number, song in enumerate(songs, start=1)
                for track in song.tracks[1:]
            ],
        )
        return path

    def delete(self, token: str) -> None:
        """Delete a song with its files, if it is there."""
        with self._lock:
            song = self._songs.pop(token, None)
        if song:
            shutil.rmtree(song.folder, ignore_errors=True)

    def expire(self) -> None:
        """Delete the songs that nobody has used for a time."""
        limit = time.monotonic() - self.keep_seconds
        with self._lock:
            old = [token for token, song in self._songs.items() if song.used < limit]
        for token in old:
            self.delete(token)


def adopt(source: Path, folder: Path, name: str = "mixture") -> Path:
    """Bring an upload into a song's folder, so that it lives as long as the song."""
    target = folder / f"{name}{source.suffix.lower()}"
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def dump(song: Song) -> str:
    """Return the player's view of a song as JSON."""
    return json.dumps(song.as_dict(), separators=(",", ":"))
