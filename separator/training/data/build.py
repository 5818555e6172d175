"""Batches of training segments: from songs on disk, songs made on the fly, or a bank of samples.

    data:
      segment: 6.0                # seconds
      batch: 4                    # segments of one process in one step
      coherent: 0.5               # share of segments whose stems belong together
      folders:
        - path: data/musdb18hq
        - {path: data/moises, weight: 2.0}
        - {path: data/singers, stems: [vocals]}

A batch is a pure function of the seed, the process and its position in the stream, so a run goes
on from a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from typing_extensions import Self

from separator.datasets import Problem, check_usable, open_dataset
from separator.errors import ConfigError
from separator.resources import cache_dir
from separator.schema import FROM_LIST, Count, Positive, Strict
from separator.training.data.bank import Banked, BankedSamples
from separator.training.data.batches import Batches, BatchSource
from separator.training.data.cache import Cache, SampleType, Stored
from separator.training.data.mixing import Activity, Library, Recording, first_samples
from separator.training.data.sources import (
    GrowingSongs,
    MixedSongs,
    Plan,
    Synthetic,
    SyntheticSongs,
)
from separator.training.data.studio import Studio, StudioSongs
from separator.words import nearest
from separator.zoo.cards import Stem

__all__ = ["Batches", "DataOptions", "Folder", "build_data"]

Share = Annotated[float, Field(ge=0, le=1)]
Tell = Callable[[Sequence[Problem]], None]


class Folder(Strict):
    """Data set on disk.

    Attributes:
        path: Its folder.
        kind: How it is arranged, see `separator.datasets.KINDS`; "auto" looks at the folder.
        split: The part of it to train on.
        stems: Stems of the recipe that its songs have, as those of singers without a band;
            all unless given. In a segment of one song, the others are silent.
        weight: How often to draw from one of its windows, relative to the other folders'.
    """

    path: str
    kind: str = "auto"
    split: str = "train"
    stems: Annotated[tuple[Stem, ...], FROM_LIST] = ()
    weight: Positive = 1.0

    def stems_of(self, plan: Plan) -> tuple[str, ...]:
        """Return the stems to read.

        Raises:
            ConfigError: One of them isn't the recipe's.
        """
        for stem in self.stems:
            if stem not in plan.stems:
                known = nearest(stem, plan.stems) or f" There are: {', '.join(plan.stems)}."
                raise ConfigError(
                    f"'data.folders': the recipe has no stem '{stem}' to take from '{self.path}'."
                    f"{known}"
                )
        return self.stems or plan.stems


class DataOptions(Strict):
    """Data that a network is trained on.

    Attributes:
        segment: Seconds of a training segment.
        batch: Segments of one process in one step.
        steps_per_epoch: Batches until the stream pauses, for validation and the like.
        workers: Processes that load data; 0 loads in the training process.
        coherent: Probability that the stems of a segment come from one song.
        doubled: Probability that a stem is the sum of two segments, where stems are mixed.
        activity: What counts as silence.
        cache: Where decoded songs are kept; in the user's cache folder where absent.
        cache_type: int16 is exact for 16-bit sources, float16 keeps 11 bits at every level.
        rescan: Batches after which the folders are searched for new songs; a run that was resumed
            may then see other segments than one that wasn't.
        folders, synthetic, studio, bank: Where the songs come from; exactly one of them.
    """

    segment: Positive = 6.0
    batch: Count = 4
    steps_per_epoch: Count = 1000
    workers: Annotated[int, Field(ge=0)] = 0
    coherent: Share = 0.5
    doubled: Share = 0.0
    activity: Activity = Activity()
    cache: str | None = None
    cache_type: SampleType = "int16"
    rescan: Count | None = None
    folders: Annotated[tuple[Folder, ...], FROM_LIST] = ()
    synthetic: Synthetic | None = None
    studio: Studio | None = None
    bank: Banked | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [self.folders, self.synthetic, self.studio, self.bank]
        if sum(map(bool, sources)) != 1:
            raise ValueError("give exactly one of 'folders', 'synthetic', 'studio' and 'bank'")
        if self.rescan and not self.folders:
            raise ValueError("'rescan' looks for new songs in 'folders', and there are none")
        return self

    @property
    def on_device(self) -> bool:
        """Whether batches are made where the network is, which isn't shared with workers."""
        return bool(self.bank or self.studio)


def build_data(
    options: DataOptions,
    *,
    stems: Sequence[str],
    sample_rate: int,
    channels: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    stretch: float = 1.0,
    device: torch.device | str = "cpu",
    allow_partial: bool = False,
    tell: Tell | None = None,
) -> Batches:
    """Return the stream of one process's batches of targets, `(batch, stems, channels, time)`.

    Args:
        options: From the recipe.
        stems: Names, in the network's order.
        sample_rate: Hz.
        channels: 1 or 2.
        rank: Number of this process.
        world_size: Number of processes.
        seed: Start of every draw.
        stretch: How much longer segments are than the recipe says, for augmentations that use
            them up; see `AugmentationOptions.stretch`.
        device: Where a bank and a studio make their batches; other sources make them on the CPU.
        allow_partial: Whether to train on the songs without problems if others have some.
        tell: Called with what is wrong with songs, where that doesn't end it.

    Raises:
        ConfigError: A stem never sounds, a folder has problems, or a bank doesn't fit.
    """
    plan = Plan(
        stems=tuple(stems),
        sample_rate=sample_rate,
        channels=channels,
        samples=math.ceil(max(1, round(options.segment * sample_rate)) * stretch),
        batch=options.batch,
        coherent=options.coherent,
        doubled=options.doubled,
        lanes=max(1, options.workers),
        rank=rank,
        world_size=world_size,
        seed=seed,
    )
    source = _source(options, plan, torch.device(device), allow_partial, tell)
    return Batches(source, options.steps_per_epoch, 0 if options.on_device else options.workers)


def _source(
    options: DataOptions, plan: Plan, device: torch.device, allow_partial: bool, tell: Tell | None
) -> BatchSource:
    if options.bank:
        return BankedSamples(options.bank, plan, device)
    if options.studio:
        return StudioSongs(options.studio, plan, device)
    if options.synthetic:
        return SyntheticSongs(options.synthetic, options.activity, plan)
    songs = MixedSongs(folder_library(options, plan, allow_partial, tell), plan)
    if options.rescan is None:
        return songs
    return GrowingSongs(songs, partial(folder_library, options, plan, True), options.rescan)


def folder_library(
    options: DataOptions, plan: Plan, allow_partial: bool = False, tell: Tell | None = None
) -> Library:
    """Open the folders' songs, decode what isn't decoded yet, and find where stems sound.

    Raises:
        ConfigError: A folder has problems that aren't allowed.
    """
    place = Path(options.cache).expanduser() if options.cache else cache_dir() / "songs"
    cache = Cache(place, plan.sample_rate, plan.channels, options.cache_type)
    songs: list[dict[str, Recording]] = []
    weights: list[float] = []
    for folder in options.folders:
        stems = folder.stems_of(plan)
        dataset = open_dataset(folder.path, folder.kind, folder.split, stems, allow_partial)
        decoded, damaged = cache.songs(dataset.tracks, stems)
        dataset = dataset.without(damaged)
        check_usable(dataset, folder.path, allow_partial)
        if tell is not None:
            tell(dataset.problems)
        for stored in decoded:
            songs.append({stem: _recording(one, plan, options) for stem, one in stored.items()})
            weights.append(folder.weight)
    return Library(songs, weights, plan.window, plan.channels)


def _recording(stored: Stored, plan: Plan, options: DataOptions) -> Recording:
    levels = np.array(stored.levels, dtype=np.float32)
    starts = first_samples(levels, plan.sample_rate, options.activity)
    return Recording(stored.path, stored.frames, starts, stored.scale)
