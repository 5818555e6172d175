"""Data sets whose folders and file names say it all.

```
musdb18      test/SONG.stem.mp4           streams: mixture, drums, bass, other, vocals
musdb18hq    test/SONG/vocals.wav ...     and mixture.wav
dnr          tt/1002/speech.wav, music.wav, sfx.wav, mix.wav
             audio/test/1002/speech.flac ..., mixture.flac       version 3
folder       SONG/piano.flac              any names, with or without splits
             SONG/guitar/left.wav, right.wav                     these two are summed
```
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separator.datasets.problems import Problem
from separator.datasets.songs import (
    MIXTURES,
    ListedSong,
    Place,
    audio_in,
    folders_in,
    song_folders,
    split_folders,
)

STEM_FILE = ".stem.mp4"
MUSDB18_STREAMS = ("mixture", "drums", "bass", "other", "vocals")


def stem_files(root: Path) -> Iterator[tuple[str | None, Path]]:
    """Yield the `.stem.mp4` files below `root`, each with its split."""
    for split, folder in split_folders(root):
        for path in audio_in(folder):
            if path.name.lower().endswith(STEM_FILE):
                yield split, path


def find_musdb18(root: Path) -> Iterator[ListedSong]:
    """Yield the songs of MUSDB18's `.stem.mp4` files.

    Reference: Rafii, Liutkus, Stöter, Mimilakis and Bittner 2017, 10.5281/zenodo.1117372.
    """
    for split, path in stem_files(root):
        streams = {name: (Place(path, i),) for i, name in enumerate(MUSDB18_STREAMS)}
        mixture = streams.pop("mixture")
        yield ListedSong(path.name[: -len(STEM_FILE)], split, streams, mixture)


def find_folders(root: Path) -> Iterator[ListedSong]:
    """Yield the folders below `root` that hold stems; `root` itself where it is a song."""
    songs = list(song_folders(root))
    if audio_in(root):
        songs = [(None, root)]
    for split, folder in songs:
        song = read_song(folder, split)
        if song.parts or song.mixture:
            yield song


def read_song(folder: Path, split: str | None = None) -> ListedSong:
    """Return the song of a folder: a file for each stem, or a folder with several."""
    parts: dict[str, tuple[Place, ...]] = {}
    problems = []
    for path in audio_in(folder):
        name = path.stem.lower()
        if name in parts:
            what = f"'{name}' is there twice: {parts[name][0].path.name} and {path.name}"
            advice = "Remove one, or put both in a folder of that name to have them summed."
            problems.append(Problem(folder.name, what, "one file for each stem", advice))
        parts[name] = (Place(path),)
    for below in folders_in(folder):
        if files := audio_in(below):
            parts[below.name.lower()] = tuple(Place(path) for path in files)
    mixture = [parts.pop(name) for name in sorted(MIXTURES & parts.keys())]
    return ListedSong(folder.name, split, parts, mixture[-1] if mixture else (), tuple(problems))
