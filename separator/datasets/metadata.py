"""Data sets whose metadata say which file is which.

```
moisesdb     PROVIDER/ID/data.json, PROVIDER/ID/vocals/FILE.wav ...
slakh2100    test/Track01876/metadata.yaml, stems/S00.flac ..., mix.flac
medleyvox    duet/SONG/SEGMENT/gt/*.wav, mix/*.wav; likewise unison/ and rest/
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from separator.datasets.problems import Problem
from separator.datasets.songs import ListedSong, Place, audio_in, folders_in, song_folders

_MAIN_CONFIGS = ("V1_rest_vocals_only_config", "V2_vocals_only_config")


def moisesdb_folders(root: Path) -> list[Path]:
    """Return the folders of MoisesDB's songs: those with a `data.json`."""
    found = {path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/data.json")}
    return sorted(found)


def find_moisesdb(root: Path) -> Iterator[ListedSong]:
    """Yield the songs of MoisesDB, with the eleven stems of its taxonomy as parts.

    Reference: Pereira, Araújo, Korzeniowski and Vogl 2023, arXiv 2307.15913.
    """
    for folder in moisesdb_folders(root):
        try:
            yield _moisesdb_song(folder, json.loads((folder / "data.json").read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            yield _unreadable(folder, None, "data.json", error)


def _moisesdb_song(folder: Path, data: dict[str, Any]) -> ListedSong:
    parts: dict[str, tuple[Place, ...]] = {}
    for stem in data["stems"]:
        name = stem["stemName"]
        paths = (folder / name / f"{file['id']}.{file['extension']}" for file in stem["tracks"])
        key = name.lower().replace(" ", "_")
        parts[key] = parts.get(key, ()) + tuple(Place(path) for path in paths)
    title = " - ".join(data[key] for key in ("artist", "song") if data.get(key))
    return ListedSong(title or folder.name, None, parts)


def slakh_folders(root: Path) -> list[tuple[str | None, Path]]:
    """Return the folders of Slakh's songs, each with its split."""
    return [
        (split, folder)
        for split, folder in song_folders(root)
        if (folder / "metadata.yaml").is_file() and (folder / "stems").is_dir()
    ]


def find_slakh2100(root: Path) -> Iterator[ListedSong]:
    """Yield the songs of Slakh2100, with the classes of instruments as parts.

    Reference: Manilow, Wichern, Seetharaman and Le Roux 2019, arXiv 1909.08494.
    """
    for split, folder in slakh_folders(root):
        try:
            text = (folder / "metadata.yaml").read_text("utf-8")
            yield _slakh_song(folder, split, yaml.safe_load(text)["stems"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
            yield _unreadable(folder, split, "metadata.yaml", error)


def _slakh_song(folder: Path, split: str | None, stems: dict[str, Any]) -> ListedSong:
    files = {path.stem: path for path in audio_in(folder / "stems")}
    parts: dict[str, tuple[Place, ...]] = {}
    for name, stem in stems.items():
        if stem.get("audio_rendered", True):
            instrument = "drums" if stem.get("is_drum") else stem["inst_class"]
            key = instrument.lower().replace(" ", "_")
            path = files.get(name, folder / "stems" / f"{name}.flac")
            parts[key] = (*parts.get(key, ()), Place(path))
    mixture = tuple(Place(path) for path in audio_in(folder) if path.stem == "mix")
    return ListedSong(folder.name, split, parts, mixture)


def find_duets(root: Path) -> Iterator[ListedSong]:
    """Yield MedleyVox's duets: two singers, each with notes of their own.

    Reference: Jeon, Moon, Choi, Chon and Lee 2023, arXiv 2211.07302; so for the other subsets.
    """
    yield from _singers(root, "duet")


def find_unisons(root: Path) -> Iterator[ListedSong]:
    """Yield MedleyVox's unisons: two singers on the same notes."""
    yield from _singers(root, "unison")


def find_main_vs_rest(root: Path) -> Iterator[ListedSong]:
    """Yield MedleyVox's songs of three and more singers, as the main voice and all others."""
    for song in _singers(root, "rest"):
        yield _main_and_rest(root, song)


def find_n_singing(root: Path) -> Iterator[ListedSong]:
    """Yield all of MedleyVox, each singer apart."""
    for subset in ("duet", "unison", "rest"):
        yield from _singers(root, subset)


def _singers(root: Path, subset: str) -> Iterator[ListedSong]:
    folder = root / subset
    for title in folders_in(folder) if folder.is_dir() else []:
        for segment in folders_in(title):
            if (segment / "gt").is_dir():
                voices = audio_in(segment / "gt")
                parts = {f"singer{i + 1}": (Place(path),) for i, path in enumerate(voices)}
                mix = audio_in(segment / "mix") if (segment / "mix").is_dir() else []
                name = f"{title.name} - {segment.name}"
                yield ListedSong(name, "test", parts, tuple(map(Place, mix[:1])))


def _main_and_rest(root: Path, song: ListedSong) -> ListedSong:
    """Return the song with the parts `main` and `rest`, as its metadata name them."""
    title, _, segment = song.name.rpartition(" - ")
    files = {files[0].path.stem: files for files in song.parts.values()}
    try:
        text = _main_config(root, title).read_text("utf-8")
        main = json.loads(text)[segment]["main_vocal"]
        voices = {"main": files.pop(f"{main} - {segment}"), "rest": sum(files.values(), ())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        path = f"{_MAIN_CONFIGS[0]}/{title}.json"
        return _unreadable(Path(song.name), song.split, path, error)
    return ListedSong(song.name, song.split, voices, song.mixture)


def _main_config(root: Path, title: str) -> Path:
    """Return the file that says which voice leads; it comes with the code that makes the set."""
    places = [root, root / "testset_config", root.parent / "testset_config"]
    paths = [place / folder / f"{title}.json" for place in places for folder in _MAIN_CONFIGS]
    return next((path for path in paths if path.is_file()), paths[0])


def _unreadable(folder: Path, split: str | None, file: str, error: Exception) -> ListedSong:
    what = f"'{file}' can't be used ({type(error).__name__}: {error})"
    advice = "Fetch the data set again, or leave the song out."
    return ListedSong(folder.name, split, {}, (), (Problem(folder.name, what, "metadata", advice),))
