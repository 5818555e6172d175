"""Where batches come from: songs of a library, or songs made on the fly.

A source gives the batch of every position; it is a pure function of the position and the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from separator.audio.resample import resampled
from separator.errors import ConfigError
from separator.schema import Count, Strict
from separator.synthesis import SAMPLE_RATE, STEMS, Palette, render_song
from separator.synthesis.oscillators import Audio
from separator.training.data.mixing import (
    CHUNK,
    WINDOW,
    Activity,
    Library,
    Recording,
    mix,
    recording,
)
from separator.words import nearest


@dataclass(frozen=True)
class Plan:
    """What the batches of one process look like, and what decides about them.

    Attributes:
        stems: Names, in order.
        sample_rate: Hz.
        channels: 1 or 2.
        samples: Length of a segment.
        batch: Segments of this process in one step.
        coherent, doubled: See `separator.training.data.mixing.mix`.
        lanes: Processes that load data for this one.
        rank, world_size: Number of this process, and of all.
        seed: Start of every draw.
    """

    stems: tuple[str, ...]
    sample_rate: int
    channels: int
    samples: int
    batch: int
    coherent: float = 0.5
    doubled: float = 0.0
    lanes: int = 1
    rank: int = 0
    world_size: int = 1
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a batch: `(batch, stems, channels, time)`."""
        return self.batch, len(self.stems), self.channels, self.samples

    def generator(self, position: int, device: torch.device) -> torch.Generator:
        """Return what decides about the batch of a position that is drawn on a device."""
        entropy = [self.seed, self.rank, position]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
        return torch.Generator(device).manual_seed(seed)

    @property
    def window(self) -> int:
        """Samples in a window of the source activity detection."""
        return WINDOW * round(CHUNK * self.sample_rate)


class MixedSongs:
    """Mixtures of the songs of a library.

    All processes together number their segments without gaps, and a segment's number decides what
    is in it: two processes with batches of 2 see what one sees with batches of 4.

    Raises:
        ConfigError: A stem sounds in no song.
    """

    def __init__(self, library: Library, plan: Plan) -> None:
        library.check(plan.stems)
        self.library, self.plan = library, plan

    def __getitem__(self, position: int) -> Tensor:
        """Return the batch of this position."""
        plan = self.plan
        first = (position * plan.world_size + plan.rank) * plan.batch
        numbers = range(first, first + plan.batch)
        return torch.from_numpy(np.stack([self._segment(number) for number in numbers]))

    def _segment(self, number: int) -> Audio:
        return mix(
            self.library,
            self.plan.stems,
            self.plan.samples,
            np.random.default_rng([self.plan.seed, number]),
            coherent=self.plan.coherent,
            doubled=self.plan.doubled,
        )


class GrowingSongs:
    """Mix the songs of a library that others add to meanwhile.

    Args:
        songs: what is there now.
        reopen: returns the library of what is there then.
        every: batches after which it is looked at.
    """

    def __init__(self, songs: MixedSongs, reopen: Callable[[], Library], every: int) -> None:
        self.songs, self.reopen, self.every = songs, reopen, every
        self._seen: int | None = None

    def __getitem__(self, position: int) -> Tensor:
        """Return the batch of this position, of the songs that were there at the last look."""
        turn = position // self.every
        if self._seen is not None and turn != self._seen:
            self.songs = MixedSongs(self.reopen(), self.songs.plan)
        self._seen = turn
        return self.songs[position]


class Composed(Strict):
    """Choice of songs that are composed, see `separator.synthesis`.

    Attributes:
        first: Seed of the first song.
        songs: How many songs there are; the scripts' test songs begin at seed 1,000,000.
        duration: Seconds of each.
        timbres: Instruments and voices that may play.
        plain: Whether to do without the soundfonts and voices installed on this computer, so that
            songs are the same everywhere.
    """

    first: Annotated[int, Field(ge=0)] = 0
    songs: Count = 1_000_000
    duration: Annotated[float, Field(ge=1)] = 24.0
    timbres: Literal["train", "heldout", "any"] = "train"
    plain: bool = True

    def check(self, stems: Sequence[str]) -> None:
        """Refuse stems that no song has.

        Raises:
            ConfigError: There is no such stem.
        """
        for stem in stems:
            if stem not in STEMS:
                known = nearest(stem, STEMS) or f" There are: {', '.join(STEMS)}."
                raise ConfigError(f"Synthetic songs have no stem '{stem}'.{known}")

    def palette(self) -> Palette:
        """Return what plays and sings."""
        return Palette(self.timbres) if self.plain else Palette.installed(self.timbres)

    def seed(self, entropy: Sequence[int]) -> int:
        """Choose a song."""
        draw = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return self.first + draw % self.songs


class Synthetic(Composed):
    """Songs composed and rendered where batches are loaded.

    Attributes:
        pool: Songs in memory, among which stems are mixed.
        batches_per_song: After so many batches one song of the pool gives way to a new one.
    """

    pool: Count = 4
    batches_per_song: Count = 8


class SyntheticSongs:
    """Songs rendered on the fly, mixed with those of a pool that changes song by song.

    Each process that loads data, a lane, has a pool of its own, so that they share the rendering.
    (Epochs begin with the first process: if the steps of an epoch are no multiple of the lanes,
    processes change lanes and render their pools anew. What they give stays the same.)
    A stem that rests in the whole pool is silent.

    Raises:
        ConfigError: There is no such stem.
    """

    def __init__(self, songs: Synthetic, activity: Activity, plan: Plan) -> None:
        songs.check(plan.stems)
        self.songs, self.activity, self.plan = songs, activity, plan
        self.palette = songs.palette()
        self._pool: dict[int, dict[str, Recording]] = {}

    def __getitem__(self, position: int) -> Tensor:
        """Return the batch of this position."""
        library = self._library(position)
        out = torch.zeros(self.plan.shape)
        sounding = [i for i, stem in enumerate(self.plan.stems) if len(library.windows(stem))]
        if sounding:
            stems = tuple(self.plan.stems[i] for i in sounding)
            out[:, sounding] = MixedSongs(library, replace(self.plan, stems=stems))[position]
        return out

    def _library(self, position: int) -> Library:
        """Return the pool of this position; songs that were in the last one aren't made again."""
        lane, turn = position % self.plan.lanes, position // self.plan.lanes
        newest = turn // self.songs.batches_per_song + self.songs.pool
        seeds = [self._seed(lane, number) for number in range(newest - self.songs.pool, newest)]
        self._pool = {seed: self._pool.get(seed) or self._render(seed) for seed in seeds}
        songs = list(self._pool.values())
        return Library(songs, [1.0] * len(songs), self.plan.window, self.plan.channels)

    def _seed(self, lane: int, number: int) -> int:
        """Choose a song."""
        return self.songs.seed([self.plan.seed, self.plan.rank, lane, number])

    def _render(self, seed: int) -> dict[str, Recording]:
        stems = rendered(seed, self.songs.duration, self.palette, self.plan)
        return {
            stem: recording(audio, self.plan.sample_rate, self.activity)
            for stem, audio in stems.items()
        }


def rendered(seed: int, duration: float, palette: Palette, plan: Plan) -> dict[str, Audio]:
    """Return the stems of a song, `(channels, time)` each, as a plan wants them."""

    def fitted(audio: Audio) -> Audio:
        if plan.channels == 1:
            audio = np.asarray(audio.mean(0, keepdims=True), dtype=np.float32)
        return np.concatenate(list(resampled([audio], SAMPLE_RATE, plan.sample_rate)), axis=1)

    stems = render_song(seed, duration, palette)
    return {stem: fitted(stems[stem]) for stem in plan.stems}
