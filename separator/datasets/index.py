"""Facts about the files of a data set, remembered so that a second look is immediate.

The index is one JSON file for each data set, in the cache or wherever the caller wants it. A
file's facts hold as long as its size and time of change do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soundfile

from separator.audio.info import AudioInfo
from separator.audio.reader import open_audio
from separator.datasets.songs import Place
from separator.errors import AudioError
from separator.files import write_text

_VERSION = 1
_DIRECT = ("wav", "flac")
_TAIL = 0.1  # seconds at the end that are decoded to see whether a file is whole


@dataclass(frozen=True)
class AudioFacts:
    """What is known of one audio stream; where `error` is set, nothing else.

    Attributes:
        samples: How many can be read.
        streams: How many audio streams the file has.
        lossless: Whether the codec keeps every sample.
        direct: Whether libsndfile can read it, which finds a position many times faster.
        error: Why the file can't be used.
    """

    sample_rate: int = 0
    channels: int = 0
    samples: int = 0
    streams: int = 0
    lossless: bool = True
    direct: bool = False
    error: str | None = None


def examine(place: Place) -> AudioFacts:
    """Open a file, and decode its end (all of it, where its header states no length)."""
    try:
        return _examine(place)
    except AudioError as error:
        return AudioFacts(error=str(error))


def _examine(place: Place) -> AudioFacts:
    with open_audio(place.path, stream=place.stream) as reader:
        info = reader.info
    start = 0.0 if info.samples is None else max(0.0, info.samples / info.sample_rate - _TAIL)
    with open_audio(place.path, stream=place.stream, start=start) as reader:
        for _ in reader.blocks():
            pass
        if reader.truncation:
            return AudioFacts(error=f"'{place.path}' {reader.truncation.message}.")
    samples = round(start * info.sample_rate) + reader.samples_read
    return AudioFacts(
        sample_rate=info.sample_rate,
        channels=info.channels,
        samples=samples,
        streams=info.streams,
        lossless=info.bit_depth is not None,
        direct=info.container in _DIRECT and _same_to_libsndfile(info, samples),
    )


def _same_to_libsndfile(info: AudioInfo, samples: int) -> bool:
    try:
        found = soundfile.info(bytes(info.path))
    except soundfile.LibsndfileError:
        return False
    wanted = (info.sample_rate, info.channels, samples)
    return (found.samplerate, found.channels, found.frames) == wanted


class Index:
    """Facts by file, and the residuals of mixtures minus their stems.

    Attributes:
        path: Where `save` writes them.
    """

    def __init__(self, path: Path, root: Path):
        self.path, self._root = path, root
        stored = _load(path)
        self._files: dict[str, dict[str, Any]] = stored.get("files", {})
        self._residuals: dict[str, float] = stored.get("residuals", {})
        self._changed = False

    def facts(self, places: Iterable[Place]) -> dict[Place, AudioFacts]:
        """Return the facts of all places; files that changed are examined, several at a time."""
        wanted = list(dict.fromkeys(places))
        stamps = {place: _stamp(place.path) for place in wanted}
        known = {place: self._recall(place, stamps[place]) for place in wanted}
        new = [place for place in wanted if known[place] is None]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for place, facts in zip(new, pool.map(examine, new), strict=True):
                known[place] = facts
                if not facts.error:  # which may pass without a change of the file
                    self._files[self._key(place)] = {"stamp": stamps[place], **asdict(facts)}
                    self._changed = True
        return {place: facts for place, facts in known.items() if facts is not None}

    def residual(self, places: Iterable[Place], measure: Callable[[], float]) -> float:
        """Return what `measure` returned for these files as they are now, in dB."""
        described = [[self._key(place), _stamp(place.path)] for place in places]
        key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
        if key not in self._residuals:
            self._residuals[key] = measure()
            self._changed = True
        return self._residuals[key]

    def save(self) -> None:
        """Write what is new; an index that can't be written only costs time."""
        if not self._changed:
            return
        stored = {"version": _VERSION, "files": self._files, "residuals": self._residuals}
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(stored, indent=0))
            self._changed = False

    def _key(self, place: Place) -> str:
        path = place.path
        inside = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        return f"{inside.as_posix()}#{place.stream}"

    def _recall(self, place: Place, stamp: list[int] | None) -> AudioFacts | None:
        stored = self._files.get(self._key(place))
        if stored is None or stamp is None or stored.get("stamp") != stamp:
            return None
        try:
            return AudioFacts(**{name: value for name, value in stored.items() if name != "stamp"})
        except TypeError:  # written by hand, or by another version
            return None


def index_path(root: Path) -> Path:
    """Return where the index of a data set is kept: in the cache, by a hash of its folder."""
    from separator.resources import cache_dir

    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return cache_dir() / "datasets" / f"{digest}.json"


def _stamp(path: Path) -> list[int] | None:
    """Return what changes when a file is replaced or written to."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _load(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        stored = json.loads(path.read_text())
        if isinstance(stored, dict) and stored.get("version") == _VERSION:
            return stored
    return {}
