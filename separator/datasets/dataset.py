"""Opening a data set: find its songs, look at every file once, refuse what can't be used.

```
folder ──> songs of the split ──> facts of their files ──> checks ──> tracks
           (layouts, splits)      (index, remembered)      (scan)     and problems
```
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from separator.datasets import scan
from separator.datasets.index import AudioFacts, Index, index_path
from separator.datasets.layouts import FOUR_STEMS, KINDS, find_kind
from separator.datasets.problems import DatasetError, Problem, unreadable
from separator.datasets.songs import ListedSong, Place
from separator.datasets.splits import SPLITS, is_wanted, parse_split, split_of
from separator.datasets.tracks import LoadedAudio, Track
from separator.errors import AudioError, ConfigError
from separator.words import MIXTURE

# Above these residuals (dB) the stems of a song don't make up its mixture: 16-bit rounding of a
# quiet song lies below the first, the errors of AAC at 256 kb/s below the second.
_LOSSLESS_RESIDUAL_DB, _LOSSY_RESIDUAL_DB = -50.0, -10.0


@dataclass(frozen=True)
class Dataset:
    """Songs of one split that can be used, and what is wrong with the others.

    Attributes:
        kind: A key of `KINDS`, or "musdb" for tracks of that package.
        split: As it was asked for.
        tracks: The songs, by name.
        stems: Names, in the order asked for; a track may have fewer where `ordered` is False.
        problems: Errors (their songs are not among the tracks) and warnings.
        path: The data set's folder, or None.
        ordered: Whether the order of the stems means something; that of singers doesn't.
        has_splits: Whether folders say which song is for testing.
    """

    kind: str
    split: str
    tracks: tuple[Track, ...]
    stems: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    path: Path | None = None
    ordered: bool = True
    has_splits: bool = True

    def __len__(self) -> int:
        return len(self.tracks)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems of songs that are left out."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def without(self, errors: Sequence[Problem]) -> Dataset:
        """Return the data set as if the scan had found these errors, too."""
        bad = {error.track for error in errors}
        tracks = tuple(track for track in self.tracks if track.name not in bad)
        return replace(self, tracks=tracks, problems=(*self.problems, *errors))


def open_dataset(
    path: str | Path,
    kind: str = "auto",
    split: str = "test",
    stems: Sequence[str] | None = None,
    allow_partial: bool = False,
    *,
    check_sum: bool = False,
    limit: int | None = None,
    index: Path | None = None,
) -> Dataset:
    """Open the songs of a data set, all of them or none.

    Args:
        path: Its folder.
        kind: A key of `KINDS`, or "auto" to look at the folder.
        split: "train", "validation", "test", several joined by "+", or "all".
        stems: What is read of each song; the kind's usual stems where absent. "other" is
            whatever no other stem claims, "instrumental" all but the vocals.
        allow_partial: Leave songs out that have errors.
        check_sum: Decode everything: every sample is finite, and stems that don't sum to their
            mixture get a warning.
        limit: Only so many songs, the first by name; nobody looks at the others.
        index: File in which facts about the files are remembered; in the cache where absent.

    Raises:
        DatasetError: Songs have errors (see its `problems`), or the split is empty.
        ConfigError: The folder, kind, split or a stem isn't there, or can't be looked into.
    """
    dataset = scan_dataset(path, kind, split, stems, check_sum=check_sum, limit=limit, index=index)
    check_usable(dataset, path, allow_partial)
    return dataset


def check_usable(dataset: Dataset, path: str | Path, allow_partial: bool) -> None:
    """Refuse a data set of which songs have errors, unless that is allowed and some are left.

    Raises:
        DatasetError: See its `problems`.
    """
    bad = list(dict.fromkeys(problem.track for problem in dataset.errors))
    if bad and not (allow_partial and dataset.tracks):
        ending = (
            "No song is left."
            if allow_partial
            else "Mend them, or go on without (--allow-partial)."
        )
        raise DatasetError(
            f"{len(bad)} of {len(bad) + len(dataset)} songs in '{path}' can't be used, first "
            f"{dataset.errors[0]} {ending}",
            dataset.problems,
        )


def scan_dataset(
    path: str | Path,
    kind: str = "auto",
    split: str = "test",
    stems: Sequence[str] | None = None,
    *,
    check_sum: bool = False,
    limit: int | None = None,
    index: Path | None = None,
) -> Dataset:
    """Open the songs of a data set that can be used, and list what is wrong with the others.

    Arguments and errors are those of `open_dataset`, but songs may have errors.
    """
    root = Path(path).expanduser()
    try:
        kind = find_kind(root, kind)
        songs, has_splits = _songs(root, kind, split)
    except OSError as error:
        raise ConfigError(
            f"Can't look into '{error.filename or root}': {error.strerror or error}. Mend that, or "
            "move it out of the data set."
        ) from error
    layout = KINDS[kind]
    selection = scan.select(layout, songs, stems, root)
    songs = songs[:limit]
    known = Index(index or index_path(root), root)
    facts = known.facts(place for song in songs for place in scan.used_places(song, selection))
    good, problems = _check(songs, facts, selection)
    problems += (problem for song in good for problem in scan.without_mixture(song, layout))
    if check_sum:
        decoded = _decode(good, facts, selection, known)
        problems += decoded
        bad = {problem.track for problem in decoded if problem.severity == "error"}
        good = [song for song in good if song.name not in bad]
    known.save()
    tracks = tuple(scan.track_of(song, facts, selection) for song in good)
    odd = list(scan.unlike(tracks, layout))
    names = {problem.track for problem in odd}
    tracks = tuple(track for track in tracks if track.name not in names)
    longest = max((track.stems for track in tracks), key=len, default=())
    return Dataset(
        kind=kind,
        split=split,
        tracks=tracks,
        stems=selection.stems or longest,
        problems=(*problems, *odd),
        path=root.resolve(),
        ordered=layout.ordered,
        has_splits=has_splits,
    )


def from_musdb(tracks: Iterable[Any], stems: Sequence[str] | None = None) -> Dataset:
    """Wrap tracks of the package `musdb`, such as a `musdb.DB`, which loads them when read.

    A track is an object with `name`, `rate` (Hz), `audio` (time, channels), `targets` (a mapping
    of names to objects with `audio`) and `subset` ("train" or "test").

    Raises:
        ConfigError: There are no tracks, or a track lacks a stem.
    """
    names = tuple(FOUR_STEMS if stems is None else stems)
    tracks = list(tracks)
    if not tracks:
        raise DatasetError("There are no tracks; check the root folder given to `musdb.DB`.")
    split = "+".join(sorted({track.subset for track in tracks}))
    return Dataset("musdb", split, tuple(_wrap(track, names) for track in tracks), names)


def _wrap(track: Any, stems: tuple[str, ...]) -> Track:
    samples, channels = track.audio.shape
    sources = {MIXTURE: track, **track.targets}
    for stem in stems:
        if stem not in sources:
            known = ", ".join(track.targets)
            raise DatasetError(f"'{track.name}' has no target '{stem}'; it has: {known}.")
    files = {
        name: (
            LoadedAudio(
                partial(getattr, sources[name], "audio"),
                channels,
                samples,
                name=f"{track.subset}/{track.name}/{name}",
            ),
        )
        for name in (MIXTURE, *stems)
    }
    return Track(track.name, int(track.rate), channels, samples, stems, files)


def _songs(root: Path, kind: str, split: str) -> tuple[list[ListedSong], bool]:
    """Return the songs of a split with names of their own, and whether there are splits at all."""
    wanted = parse_split(split)
    layout = KINDS[kind]
    found = [scan.normalized(song, layout) for song in layout.find(root)]
    listed = layout.listed and all(song.split != "validation" for song in found)
    found = [replace(song, split=split_of(song.name, song.split, listed=listed)) for song in found]
    songs = [song for song in found if is_wanted(song.name, song.split, wanted)]
    if not found:
        raise DatasetError(f"'{root}' holds no songs as {kind} lays them out: {layout.example}.")
    if not songs:
        counts = Counter(song.split or "train or validation" for song in found)
        there = ", ".join(f"{count} for {name}" for name, count in sorted(counts.items()))
        raise DatasetError(
            f"'{root}' ({kind}) has no songs for {split}; it has {there}. Choose another split "
            f"({', '.join(SPLITS)}), or put songs into a folder of that name."
        )
    return _named_apart(songs), any(song.split for song in found)


def _named_apart(songs: list[ListedSong]) -> list[ListedSong]:
    """Return the songs by name, with names that differ and that files can have."""
    counts = Counter(song.name for song in songs)
    seen: Counter[str] = Counter()
    renamed = []
    for song in songs:
        seen[song.name] += 1
        suffix = f" ({seen[song.name]})" if counts[song.name] > 1 else ""
        name = song.name.replace("/", "_").replace("\\", "_") + suffix
        problems = tuple(replace(problem, track=name) for problem in song.problems)
        renamed.append(replace(song, name=name, problems=problems))
    return sorted(renamed, key=lambda song: song.name)


def _check(
    songs: Sequence[ListedSong], facts: dict[Place, AudioFacts], selection: scan.Selection
) -> tuple[list[ListedSong], list[Problem]]:
    """Return the songs without errors, and the errors of the others."""
    checks: tuple[Callable[[ListedSong], Iterable[Problem]], ...] = (
        lambda song: song.problems,
        lambda song: scan.missing(song, selection),
        lambda song: scan.damaged(song, facts, selection),
        lambda song: scan.uneven(song, facts, selection),
    )
    good, problems = [], []
    for song in songs:
        # what a damaged file says of its length means nothing: the first check that fails ends it
        found = next((found for check in checks if (found := list(check(song)))), [])
        problems += found
        if not found:
            good.append(song)
    return good, problems


def _decode(
    songs: Sequence[ListedSong],
    facts: dict[Place, AudioFacts],
    selection: scan.Selection,
    known: Index,
) -> list[Problem]:
    """Decode songs, several at a time, and return what is wrong with them."""
    check = partial(_sums_up, facts=facts, selection=selection, known=known)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [problem for found in pool.map(check, songs) for problem in found]


def _sums_up(
    song: ListedSong, facts: dict[Place, AudioFacts], selection: scan.Selection, known: Index
) -> list[Problem]:
    """Decode a song, and return what is wrong with it."""
    places = scan.used_places(song, selection)
    try:
        level = known.residual(places, partial(scan.residual_db, song, facts, selection))
    except AudioError as error:
        return [unreadable(song.name, str(error))]
    lossless = all(facts[place].lossless for place in places)
    limit = _LOSSLESS_RESIDUAL_DB if lossless else _LOSSY_RESIDUAL_DB
    if level <= limit:
        return []
    what = f"the mixture minus its stems is at {level:.1f} dB"
    advice = "Stems may be missing, or processed after mixing; scores suffer from it."
    return [Problem(song.name, what, f"{limit:.0f} dB or less", advice, "warning")]
