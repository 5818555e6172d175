"""What is evaluated: models, folders of estimates, oracles and the mixture itself.

A method is plain data until it is asked for estimates, so that it can be sent to other processes;
a model loads its network there, once.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from separator.audio.reader import open_audio
from separator.datasets.songs import audio_in
from separator.ensemble.knobs import Knobs
from separator.errors import AudioError, ConfigError
from separator.evaluation.memory import Usage, measured
from separator.evaluation.oracles import ORACLES
from separator.evaluation.results import Kind, safe_name
from separator.words import MIXTURE, nearest
from separator.zoo.cards import AnyCard
from separator.zoo.members import find_members

if TYPE_CHECKING:
    from separator.api import Separator

_TEXTS = {"description", "licence", "note", "training_data", "source", "scores"}  # of a card


@dataclass(frozen=True, eq=False)
class LoadedSong:
    """A track in memory.

    Attributes:
        name: Name of the track.
        split: Split of the data set; also a folder's name.
        stems: Names of the references.
        references: The true stems, `(stems, channels, time)`.
        mixture: `(channels, time)`.
        sample_rate: Hz.
    """

    name: str
    split: str
    stems: tuple[str, ...]
    references: Tensor
    mixture: Tensor
    sample_rate: int

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.mixture.shape[-1] / self.sample_rate


@dataclass(frozen=True, eq=False)
class Estimates:
    """What a method gives: stems `(channels, time)` by name, and what that took, if anything."""

    stems: Mapping[str, Tensor]
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()


class Method(Protocol):
    """Source of estimates of a song's stems."""

    @property
    def name(self) -> str:
        """Name in tables, unlike every other method's."""

    @property
    def kind(self) -> Kind:
        """Where the estimates come from."""

    def identity(self, track: str, split: str) -> object:
        """Return plain data that changes with everything that decides the estimates."""

    def estimate(self, song: LoadedSong, cancel: threading.Event | None = None) -> Estimates:
        """Return the estimates.

        Raises:
            SeparatorError: There are none; says why.
        """


@dataclass(frozen=True)
class OracleMethod:
    """True stems made use of: an upper bound of a kind of model, or the mixture, a lower one.

    `oracle` is a key of `separator.evaluation.oracles.ORACLES`.
    """

    oracle: str

    @property
    def name(self) -> str:
        """As in `Method`."""
        return self.oracle if self.oracle == MIXTURE else f"oracle-{self.oracle}"

    @property
    def kind(self) -> Kind:
        """As in `Method`."""
        return "mixture" if self.oracle == MIXTURE else "oracle"

    def identity(self, track: str, split: str) -> object:
        """As in `Method`."""
        return ORACLES[self.oracle].definition

    def estimate(self, song: LoadedSong, cancel: threading.Event | None = None) -> Estimates:
        """As in `Method`."""
        estimates = ORACLES[self.oracle](song.mixture, song.references)
        return Estimates(dict(zip(song.stems, estimates, strict=True)))


@dataclass(frozen=True)
class ModelMethod:
    """Model or ensemble that separates.

    Attributes:
        card: Card of the model.
        knobs: Choices for its runs.
        offline: Whether downloads are forbidden.
    """

    card: AnyCard
    knobs: Knobs = field(default_factory=Knobs)
    offline: bool = False
    kind: Kind = "model"

    @property
    def name(self) -> str:
        """As in `Method`."""
        return self.card.name

    @property
    def cards(self) -> list[AnyCard]:
        """The card, and those of the models below an ensemble."""
        return [self.card, *find_members(self.card).models]

    @cached_property
    def separator(self) -> Separator:
        """The networks, in memory."""
        from separator.api import Separator

        return Separator(self.card, self.knobs, offline=self.offline)

    def identity(self, track: str, split: str) -> object:
        """As in `Method`: all cards below the model's, with the checksums of their weights."""
        dumps = [card.model_dump(mode="json", exclude=_TEXTS) for card in self.cards]
        return [dumps, asdict(self.knobs)]

    def estimate(self, song: LoadedSong, cancel: threading.Event | None = None) -> Estimates:
        """As in `Method`; memory counts the weights too."""
        separator = self.separator
        with measured(separator.device) as usage:
            stems = separator.separate(song.mixture, song.sample_rate, cancel=cancel)
        if usage.bytes is not None:
            weights = (*separator.network.parameters(), *separator.network.buffers())
            usage.bytes += sum(weight.numel() * weight.element_size() for weight in weights)
        return Estimates(stems, usage)


@dataclass(frozen=True)
class FolderMethod:
    """Estimates that are there already, from this or any other program.

    Looked for are, in this order and with any extension of audio, SPLIT/TRACK/STEM, TRACK/STEM
    (each also in a folder `mixture` below the track's) and TRACK_STEM.

    Attributes:
        folder: Folder that holds them.
        name: Name of the method.
        stems: Expected of every track.
    """

    folder: Path
    name: str
    stems: tuple[str, ...]
    kind: Kind = "estimates"

    def identity(self, track: str, split: str) -> object:
        """As in `Method`: places, sizes and times of the files."""
        files = find_stems(self.folder, track, split)
        status = ((stem, path, path.stat()) for stem, path in sorted(files.items()))
        return [[stem, str(path), stat.st_size, stat.st_mtime_ns] for stem, path, stat in status]

    def estimate(self, song: LoadedSong, cancel: threading.Event | None = None) -> Estimates:
        """As in `Method`."""
        files = find_stems(self.folder, song.name, song.split)
        missing = [stem for stem in self.stems if stem not in files]
        if missing:
            there = ", ".join(sorted(files)) or "nothing"
            raise AudioError(
                f"'{self.folder}' lacks '{missing[0]}' of '{song.name}', which other tracks have; "
                f"of this track it has: {there}.{nearest(missing[0], files)}"
            )
        return Estimates({stem: _read(files[stem], song) for stem in self.stems})


def find_stems(folder: Path, track: str, split: str) -> dict[str, Path]:
    """Find the files of a track's estimates, by stem in lower case; empty if there are none.

    Raises:
        ConfigError: Two files are of the same stem.
    """
    name = safe_name(track)
    for place in (folder / split / name, folder / name):
        for below in (place, place / MIXTURE):
            found = _by_stem((path.stem, path) for path in _audio(below))
            found.pop(MIXTURE, None)
            if found:
                return found
    flat = (path for path in _audio(folder) if path.stem.startswith(f"{name}_"))
    return _by_stem((path.stem.removeprefix(f"{name}_"), path) for path in flat)


def _by_stem(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, path in files:
        stem = name.lower()
        if stem in found and stem != MIXTURE:
            raise ConfigError(
                f"'{found[stem]}' and '{path.name}' beside it are both estimates of '{stem}'; "
                "remove one of them."
            )
        found[stem] = path
    return found


def open_folder(folder: Path, name: str, tracks: Sequence[str], split: str) -> FolderMethod:
    """Prepare a folder of estimates: stems that half of the tracks have are expected of all.

    Raises:
        ConfigError: It holds no estimates of any track, or two of one stem.
    """
    found = [stems for track in tracks if (stems := find_stems(folder, track, split))]
    if not found:
        example = f"{folder}/{tracks[0]}/vocals.wav" if tracks else f"{folder}/TRACK/STEM.wav"
        raise ConfigError(
            f"'{folder}' holds no estimates of any of the {len(tracks)} tracks; wanted are files "
            f"like '{example}'."
        )
    counts = Counter(stem for stems in found for stem in stems)
    return FolderMethod(
        folder, name, tuple(s for s in sorted(counts) if 2 * counts[s] >= len(found))
    )


def choose_oracles(names: Sequence[str]) -> tuple[OracleMethod, ...]:
    """Return oracles by key, by the beginning of keys ("irm"), or all of them for "all".

    Raises:
        ConfigError: There is no such oracle.
    """
    chosen: dict[str, OracleMethod] = {}
    for name in names:
        found = [key for key in ORACLES if key.startswith("" if name == "all" else name)]
        if not found:
            raise ConfigError(
                f"Unknown oracle '{name}'; allowed: {', '.join(ORACLES)}, all."
                f"{nearest(name, ORACLES)}"
            )
        chosen |= {key: OracleMethod(key) for key in found}
    return tuple(chosen.values())


def digest(*parts: object) -> str:
    """Return a short text that is the same for the same plain data alone."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _audio(folder: Path) -> list[Path]:
    return audio_in(folder) if folder.is_dir() else []


def _read(path: Path, song: LoadedSong) -> Tensor:
    """Read an estimate that fits the song in rate, channels and length."""
    with open_audio(path) as reader:
        audio = torch.cat([torch.from_numpy(block) for block in reader], dim=-1)
        rate = reader.sample_rate
        if reader.truncation:
            raise AudioError(f"'{path}' {reader.truncation.message}.")
    if (rate, audio.shape) != (song.sample_rate, song.mixture.shape):
        channels, samples = song.mixture.shape
        raise AudioError(
            f"'{path}' has {_form(rate, *audio.shape)}; the track has "
            f"{_form(song.sample_rate, channels, samples)}. Nothing is cut, padded or resampled "
            "here: make the estimate anew."
        )
    return audio


def _form(rate: int, channels: int, samples: int) -> str:
    return f"{rate} Hz, {channels} channels, {samples} samples"
