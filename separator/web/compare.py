"""Two models on one song, as X and Y: which is which stays hidden until it is asked for."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from separator.audio.reader import probe
from separator.errors import AudioError, ConfigError
from separator.usdr import RunningUSDR
from separator.web.jobs import Job
from separator.web.overview import Block
from separator.web.service import Request, Service
from separator.web.songs import Song, Track, adopt

LETTERS = ("X", "Y")
PADDING = 0.2  # seconds that a lossy reference may differ from its song in length
REFERENCE = "Reference"


def submit(
    service: Service,
    request: Request,
    models: Sequence[str],
    references: Sequence[Path],
    owner: str,
    visitor: str = "",
) -> Job:
    """Check a comparison and put it into the queue; the job's result is a `Song`.

    Args:
        models: Names of two models.
        references: Files of true stems; a file's name says which stem it is.

    Raises:
        SeparatorError: The request can't be fulfilled, in words for the user.
    """
    if len(set(models)) != len(LETTERS):
        raise ConfigError("Choose two different models to compare.")
    cards = [service.catalog.find(name) for name in models]
    stems = [stem for stem in cards[0].stems if stem in cards[1].stems]
    if not stems:
        raise ConfigError("These two models have no stem in common; choose others.")
    service.check_source(request)
    truths = match_references(references, stems)
    for path in truths.values():
        service.check_source(replace(request, source=path, title=path.name))
    _check_alike(truths, request.source)
    title = request.title or request.source.stem
    with service.library.new_folder() as folder:
        mine = replace(request, title=title, source=adopt(request.source, folder))
        adopted = {stem: adopt(path, folder, f"reference-{stem}") for stem, path in truths.items()}
        work = partial(_compare, service, mine, models, stems, adopted)
        job = Job(title, owner, work, folder=folder, visitor=visitor)
        return service.queue.submit(job)


def match_references(files: Sequence[Path], stems: Sequence[str]) -> dict[str, Path]:
    """Find out which stem each file is, by the last stem in its name.

    Raises:
        ConfigError: A file whose name holds no stem, or says "no vocals"; two files of one stem.
    """
    known = {_words(stem): stem for stem in stems}
    any_stem = "|".join(sorted(known, key=len, reverse=True))
    pattern = re.compile(rf"\b(?:({any_stem})|no (?:{any_stem}))\b")
    found: dict[str, Path] = {}
    for path in files:
        named = pattern.findall(_words(path.stem))
        if not named:
            raise ConfigError(
                f"The reference '{path.name}' is no known stem; its name should hold one of: "
                f"{', '.join(stems)}."
            )
        if not named[-1]:
            raise ConfigError(
                f"The reference '{path.name}' seems to be a song without one stem; choose the file "
                f"of a stem alone, with a name that ends in one of: {', '.join(stems)}."
            )
        stem = known[named[-1]]
        if stem in found:
            raise ConfigError(
                f"The references '{found[stem].name}' and '{path.name}' are both of {stem}; "
                "choose one of them."
            )
        found[stem] = path
    return found


def _words(name: str) -> str:
    """Return the words of a name, in lower case and between single spaces.

    >>> _words("My_Song - Lead Vocals (2)")
    'my song lead vocals 2'
    """
    return " ".join(re.findall(r"[^\W_]+", name.lower()))


def _compare(
    service: Service,
    request: Request,
    models: Sequence[str],
    stems: Sequence[str],
    references: Mapping[str, Path],
    job: Job,
) -> Song:
    mixture, folder = request.source, request.source.parent
    first = round(request.start * probe(mixture).sample_rate)
    letters = random.sample(LETTERS, len(LETTERS))
    tracks = []
    for letter, name in zip(letters, models, strict=True):  # in this order: it is seen
        (folder / letter).mkdir()
        one = replace(request, model=name, stems=tuple(stems))
        result = service.run_model(one, service.catalog.find(name), job, folder / letter)
        gain = 1 / result.gain  # as loud as the original, whatever the format could hold
        tracks += [Track(stem, result.outputs[stem], 0, letter, gain) for stem in stems]
    tracks.sort(key=lambda track: track.group)
    tracks += [Track(stem, path, first, REFERENCE) for stem, path in references.items()]
    song = Song(
        token=folder.name,
        folder=folder,
        title=request.title,
        sample_rate=result.sample_rate,
        channels=result.channels,
        samples=result.samples,
        tracks=(Track("original", mixture, first), *tracks),
        facts={"blind": True},
    )
    job.begin("Drawing")
    song.draw(job.check)
    names = dict(sorted(zip(letters, models, strict=True)))
    song.truth = {"names": names, "scores": scores(song, job.check)}
    return service.library.add(song)


def _check_alike(references: Mapping[str, Path], mixture: Path) -> None:
    want = probe(mixture)
    for stem, path in references.items():
        have = probe(path)
        if (have.sample_rate, have.channels) != (want.sample_rate, want.channels):
            raise AudioError(
                f"The reference of {stem} has {have.channels} channels at "
                f"{have.sample_rate} Hz, the song {want.channels} at {want.sample_rate} Hz; "
                "they must be alike."
            )
        if have.duration and want.duration and abs(have.duration - want.duration) > PADDING:
            raise AudioError(
                f"The reference of {stem} lasts {have.duration:.1f} s, the song "
                f"{want.duration:.1f} s; they must be alike."
            )


def scores(song: Song, check: Callable[[], None] = lambda: None) -> dict[str, dict[str, float]]:
    """Return the SDR in dB of each stem with a reference, over the whole track, for X and Y.

    Silent references have none. `check` is called before each block; what it raises ends the
    reading.

    It is the uSDR of `separator.usdr`.
    """
    truths = {track.name: track for track in song.tracks if track.group == REFERENCE}
    found: dict[str, dict[str, float]] = {}
    for track in song.tracks:
        if track.group in LETTERS and track.name in truths:
            pair = [song.blocks(each, check) for each in (truths[track.name], track)]
            if (score := _sdr(*pair)) is not None:
                found.setdefault(track.name, {})[track.group] = score
    return found


def _sdr(reference: Iterable[Block], estimate: Iterable[Block]) -> float | None:
    """Compare what both have: a lossy reference may be a little shorter than its song."""
    running = RunningUSDR()
    for true, guess in zip(reference, estimate, strict=False):
        size = min(true.shape[1], guess.shape[1])
        running.add(torch.from_numpy(true[:, :size]), torch.from_numpy(guess[:, :size]))
    score = float(running.decibels())
    return None if math.isnan(score) else score
