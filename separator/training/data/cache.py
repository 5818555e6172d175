"""Decoded stems on disk, mapped into memory: a segment costs a copy, not a decoder.

    cache/3f9a0c27d1b8e645.npy       (time, channels), int16 or float16
    cache/3f9a0c27d1b8e645.json      what it is; written last: the stem is whole

The name says which files, at which rate, with how many channels. Stems are decoded once, several
at a time, also when many processes want them. What was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from separator.audio.resample import resampled
from separator.datasets import AudioFile, Track
from separator.datasets.problems import Problem, unreadable
from separator.errors import AudioError, ConfigError
from separator.files import remove_stale, whole_file, write_text
from separator.synthesis.oscillators import Audio
from separator.training.data.mixing import chunk_levels

SampleType = Literal["int16", "float16"]

_VERSION = 1


@dataclass(frozen=True)
class Stored:
    """One stem of a song in the cache.

    Attributes:
        path: The `.npy` file.
        frames: Samples in each channel.
        scale: What to multiply samples by for an amplitude.
        levels: RMS amplitude of each chunk, see `separator.training.data.mixing.chunk_levels`.
    """

    path: Path
    frames: int
    scale: float
    levels: tuple[float, ...]


@dataclass(frozen=True)
class Cache:
    """Where decoded stems are kept, and in which form.

    Attributes:
        folder: Made when it is first used.
        sample_rate: Hz.
        channels: Stereo becomes mono as the mean, mono becomes stereo as two equal channels.
        sample_type: Type of the samples on disk: `int16` is exact for 16-bit sources.
    """

    folder: Path
    sample_rate: int
    channels: int
    sample_type: SampleType = "int16"

    def songs(
        self, tracks: Sequence[Track], stems: Sequence[str]
    ) -> tuple[list[dict[str, Stored]], list[Problem]]:
        """Return those stems of every track that sound, decoded now unless they were before.

        And what is wrong with the tracks that are missing because they can't be decoded.

        Raises:
            ConfigError: A track's channels can't be made those of the cache, or the folder can't be
                written to.
        """
        try:
            return self._songs(tracks, stems)
        except OSError as error:  # sources have errors of their own: this is the cache's disk
            raise ConfigError(
                f"Can't keep songs in '{self.folder}': {error.strerror or error}. Free some space, "
                "or choose another folder with 'data.cache'."
            ) from error

    def _songs(
        self, tracks: Sequence[Track], stems: Sequence[str]
    ) -> tuple[list[dict[str, Stored]], list[Problem]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self.folder)
        jobs = [(track, stem) for track in tracks for stem in stems if stem in track.stems]
        songs: dict[str, dict[str, Stored]] = {track.name: {} for track in tracks}
        problems = []
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            stored = pool.map(lambda job: self._stem_or_problem(*job), jobs)
            for (track, stem), found in zip(jobs, stored, strict=True):
                if isinstance(found, Problem):
                    problems.append(found)
                    songs.pop(track.name, None)
                elif found.frames and track.name in songs:
                    songs[track.name][stem] = found
        return list(songs.values()), problems

    def _stem_or_problem(self, track: Track, stem: str) -> Stored | Problem:
        try:
            return self.stem(track, stem)
        except AudioError as error:
            return unreadable(track.name, str(error))

    def stem(self, track: Track, stem: str) -> Stored:
        """Return one stem; a silent one has no frames and no file.

        Raises:
            AudioError: A file can't be decoded.
            ConfigError: The track's channels can't be made those of the cache.
        """
        key = self._key(track, stem)
        described = self.folder / f"{key}.json"
        if not described.exists():
            with FileLock(self.folder / f"{key}.lock"):
                if not described.exists():
                    self._decode(track, stem, described)
        facts = json.loads(described.read_text())
        levels = tuple(facts["levels"])
        return Stored(described.with_suffix(".npy"), facts["frames"], facts["scale"], levels)

    def _key(self, track: Track, stem: str) -> str:
        """Return what changes when a file does, or what is made of it."""
        sources = track.files[stem]
        if other := next((one for one in sources if not isinstance(one, AudioFile)), None):
            raise ConfigError(f"Only files can be cached, not {type(other).__name__}.")
        files = [source.identity() for source in sources]
        form = [_VERSION, self.sample_rate, self.channels, self.sample_type, track.samples]
        return hashlib.sha256(json.dumps([form, files]).encode()).hexdigest()[:16]

    def _decode(self, track: Track, stem: str, described: Path) -> None:
        audio = self._read(track, stem)
        samples, scale = packed(audio, self.sample_type)
        levels = chunk_levels(audio, self.sample_rate)
        facts: dict[str, Any] = {"track": track.name, "stem": stem, "scale": scale}
        facts["frames"] = audio.shape[1] if np.any(samples) else 0
        facts["levels"] = [round(float(level), 7) for level in levels]
        if facts["frames"]:
            _write(described.with_suffix(".npy"), samples.T)
        write_text(described, json.dumps(facts))

    def _read(self, track: Track, stem: str) -> Audio:
        """Decode a whole stem: some 100 MB for five minutes of stereo."""
        blocks = resampled(track.blocks(stem), track.sample_rate, self.sample_rate)
        silence = np.zeros((track.channels, 0), dtype=np.float32)
        audio: Audio = np.concatenate([silence, *blocks], axis=1)
        if self.channels == track.channels:
            return audio
        if self.channels == 1:
            return np.asarray(audio.mean(0, keepdims=True), dtype=np.float32)
        if track.channels == 1:
            return np.repeat(audio, self.channels, axis=0)
        raise ConfigError(
            f"'{track.name}' has {track.channels} channels; a network of {self.channels} can't be "
            f"trained on it. Convert its files to {self.channels} or 1, or move it elsewhere."
        )


def packed(audio: Audio, sample_type: SampleType) -> tuple[npt.NDArray[np.generic], float]:
    """Return samples of two bytes, and what to multiply them by.

    16-bit recordings come back exactly from int16; what exceeds full scale is scaled to fit.

    >>> samples, scale = packed(np.array([[0.5, -1.0, 0.25]], np.float32), "int16")
    >>> samples.tolist(), (samples * scale).tolist()
    ([[16384, -32768, 8192]], [[0.5, -1.0, 0.25]])
    """
    if sample_type == "float16":
        return audio.astype(np.float16), 1.0
    peak = float(np.abs(audio).max(initial=0.0))
    scale = 1.0 / 32768.0 if peak <= 1.0 else peak / 32767.0
    return np.clip(np.rint(audio / scale), -32768, 32767).astype(np.int16), scale


def _write(path: Path, samples: npt.NDArray[np.generic]) -> None:
    with whole_file(path) as part, part.open("wb") as file:
        np.save(file, np.ascontiguousarray(samples))
