"""Find the files to separate, and give each a name that no other has.

    song.mp3                  -> song
    album/ with 01.mp3 and
      live/01.mp3, live/01.wav -> 01, live/01.mp3, live/01.wav
    a/song.mp3 b/song.mp3     -> a/song, b/song

Names are names, not patterns: brackets and stars stand for themselves.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from separator.audio.formats import AUDIO_EXTENSIONS, is_audio_path, is_beside_audio


@dataclass(frozen=True)
class Track:
    """A file to separate.

    Attributes:
        path: The file.
        track: Its name in templates: unlike every other track's, without extension unless that
            is all that tells it from a neighbour; with its folders, where a folder was searched.
        named: Whether the file itself was given, rather than found in a folder.
        problem: Why there is nothing to separate; there is no name then.
    """

    path: Path
    track: str
    named: bool = True
    problem: str | None = None


def find_audio(
    inputs: Iterable[Path], *, output: Path | None = None, passed_over: list[Path] | None = None
) -> list[Track]:
    """Find the files to separate, and give each a name that no other has.

    A file is taken whatever it is called; folders are searched for the extensions that can be
    read, down to the last folder, hidden files left out. Names are names, not patterns. What is
    missing or holds no audio becomes a track with a problem.

    Args:
        inputs: Files and folders, in the order in which they shall be separated.
        output: A folder that is not searched, for it holds results.
        passed_over: Takes what is found in folders and may be audio, but isn't named like it.
    """
    found: dict[Path, Track] = {}
    for given in inputs:
        tracks = [Track(given, given.stem if is_audio_path(given) else given.name)]
        if os.path.isdir(given):  # noqa: PTH112 - never raises
            tracks = _search(given, output, passed_over if passed_over is not None else [])
        for track in tracks:
            found.setdefault(_place(track.path), track)
    return _distinguish(list(found.values()))


def _search(folder: Path, output: Path | None, passed_over: list[Path]) -> list[Track]:
    """Return the audio in a folder and below; folders that links lead to are searched once."""
    tracks: list[Track] = []
    errors: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=errors.append):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below = (name for name in sorted(folders) if not name.startswith("."))
        folders[:] = [name for name in below if not _same(Path(place, name), output)]
        for path in sorted(Path(place, name) for name in files):
            if is_audio_path(path):
                name = path.relative_to(folder).with_suffix("").as_posix()
                tracks.append(Track(path, name, named=False))
            elif not is_beside_audio(path):
                passed_over.append(path)
    for error in errors:
        reason = (error.strerror or str(error)).lower()
        problem = f"The folder '{error.filename}' can't be searched: {reason}."
        tracks.append(Track(Path(error.filename), "", problem=problem))
    if not tracks:
        problem = f"'{folder}' holds no audio; looked for {', '.join(sorted(AUDIO_EXTENSIONS))}."
        tracks.append(Track(folder, "", problem=problem))
    return tracks


def _distinguish(tracks: list[Track]) -> list[Track]:
    """Lengthen the names that several tracks share: by a parent folder, or by the extension."""
    places = [_place(track.path) for track in tracks]
    while True:
        groups: dict[str, list[int]] = defaultdict(list)
        for i, track in enumerate(tracks):
            if not track.problem:
                groups[_fold(track.track)].append(i)
        longer = list(tracks)
        for group in groups.values():
            if len(group) > 1:
                together = len({_fold(places[i].parent) for i in group}) == 1
                for i in group:
                    longer[i] = replace(tracks[i], track=_longer(tracks[i], places[i], together))
        if longer == tracks:
            return tracks
        tracks = longer


def _longer(track: Track, path: Path, together: bool) -> str:
    """Return a longer name: with the extension among files of one folder, else one folder more."""
    name = PurePosixPath(track.track)
    if together:
        return str(name.with_name(path.name))
    parents = path.parts[1:-1]  # without the root
    depth = len(name.parts) - 1
    return str(PurePosixPath(*parents[-depth - 1 :], name.name))


def _fold(name: str | Path) -> str:
    """Make names equal that some file systems take for one."""
    return unicodedata.normalize("NFC", str(name)).casefold()


def identity(path: Path) -> str:
    """Return a text that is the same for all paths of one file."""
    return os.path.normcase(os.path.realpath(path))


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and identity(path) == identity(other)


def _place(path: Path) -> Path:
    """Return the absolute path; a link to a file is a file of its own."""
    return Path(os.path.realpath(path.parent)) / path.name
