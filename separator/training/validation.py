"""Measure a network on whole tracks, through the stream that users' songs go through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from separator.datasets import LoadedAudio, Problem, Track, open_dataset
from separator.errors import ConfigError
from separator.stream.inference import Plan, separate_stream
from separator.stream.progress import Monitor
from separator.synthesis import SAMPLE_RATE, Palette, render_song
from separator.training.recipe import Generated, Recipe
from separator.usdr import RunningUSDR
from separator.words import MIXTURE


def validation_tracks(
    recipe: Recipe, tell: Callable[[Sequence[Problem]], None] | None = None
) -> list[Track]:
    """Return the tracks that a recipe is validated on.

    Those of a folder are decoded for once: a validation that failed on one would end the run.

    Args:
        recipe: says which.
        tell: called with what is wrong with tracks, where that doesn't end it.

    Raises:
        ConfigError: A data set that can't be used, or tracks of another rate, other channels or
            other stems than the recipe's.
    """
    options = recipe.validation
    if options is None:
        return []
    if options.generated is not None:
        tracks = _generated(options.generated)
    else:
        assert options.folder is not None
        dataset = open_dataset(
            options.folder.path,
            options.folder.kind,
            options.folder.split,
            recipe.stems,
            recipe.allow_partial,
            check_sum=True,
            limit=options.tracks,
        )
        if tell is not None:
            tell(dataset.problems)
        tracks = list(dataset.tracks)
    tracks = tracks[: options.tracks]
    for track in tracks:
        _check(track, recipe)
    return tracks


def _generated(options: Generated) -> list[Track]:
    palette = (Palette if options.plain else Palette.installed)(options.timbres)
    tracks = []
    for seed in range(options.first, options.first + options.songs):
        stems = render_song(seed, options.duration, palette)
        parts = {**stems, MIXTURE: np.sum(list(stems.values()), axis=0)}
        channels, samples = parts[MIXTURE].shape
        files = {
            name: (LoadedAudio(partial(np.asarray, audio.T, np.float32), channels, samples),)
            for name, audio in parts.items()
        }
        tracks.append(Track(f"{seed:07d}", SAMPLE_RATE, channels, samples, tuple(stems), files))
    return tracks


def _check(track: Track, recipe: Recipe) -> None:
    wanted = (recipe.sample_rate, recipe.channels)
    if (track.sample_rate, track.channels) != wanted:
        raise ConfigError(
            f"'validation': '{track.name}' has {track.sample_rate} Hz and {track.channels} "
            f"channel(s), the network {wanted[0]} Hz and {wanted[1]}; give tracks like those."
        )
    missing = [stem for stem in recipe.stems if stem not in track.files]
    if missing:
        raise ConfigError(
            f"'validation': '{track.name}' lacks {', '.join(missing)}; it has: "
            f"{', '.join(track.stems)}."
        )


def plan_of(recipe: Recipe) -> Plan:
    """Return how validation cuts tracks."""
    assert recipe.validation is not None
    samples = max(1, round(recipe.segment * recipe.sample_rate))
    return Plan(samples, recipe.validation.overlap, recipe.validation.batch)


def track_sdr(
    track: Track,
    stems: Sequence[str],
    network: Callable[[Tensor], Tensor],
    plan: Plan,
    cancel: threading.Event | None = None,
) -> Tensor:
    """Return the SDR of each stem over a whole track in dB, NaN where the stem is silent.

    One number for the whole track, see `separator.usdr`. The track is read, separated and compared
    as a stream.

    Shape:
        - network: `(batch, channels, time) -> (batch, stems, channels, time)`
        - result: `(stems,)`, float64

    Raises:
        Cancelled: Where `cancel` is set.
    """
    running = RunningUSDR()
    start = 0
    blocks = (torch.from_numpy(block) for block in track.blocks())
    for estimates in separate_stream(blocks, network, plan, Monitor(cancel=cancel)):
        size = estimates.shape[-1]
        if not size:
            continue
        truth = np.stack([track.read(stem, start, size) for stem in stems])
        running.add(torch.from_numpy(truth), estimates)
        start += size
    return running.decibels()


def excerpt(
    track: Track, stems: Sequence[str], network: Callable[[Tensor], Tensor], seconds: float
) -> dict[str, Tensor]:
    """Separate the middle of a track; return the mixture and the estimates `(channels, time)`."""
    samples = min(round(seconds * track.sample_rate), track.samples)
    start = (track.samples - samples) // 2
    mixture = torch.from_numpy(track.read(MIXTURE, start, samples))
    estimates = network(mixture[None])[0].cpu()
    return {MIXTURE: mixture, **dict(zip(stems, estimates, strict=True))}
