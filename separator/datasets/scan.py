"""From songs as folders describe them to tracks that can be read, or to what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from separator.datasets.index import AudioFacts
from separator.datasets.layouts import DatasetLayout
from separator.datasets.problems import Problem, unreadable
from separator.datasets.songs import ListedSong, Place
from separator.datasets.tracks import AudioFile, Track
from separator.errors import ConfigError
from separator.words import MIXTURE, nearest

#: Names for everything but the vocals, which is summed where a song has no such file.
INSTRUMENTAL = ("instrumental", "accompaniment", "no_vocals")
#: Files that hold what other files hold too.
_SUMS = frozenset((*INSTRUMENTAL, "karaoke", "linear_mixture"))
_NOT_OTHER = frozenset(("drums", "bass", "vocals"))
_LOSSY_SLACK = 0.1  # seconds by which codecs disagree about the end


@dataclass(frozen=True)
class Selection:
    """Which stems are read, and which files each is made of.

    Attributes:
        layout: Layout of the data set.
        stems: Names as the caller wrote them.
    """

    layout: DatasetLayout
    stems: tuple[str, ...]

    def key(self, stem: str) -> str:
        """Return the name of the part that a stem's name means."""
        return self.layout.aliases.get(stem.lower(), stem.lower())

    def places(self, song: ListedSong) -> dict[str, tuple[Place, ...] | None]:
        """Return the files of each stem, None where the song has none."""
        stems = self.stems or tuple(song.parts)
        return {stem: self._places(song.parts, self.key(stem)) for stem in stems}

    def _places(self, parts: Mapping[str, tuple[Place, ...]], key: str) -> tuple[Place, ...] | None:
        if key == "other":  # whatever no other stem claims
            claimed = _NOT_OTHER | {self.key(stem) for stem in self.stems} - {"other"}
            return _joined(parts, claimed | _SUMS) or None
        if key in INSTRUMENTAL and key not in parts and "vocals" in parts:
            return _joined(parts, {*parts} - _disjoint(parts) | {"vocals"}) or None
        return parts.get(key)


def select(
    layout: DatasetLayout, songs: Sequence[ListedSong], stems: Sequence[str] | None, root: Path
) -> Selection:
    """Return what is read: the stems asked for, or those of the layout, or those of most songs.

    Messages name the `root` of the data set.

    Raises:
        ConfigError: No song has a stem that was asked for, or it was asked for twice.
    """
    if stems is not None:
        selection = Selection(layout, tuple(stems))
        _check_known(selection, songs, root)
        return selection
    if layout.stems or layout.absent == "own":
        return Selection(layout, layout.stems)
    counts = Counter(name for song in songs for name in song.parts)
    common = (name for name, count in counts.items() if 2 * count > len(songs))
    selection = Selection(layout, tuple(sorted(common)))
    if not selection.stems:
        raise ConfigError(
            f"Most of the {len(songs)} songs, first '{songs[0].name}', have no stem in common; "
            f"name the stems alike in each, as in {layout.example}."
        )
    return selection


def normalized(song: ListedSong, layout: DatasetLayout) -> ListedSong:
    """Return the song with the layout's names for its parts."""
    parts = {layout.aliases.get(name, name): files for name, files in song.parts.items()}
    return replace(song, parts=parts)


def used_places(song: ListedSong, selection: Selection) -> list[Place]:
    """Return every audio stream of a song that is read, the mixture first."""
    stems = (place for places in selection.places(song).values() for place in places or ())
    return list(dict.fromkeys([*song.mixture, *_summed(song, selection.layout), *stems]))


def missing(song: ListedSong, selection: Selection) -> Iterator[Problem]:
    """Yield a problem for each stem that the song ought to have."""
    layout = selection.layout
    if layout.absent == "own" and len(song.parts) < 2:
        yield Problem(
            song.name, f"{len(song.parts)} stems", "two singers or more", "Leave the song out."
        )
    if not used_places(song, selection):
        yield Problem(song.name, "no audio", "one stem or more", "Leave the song out.")
    if layout.absent != "error":
        return
    found = selection.places(song)
    wanted = {selection.key(stem): stem for stem in found if not found[stem]}
    if not song.mixture:
        wanted |= {stem: stem for stem in layout.stems if stem not in song.parts}
    spare = {name: name for name in song.parts if name not in map(selection.key, found)}
    for key, stem in wanted.items():
        hint = nearest(key, spare).strip().removeprefix("Did you mean ").removesuffix("?")
        advice = f"Rename {hint} to '{key}'." if hint else "Add its file, or leave the song out."
        yield Problem(song.name, f"no stem '{stem}'", _listed(song, selection), advice)


def without_mixture(song: ListedSong, layout: DatasetLayout) -> Iterator[Problem]:
    """Yield a warning where the sum of the stems stands for a mixture that should be there."""
    if layout.mixture and not song.mixture:
        advice = "The sum of its stems is used; fetch the song again if that is not its mixture."
        yield Problem(song.name, "no file of the mixture", "mixture.wav", advice, "warning")


def damaged(
    song: ListedSong, facts: Mapping[Place, AudioFacts], selection: Selection
) -> Iterator[Problem]:
    """Yield a problem for each file that can't be read, or is of another kind."""
    streams = selection.layout.streams
    for place in used_places(song, selection):
        fact = facts[place]
        if fact.error:
            yield unreadable(song.name, fact.error)
        elif streams not in (1, fact.streams):
            what = f"{place.path.name} has {fact.streams} audio streams"
            yield Problem(song.name, what, f"{streams}", "Fetch it again, or convert it.")
            return


def uneven(
    song: ListedSong, facts: Mapping[Place, AudioFacts], selection: Selection
) -> Iterator[Problem]:
    """Yield a problem for each property in which the files of a song differ."""
    properties = [("sample_rate", "Hz", "Convert it to that rate.")]
    if selection.layout.uniform:
        properties += [
            ("channels", "channels", "Convert it to that number."),
            ("samples", "samples", "Cut or extend it; stems must be aligned from the start."),
        ]
    places = used_places(song, selection)
    for name, unit, advice in properties:
        values = {place: getattr(facts[place], name) for place in places}
        usual = Counter(values.values()).most_common(1)[0][0]
        for place, value in values.items():
            slack = 0.0
            if name == "samples" and not facts[place].lossless:
                slack = _LOSSY_SLACK * facts[place].sample_rate
            if abs(value - usual) > slack:
                what = f"{_label(place)} has {value} {unit}"
                yield Problem(song.name, what, f"{usual} {unit} like the others", advice)


def track_of(song: ListedSong, facts: Mapping[Place, AudioFacts], selection: Selection) -> Track:
    """Return the track of a song that has no problems."""
    mixture = song.mixture or _summed(song, selection.layout)
    stems = {stem: places or () for stem, places in selection.places(song).items()}
    files = {
        name: tuple(_file(place, facts[place]) for place in places)
        for name, places in {MIXTURE: mixture, **stems}.items()
    }
    return Track(
        name=song.name,
        sample_rate=facts[mixture[0]].sample_rate,
        channels=max(facts[place].channels for place in used_places(song, selection)),
        samples=max(facts[place].samples for place in mixture),
        stems=tuple(stems),
        files=files,
    )


def unlike(tracks: Iterable[Track], layout: DatasetLayout) -> Iterator[Problem]:
    """Yield a problem for each track whose rate, or number of channels, is not the usual one."""
    tracks = list(tracks)
    properties = [("sample_rate", "Hz", "Convert it to that rate.")]
    if layout.uniform:
        properties += [("channels", "channels", "Convert it to that number.")]
    for name, unit, advice in properties:
        counts = Counter(getattr(track, name) for track in tracks)
        for track in tracks:
            usual, value = counts.most_common(1)[0][0], getattr(track, name)
            if value != usual:
                expected = f"{usual} {unit} like most songs"
                yield Problem(track.name, f"{value} {unit}", expected, advice)


def residual_db(song: ListedSong, facts: Mapping[Place, AudioFacts], selection: Selection) -> float:
    """Return the energy of the mixture minus its stems against the mixture's, -200 to 200 dB."""
    track = track_of(song, facts, selection)
    summed = tuple(_file(place, facts[place]) for place in _summed(song, selection.layout))
    track = replace(track, files={MIXTURE: track.files[MIXTURE], "sum": summed})
    error = energy = 0.0
    for mixture, stems in zip(track.blocks(MIXTURE), track.blocks("sum"), strict=True):
        error += float(np.square(mixture - stems, dtype=np.float64).sum())
        energy += float(np.square(mixture, dtype=np.float64).sum())
    if error <= 1e-20 * energy:
        return -200.0
    return 10 * float(np.log10(error / max(energy, 1e-20 * error)))


def _summed(song: ListedSong, layout: DatasetLayout) -> tuple[Place, ...]:
    """Return the files that make up the mixture."""
    if layout.absent == "error" and layout.stems:
        return tuple(place for stem in layout.stems for place in song.parts.get(stem, ()))
    return _joined(song.parts, {*song.parts} - _disjoint(song.parts))


def _disjoint(parts: Mapping[str, tuple[Place, ...]]) -> set[str]:
    """Return the parts that don't overlap: all stems, or vocals and an instrumental."""
    stems = parts.keys() - _SUMS
    if stems - {"vocals"}:
        return stems
    return stems | set([name for name in INSTRUMENTAL if name in parts][:1]) or {*parts}


def _joined(parts: Mapping[str, tuple[Place, ...]], without: AbstractSet[str]) -> tuple[Place, ...]:
    return tuple(place for name, files in parts.items() if name not in without for place in files)


def _file(place: Place, facts: AudioFacts) -> AudioFile:
    return AudioFile(
        path=place.path,
        stream=place.stream,
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        samples=facts.samples,
        direct=facts.direct,
    )


def _label(place: Place) -> str:
    stream = f" (stream {place.stream})" if place.stream else ""
    return f"{place.path.name}{stream}"


def _listed(song: ListedSong, selection: Selection) -> str:
    return f"{', '.join(selection.stems)}; found: {', '.join(song.parts) or 'nothing'}"


def _check_known(selection: Selection, songs: Sequence[ListedSong], root: Path) -> None:
    keys = [selection.key(stem) for stem in selection.stems]
    known = {*selection.layout.stems, *(name for song in songs for name in song.parts)}
    if known & _NOT_OTHER:
        known.add("other")
    if "vocals" in known:
        known.update(INSTRUMENTAL)
    for stem, key in zip(selection.stems, keys, strict=True):
        if key not in known:
            listed = ", ".join(sorted({name for song in songs for name in song.parts}))
            raise ConfigError(
                f"No song in '{root}' has a stem '{stem}'; there are: {listed or 'none'}."
                f"{nearest(key, known)}"
            )
        if keys.count(key) > 1:
            raise ConfigError(f"The stem '{stem}' was asked for twice.")
    if not keys:
        raise ConfigError("No stems were asked for; leave `stems` out for all of them.")
