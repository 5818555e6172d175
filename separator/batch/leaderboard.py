"""Separate mixtures into the files that public leaderboards accept, and check them.

    layout   mixtures                      estimates
    mvsep    NAME_mixture.wav, NAME.wav    NAME_vocals.wav, NAME_instrum.wav, ...
    sdx      TRACK/mixture.wav             TRACK/vocals.wav, TRACK/drums.wav, ...

`mvsep` is for the sets of the quality checker (`song_000_mixture.wav`, ...), where all but the
vocals is called "instrum"; `sdx` for the Music and Sound Demixing Challenges and for MUSDB18-HQ.

Reference: Solovyev, Stempkovskiy and Habruseva, "Benchmarks and leaderboards for sound demixing
tasks", 2023, arXiv 2305.07489; Fabbro et al., "The sound demixing challenge 2023 - music demixing
track", 2023, arXiv 2308.06979.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from separator.audio.formats import is_audio_path
from separator.audio.info import AudioInfo
from separator.audio.reader import probe
from separator.batch.run import Existing, Job
from separator.batch.tracks import Track
from separator.errors import AudioError, ConfigError
from separator.words import nearest

_VOCALS = "vocals"
_MIXTURES = ("_mixture", "_mix")


@dataclass(frozen=True)
class BoardLayout:
    """Names that a leaderboard gives its files.

    Attributes:
        pattern: Names of the estimates, with {track} and {stem}; the extension follows.
        nested: Whether each mixture has a folder of its own.
        names: What stems are called that have another name here.
        rest: Name of all but the vocals.
    """

    pattern: str
    nested: bool
    names: Mapping[str, str]
    rest: str


LAYOUTS: dict[str, BoardLayout] = {
    "mvsep": BoardLayout(
        "{track}_{stem}",
        nested=False,
        names=dict.fromkeys(("instrumental", "accompaniment", "inst"), "instrum"),
        rest="instrum",
    ),
    "sdx": BoardLayout("{track}/{stem}", nested=True, names={}, rest="accompaniment"),
}


def find_layout(name: str) -> BoardLayout:
    """Return a layout by name.

    Raises:
        ConfigError: There is no such layout.
    """
    if name not in LAYOUTS:
        raise ConfigError(
            f"Unknown layout '{name}'; allowed: {', '.join(LAYOUTS)}.{nearest(name, LAYOUTS)}"
        )
    return LAYOUTS[name]


def find_mixtures(folder: Path, layout: BoardLayout) -> dict[str, Path]:
    """Return the mixtures in a folder by the name of their track.

    Raises:
        ConfigError: There are none, or two of one track.
    """
    pattern = "*/mixture.*" if layout.nested else "*"
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern)):
        if not is_audio_path(path) or path.name.startswith("."):
            continue
        track = path.parent.name if layout.nested else _without_mixture(path.stem)
        if track in found:
            raise ConfigError(f"'{found[track]}' and '{path}' are both mixtures of '{track}'.")
        found[track] = path
    if not found:
        example = "TRACK/mixture.wav" if layout.nested else "song_000_mixture.wav"
        raise ConfigError(f"'{folder}' holds no mixtures; wanted are files like '{example}'.")
    return found


def stem_names(stems: Sequence[str], layout: BoardLayout) -> dict[str, str]:
    """Return what the leaderboard calls each stem.

    >>> stem_names(["vocals", "instrumental"], LAYOUTS["mvsep"])
    {'vocals': 'vocals', 'instrumental': 'instrum'}
    """
    return {stem: layout.names.get(stem, stem) for stem in stems}


def residual_name(stems: Sequence[str], layout: BoardLayout) -> str | None:
    """Return what the mixture minus the stems is called, where the leaderboard scores it.

    >>> residual_name(["vocals"], LAYOUTS["mvsep"])
    'instrum'
    """
    return layout.rest if tuple(stems) == (_VOCALS,) else None


def plan_board(
    mixtures: Mapping[str, Path],
    output: Path,
    layout: BoardLayout,
    stems: Sequence[str],
    *,
    existing: Existing = "skip",
    extension: str = "wav",
) -> list[Job]:
    """Return what `separator.batch.run` has to do.

    Args:
        mixtures: As `find_mixtures` returns them.
        output: Folder of the estimates.
        layout: Layout of the leaderboard.
        stems: Stems of the model; and the name of the residual, if it is wanted.
        existing: What to do about files that are there.
        extension: Extension of the estimates.
    """
    jobs = []
    for track, path in mixtures.items():
        outputs = {
            stem: output / f"{layout.pattern.format(track=track, stem=name)}.{extension}"
            for stem, name in stem_names(stems, layout).items()
        }
        there = [file for file in outputs.values() if file.exists()]
        problem = None
        if there and existing == "refuse":
            problem = f"'{there[0]}' exists; use --skip-existing or --overwrite."
        missing = tuple(s for s, f in outputs.items() if f not in there or existing != "skip")
        jobs.append(Job(Track(path, track), outputs, missing, problem))
    return jobs


def check(jobs: Sequence[Job], output: Path) -> Iterator[str]:
    """Yield what a leaderboard would refuse: missing files, other rates, channels or lengths.

    Args:
        jobs: As `plan` returns them.
        output: Folder of the estimates; files in it that no job names are told, too.
    """
    wanted = {path for job in jobs for path in job.outputs.values()}
    there = {path for path in output.rglob("*") if is_audio_path(path)}
    for path in sorted(there - wanted):
        yield f"'{path}' belongs to no mixture; move it away.{nearest(path.name, _names(wanted))}"
    for job in jobs:
        try:
            mixture = probe(job.track.path)
        except AudioError as error:
            yield str(error)
            continue
        for path in job.outputs.values():
            yield from _check_file(path, mixture)


def _check_file(path: Path, mixture: AudioInfo) -> Iterator[str]:
    if not path.exists():
        yield f"'{path}' is missing."
        return
    try:
        found = probe(path)
    except AudioError as error:
        yield str(error)
        return
    for name, unit in (("sample_rate", " Hz"), ("channels", " channels"), ("samples", " samples")):
        own, other = getattr(found, name), getattr(mixture, name)
        if own != other:
            yield f"'{path}' has {own}{unit}; its mixture has {other}{unit}."


def _without_mixture(name: str) -> str:
    for ending in _MIXTURES:
        name = name.removesuffix(ending)
    return name


def _names(paths: set[Path]) -> set[str]:
    return {path.name for path in paths}
