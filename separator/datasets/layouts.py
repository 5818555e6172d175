"""The kinds of data sets: how each lays out its files, and how to tell which one a folder is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from separator.audio.reader import probe
from separator.datasets import folders, metadata
from separator.datasets.songs import ListedSong
from separator.errors import AudioError, ConfigError
from separator.words import nearest

Absent: TypeAlias = Literal["error", "silence", "own"]

FOUR_STEMS = ("drums", "bass", "other", "vocals")
_SAMPLE_SECONDS = 10.0  # a song of MUSDB18 is longer, an excerpt of its sample set is shorter


@dataclass(frozen=True)
class DatasetLayout:
    """How a kind of data set lays out its songs.

    Attributes:
        find: Yields the songs below a folder.
        example: Where a file of a song lies.
        stems: What is read where the caller doesn't choose; empty for whatever there is.
        absent: What a stem means that a song lacks: an "error", "silence", or nothing where each
            song has its "own" stems.
        uniform: Whether the files of a song must be equally long and have the same channels.
            Elsewhere a short one ends in silence, a mono one is doubled.
        streams: Audio streams that each file must have.
        mixture: Whether each song has a file of its mixture; a song without one gets a warning.
        listed: Whether MUSDB18's official list of songs for validation applies.
        ordered: Whether the order of the stems means something; that of singers doesn't.
        extras: Other parts that may lie beside the stems.
        aliases: Other names of parts, on disk and in requests.
    """

    find: Callable[[Path], Iterable[ListedSong]]
    example: str
    stems: tuple[str, ...] = ()
    absent: Absent = "error"
    uniform: bool = True
    streams: int = 1
    mixture: bool = False
    listed: bool = False
    ordered: bool = True
    extras: frozenset[str] = frozenset()
    aliases: dict[str, str] = field(default_factory=dict)


_MUSDB18 = DatasetLayout(
    folders.find_musdb18,
    "test/SONG.stem.mp4",
    FOUR_STEMS,
    streams=len(folders.MUSDB18_STREAMS),
    listed=True,
)


def _medleyvox(
    find: Callable[[Path], Iterable[ListedSong]], subset: str, *stems: str
) -> DatasetLayout:
    absent: Absent = "error" if stems else "own"
    example = f"{subset}/SONG/SEGMENT/gt/VOICE.wav"
    return DatasetLayout(find, example, stems, absent, uniform=False, ordered=False)


#: The kinds of data sets by name.
KINDS: dict[str, DatasetLayout] = {
    "musdb18": _MUSDB18,
    "musdb18_7s": _MUSDB18,
    "musdb18hq": DatasetLayout(
        folders.find_folders, "test/SONG/vocals.wav", FOUR_STEMS, mixture=True, listed=True
    ),
    "moisesdb": DatasetLayout(
        metadata.find_moisesdb, "PROVIDER/ID/data.json", FOUR_STEMS, "silence", uniform=False
    ),
    "dnr": DatasetLayout(
        folders.find_folders,
        "tt/1002/speech.wav",
        ("speech", "music", "effects"),
        mixture=True,
        extras=frozenset(("sfx_fg", "sfx_bg")),
        aliases={"sfx": "effects", "fx": "effects"},
    ),
    "slakh2100": DatasetLayout(
        metadata.find_slakh2100,
        "test/TRACK/metadata.yaml",
        ("drums", "bass", "other"),
        "silence",
        uniform=False,
    ),
    "medleyvox": _medleyvox(metadata.find_n_singing, "duet"),
    "medleyvox_duet": _medleyvox(metadata.find_duets, "duet", "singer1", "singer2"),
    "medleyvox_unison": _medleyvox(metadata.find_unisons, "unison", "singer1", "singer2"),
    "medleyvox_main_vs_rest": _medleyvox(metadata.find_main_vs_rest, "rest", "main", "rest"),
    "folder": DatasetLayout(folders.find_folders, "SONG/vocals.wav, or SONG/vocals/lead.wav"),
}


def find_kind(root: Path, kind: str) -> str:
    """Return `kind`, or for "auto" the kind that the folder looks like.

    Raises:
        ConfigError: The kind is unknown, the folder isn't there, or its songs would be of a kind
            but for one stem.
    """
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise ConfigError(f"The data set's folder '{root}' {state}; give the folder that holds it.")
    if kind == "auto":
        return _detect(root)
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise ConfigError(
            f"Unknown kind of data set '{kind}'; allowed: auto, {known}.{nearest(kind, KINDS)}"
        )
    return kind


def _detect(root: Path) -> str:
    if (first := next(folders.stem_files(root), None)) is not None:
        return "musdb18_7s" if _is_excerpt(first[1]) else "musdb18"
    if metadata.moisesdb_folders(root):
        return "moisesdb"
    if metadata.slakh_folders(root):
        return "slakh2100"
    if next(iter(metadata.find_n_singing(root)), None):
        return "medleyvox"
    songs = list(islice(folders.find_folders(root), 10))
    found = [song for song in songs if song.mixture and song.split]
    for kind in ("musdb18hq", "dnr"):
        stems = set(KINDS[kind].stems)
        names = [_names(song, KINDS[kind]) for song in found]
        if stems in names:
            return kind
        _check_almost(root, kind, names)
    return "folder"


def _names(song: ListedSong, layout: DatasetLayout) -> set[str]:
    return {layout.aliases.get(name, name) for name in song.parts} - layout.extras


def _check_almost(root: Path, kind: str, names: list[set[str]]) -> None:
    """Refuse songs that all lack one stem of a kind, or misspell it: is it that kind or not?"""
    stems = set(KINDS[kind].stems)
    for lacking in stems if names else ():
        if all(
            stems - found == {lacking} and (found < stems or nearest(lacking, found - stems))
            for found in names
        ):
            spelled = nearest(lacking, set.union(*names) - stems)
            raise ConfigError(
                f"The songs in '{root}' would be {kind} ({KINDS[kind].example}), but none has "
                f"'{lacking}'.{spelled} Mend that, or choose --kind folder for what is there."
            )


def _is_excerpt(path: Path) -> bool:
    try:
        return (probe(path).duration or 0) < _SAMPLE_SECONDS
    except AudioError:
        return False  # the scan will say what is wrong with it
