"""Fit the weights of an ensemble to songs whose stems are known.

    songs ──> members in step ──> inner products of their errors ──> weights ──> card

Of each song only a small matrix per stem is kept, so memory grows neither with their length nor
with their number. Songs lie as in MUSDB18-HQ: one folder each, with `mixture.wav` and a file for
each stem.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

import torch
from torch import Tensor

from separator.api import Separator
from separator.audio.reader import AudioReader, open_audio
from separator.ensemble.combine import fit_weights
from separator.errors import AudioError, ConfigError
from separator.schema import validate
from separator.stream.blocks import in_step
from separator.usdr import usdr_of
from separator.zoo.cards import AnyCard, Ensemble

_BLOCK = 65536  # samples that are read together


@dataclass(frozen=True)
class Fit:
    """Weights and scores that were found for one stem.

    Attributes:
        weights: Weight of each member that gives the stem; they sum to one.
        alone: SDR of each of these members, in dB, mean over songs.
        together: SDR of the weighted mean, in dB, mean over songs.
        songs: How many songs there were in which the stem isn't silent.
    """

    stem: str
    weights: dict[str, float]
    alone: dict[str, float]
    together: float
    songs: int


@dataclass(frozen=True)
class SongFiles:
    """Files of one song."""

    mixture: Path
    stems: dict[str, Path]


@dataclass(frozen=True)
class _Products:
    """Inner products of the members' errors `(members, members)`, and the energy of the stem."""

    errors: Tensor
    energy: float

    def usdr(self, errors: Tensor) -> Tensor:
        return usdr_of(torch.full_like(errors, self.energy), errors)


def find_songs(folder: Path) -> list[SongFiles]:
    """Find all songs below a folder, sorted.

    Raises:
        ConfigError: There is none.
    """
    songs = [
        SongFiles(
            path, {stem.stem: stem for stem in sorted(path.parent.glob("*.wav")) if stem != path}
        )
        for path in sorted(folder.rglob("mixture.wav"))
    ]
    if not any(song.stems for song in songs):
        raise ConfigError(
            f"There are no songs in '{folder}'; wanted: a folder for each, with mixture.wav and "
            "its stems (vocals.wav, ...)."
        )
    return songs


def draft(
    name: str, cards: Sequence[AnyCard], songs: Sequence[SongFiles], stems: Sequence[str] = ()
) -> Ensemble:
    """Return the card of an ensemble whose weights aren't known yet.

    Args:
        name: Name of the new card.
        cards: Cards of the members; the first says the rate and the number of channels.
        songs: What the weights will be fitted to.
        stems: Stems of the ensemble; all that members give and songs have, unless given.

    Raises:
        ConfigError: No song has one of the stems, or the name isn't allowed.
    """
    known = dict.fromkeys(stem for card in cards for stem in card.stems)
    present = {stem for song in songs for stem in song.stems}
    chosen = tuple(stems) or tuple(stem for stem in known if stem in present)
    missing = [stem for stem in chosen if stem not in present] if chosen else list(known)
    if missing:
        raise ConfigError(
            f"No song has the stem '{missing[0]}'; they have: {', '.join(sorted(present))}."
        )
    licences = dict.fromkeys(card.licence for card in cards)
    fields = {
        "name": name,
        "description": f"{', '.join(chosen)} from {', '.join(card.name for card in cards)}",
        "stems": chosen,
        "sample_rate": cards[0].sample_rate,
        "channels": cards[0].channels,
        "members": [{"model": card.name} for card in cards],
        "licence": "; ".join(licences),
    }
    return validate(Ensemble, fields, name)


def with_weights(card: Ensemble, fits: Sequence[Fit], songs: int) -> Ensemble:
    """Return the card with fitted weights, without members that weigh nothing."""
    members = []
    for member in card.members:
        weights = {fit.stem: round(fit.weights.get(member.model, 0.0), 4) for fit in fits}
        weights = {stem: weight for stem, weight in weights.items() if weight}
        if weights:
            members.append(member.model_copy(update={"weights": weights}))
    source = f"weights fitted by least squares to {songs} songs"
    return card.model_copy(update={"members": tuple(members), "source": source})


def fit(
    card: Ensemble,
    separators: Sequence[Separator],
    songs: Sequence[SongFiles],
    on_song: Callable[[SongFiles], None] | None = None,
) -> list[Fit]:
    """Fit the members' weights to songs.

    Every song counts the same, however loud or long: errors are divided by the stem's energy. A
    stem that a song lacks, or in which it is silent, says nothing.

    Args:
        card: Names stems and members; only its stems are separated.
        separators: Separators of the members, in their order.
        songs: At least one.
        on_song: Called after each song.

    Raises:
        AudioError: A file can't be read, or a song's files differ in rate, channels or length.
    """
    found: dict[str, list[_Products]] = {stem: [] for stem in card.stems}
    for song in songs:
        for stem, products in _error_products(song, card, separators).items():
            found[stem].append(products)
        if on_song:
            on_song(song)
    return [_fit(stem, found[stem], _givers(stem, separators)) for stem in card.stems]


def _givers(stem: str, separators: Sequence[Separator]) -> list[Separator]:
    return [separator for separator in separators if stem in separator.stems]


def _fit(stem: str, songs: Sequence[_Products], givers: Sequence[Separator]) -> Fit:
    """Solve for the weights of one stem; equal ones where no song says anything."""
    names = [separator.card.name for separator in givers]
    if not songs:
        equal = dict.fromkeys(names, 1 / len(names))
        return Fit(stem, equal, dict.fromkeys(names, math.nan), math.nan, 0)
    relative = [song.errors / song.energy for song in songs]
    weights = fit_weights(sum(relative, torch.zeros(())) / len(songs))
    alone = torch.stack([song.usdr(song.errors.diagonal()) for song in songs])  # (songs, members)
    together = torch.stack([song.usdr(weights @ song.errors @ weights) for song in songs])
    return Fit(
        stem,
        dict(zip(names, weights.tolist(), strict=True)),
        dict(zip(names, alone.mean(0).tolist(), strict=True)),
        float(together.mean()),
        len(songs),
    )


def _error_products(
    song: SongFiles, card: Ensemble, separators: Sequence[Separator]
) -> dict[str, _Products]:
    """Return what a song says of each of its stems; nothing where one is silent."""
    stems = [stem for stem in card.stems if stem in song.stems]
    if not stems:
        return {}
    wanted = [[stem for stem in stems if stem in separator.stems] for separator in separators]
    sizes = {stem: len(_givers(stem, separators)) for stem in stems}
    products = {stem: torch.zeros(size, size).double() for stem, size in sizes.items()}
    energies = dict.fromkeys(stems, 0.0)
    with ExitStack() as stack:
        mixture, *targets = _readers(song, stems, stack)
        sources = tee(map(torch.from_numpy, mixture.blocks(_BLOCK)), len(separators))
        streams = [
            _estimates(separator, source, mixture, names, song)
            for separator, source, names in zip(separators, sources, wanted, strict=True)
            if names
        ]
        rows = [stem for names in wanted for stem in names]
        truth = map(torch.stack, in_step([_blocks(reader) for reader in targets]))
        for target, *estimates in in_step([truth, *streams]):
            found = torch.cat(estimates)
            for stem, true in zip(stems, target.double(), strict=True):
                members = found[[i for i, name in enumerate(rows) if name == stem]].double()
                errors = (members - true).flatten(1)  # (members, channels * time)
                products[stem] += errors @ errors.T
                energies[stem] += float(true.square().sum())
    return {
        stem: _Products(products[stem], energy) for stem, energy in energies.items() if energy > 0
    }


def _estimates(
    separator: Separator,
    blocks: Iterator[Tensor],
    mixture: AudioReader,
    stems: Sequence[str],
    song: SongFiles,
) -> Iterator[Tensor]:
    """Separate a song; yield `(stems, channels, time)`."""
    facts = separator.measure_file(song.mixture)
    stream = separator.stream(blocks, mixture.sample_rate, stems=stems, facts=facts)
    for pieces in stream:
        yield torch.stack([pieces[stem] for stem in stems])


def _readers(song: SongFiles, stems: Sequence[str], stack: ExitStack) -> list[AudioReader]:
    """Open mixture and stems, which must be alike."""
    paths = [song.mixture, *(song.stems[stem] for stem in stems)]
    readers = [stack.enter_context(open_audio(path)) for path in paths]
    forms = [(reader.sample_rate, reader.channels, reader.samples) for reader in readers]
    for path, form in zip(paths, forms, strict=True):
        if form != forms[0]:
            raise AudioError(
                f"'{path}' has {form[0]} Hz, {form[1]} channels, {form[2]} samples, its mixture "
                f"{forms[0][0]} Hz, {forms[0][1]}, {forms[0][2]}; a song's files must be alike."
            )
    return readers


def _blocks(reader: AudioReader) -> Iterator[Tensor]:
    return map(torch.from_numpy, reader.blocks(_BLOCK))
