"""What a data set's folder holds, before any file is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from separator.audio.formats import is_audio_path
from separator.datasets.problems import Problem
from separator.datasets.splits import FOLDERS

#: Names of files that hold the whole song.
MIXTURES = frozenset(("mixture", "mix"))


class Place(NamedTuple):
    """One audio stream of a file."""

    path: Path
    stream: int = 0


@dataclass(frozen=True)
class ListedSong:
    """A song as its folder or metadata describe it.

    Attributes:
        name: Name of the song.
        split: Split that its folder stands for, or None.
        parts: The files of each part, by the part's name in lower case.
        mixture: The file of the mixture; none where it is the sum of the parts.
        problems: What is wrong with the description.
    """

    name: str
    split: str | None
    parts: Mapping[str, tuple[Place, ...]]
    mixture: tuple[Place, ...] = ()
    problems: tuple[Problem, ...] = field(default=())


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder by name, hidden ones left out."""
    return [path for path in _visible(folder) if path.is_dir()]


def audio_in(folder: Path) -> list[Path]:
    """Return the audio files in a folder by name, hidden ones left out."""
    return [path for path in _visible(folder) if is_audio_path(path) and path.is_file()]


def split_folders(root: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield the folders that hold songs, each with the split that its name stands for.

    That is `root` itself where none of its folders (or of those in `audio`) has such a name.
    """
    for folder in (root, root / "audio"):
        inside = folders_in(folder) if folder.is_dir() else []
        if found := [path for path in inside if path.name.lower() in FOLDERS]:
            yield from ((FOLDERS[path.name.lower()], path) for path in found)
            return
    yield FOLDERS.get(root.name.lower()), root


def song_folders(root: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield the folders of songs below `root`, each with its split."""
    for split, folder in split_folders(root):
        for path in folders_in(folder):
            yield split, path


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
