"""Batches of training segments, from songs on disk, from songs made on the fly, or from a bank.

    data:
      segment: 6.0                # seconds
      batch: 4                    # segments of one process in one step
      coherent: 0.5               # share of segments whose stems belong together
      folders:
        - path: data/musdb18hq
        - {path: data/moises, weight: 2.0}

A batch is a pure function of the seed, the process and its position in the stream, so a run goes
on from a number, and nothing depends on how many workers load the data.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from typing_extensions import Self

from separator.audio import resampled
from separator.errors import ConfigError, nearest
from separator.schema import Strict
from separator.training.mixing import (
    CHUNK,
    WINDOW,
    Audio,
    Library,
    Recording,
    active_windows,
    chunk_levels,
    mix,
)
from separator.training.synthesis import SAMPLE_RATE, STEMS, Palette, render_song

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Activity(Strict):
    """Say what counts as silence, see `separator.training.mixing.active_windows`."""

    quantile: Share = 0.15
    floor: Annotated[float, Field(ge=0)] = 1e-3
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5


class Folder(Strict):
    """Name a data set on disk.

    Attributes:
        path: Its folder.
        kind: How it is arranged, see `separator.datasets`; found out where absent.
        split: The part of it to train on.
        weight: How often to draw from one of its seconds, relative to the other folders'.
    """

    path: str
    kind: str | None = None
    split: str = "train"
    weight: Annotated[float, Field(gt=0)] = 1.0


class Synthetic(Strict):
    """Compose and render songs while training, see `separator.training.synthesis`.

    Attributes:
        first: Seed of the first song.
        songs: How many songs there are; the scripts' test songs begin at seed 1,000,000.
        duration: Seconds of each.
        timbres: Which instruments and voices may play.
        plain: Whether to do without the soundfonts and voices installed on this computer, so that
            songs are the same everywhere.
        pool: Songs in memory, among which stems are mixed.
        batches_per_song: After so many batches one song of the pool gives way to a new one.
    """

    first: Annotated[int, Field(ge=0)] = 0
    songs: Count = 1_000_000
    duration: Annotated[float, Field(ge=1)] = 24.0
    timbres: Literal["train", "heldout", "any"] = "train"
    plain: bool = True
    pool: Count = 4
    batches_per_song: Count = 8


class Banked(Strict):
    """Draw from a file of packed samples, on the device, see `separator.training.bank`."""

    path: str


class DataOptions(Strict):
    """Say what a network is trained on.

    Attributes:
        segment: Seconds of a training segment.
        batch: Segments of one process in one step.
        steps_per_epoch: Batches until the data loader ends, for validation and the like.
        workers: Processes that load data; 0 loads in the training process.
        coherent: Probability that the stems of a segment come from one song.
        doubled: Probability that a stem is the sum of two segments, where stems are mixed.
        activity: What counts as silence.
        cache: Where decoded songs are kept; in the user's cache folder where absent.
        cache_type: int16 is exact for 16-bit sources, float16 keeps 11 bits at every level.
        folders, synthetic, bank: Where the songs come from; exactly one of them.
    """

    segment: Annotated[float, Field(gt=0)] = 6.0
    batch: Count = 4
    steps_per_epoch: Count = 1000
    workers: Annotated[int, Field(ge=0)] = 0
    coherent: Share = 0.5
    doubled: Share = 0.0
    activity: Activity = Activity()
    cache: str | None = None
    cache_type: Literal["int16", "float16"] = "int16"
    folders: Annotated[tuple[Folder, ...], BeforeValidator(_as_tuple)] = ()
    synthetic: Synthetic | None = None
    bank: Banked | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = [bool(self.folders), self.synthetic is not None, self.bank is not None]
        if sum(sources) != 1:
            raise ValueError("give exactly one of 'folders', 'synthetic' and 'bank'")
        return self

    def samples(self, sample_rate: int) -> int:
        """Return the length of a segment in samples."""
        return max(1, round(self.segment * sample_rate))


class Source(Protocol):
    """Give the batch of every position: `(batch, stems, channels, time)`."""

    def __getitem__(self, position: int) -> Tensor:
        """Return the batch; a pure function of the position."""


class Batches:
    """A stream of batches that can be left and entered anywhere.

    An iteration ends with the epoch, the next one goes on behind it. `position` counts the batches
    that were handed out since the run began.
    """

    def __init__(self, source: Source, steps_per_epoch: int, workers: int = 0) -> None:
        self.source = source
        self.steps_per_epoch = steps_per_epoch
        self.position = 0
        self._loader = None if workers == 0 else _loader(source, _Rest(self), workers)

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.position // self.steps_per_epoch

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Tensor]:
        """Yield what is left of the epoch; count a batch before it is used."""
        batches: Iterable[Tensor] = self._loader or map(self.source.__getitem__, _Rest(self))
        for batch in batches:
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return what is needed to go on."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another stream, with the same options and seed, was left."""
        self.position = state["position"]


class _Rest:
    """The positions from now to the end of the epoch, asked for when an iteration begins."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[int]:
        start, steps = self.batches.position, self.batches.steps_per_epoch
        return iter(range(start, (start // steps + 1) * steps))


class _Items(Dataset[Tensor]):
    """A source in the shape that workers know."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, position: int) -> Tensor:
        return self.source[position]


def _loader(source: Source, positions: Iterable[int], workers: int) -> Iterable[Tensor]:
    return DataLoader(
        _Items(source),
        batch_size=None,
        sampler=positions,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader draws a seed: not from everybody's generator
    )


class MixedSongs:
    """Mix the songs of a library."""

    def __init__(
        self,
        library: Library,
        options: DataOptions,
        *,
        stems: Sequence[str],
        samples: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        library.check(stems)
        self.library, self.options = library, options
        self.stems, self.samples = tuple(stems), samples
        self.rank, self.world_size, self.seed = rank, world_size, seed

    def __getitem__(self, position: int) -> Tensor:
        """Return a batch; all processes together number their segments without gaps."""
        first = (position * self.world_size + self.rank) * self.options.batch
        numbers = range(first, first + self.options.batch)
        return torch.from_numpy(np.stack([self._segment(number) for number in numbers]))

    def _segment(self, number: int) -> Audio:
        return mix(
            self.library,
            self.stems,
            self.samples,
            np.random.default_rng([self.seed, number]),
            coherent=self.options.coherent,
            doubled=self.options.doubled,
        )


class SyntheticSongs:
    """Render songs on the fly, and mix those of a pool that changes song by song.

    Each worker, a `lane`, has a pool of its own, so that workers share the rendering.
    """

    def __init__(
        self,
        options: DataOptions,
        songs: Synthetic,
        *,
        stems: Sequence[str],
        sample_rate: int,
        channels: int,
        samples: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        for stem in stems:
            if stem not in STEMS:
                known = nearest(stem, STEMS) or f" There are: {', '.join(STEMS)}."
                raise ConfigError(f"Synthetic songs have no stem '{stem}'.{known}")
        self.options, self.songs = options, songs
        self.stems, self.samples = tuple(stems), samples
        self.sample_rate, self.channels = sample_rate, channels
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.palette = Palette(songs.timbres) if songs.plain else Palette.installed(songs.timbres)
        self._kept: dict[int, dict[str, Recording]] = {}

    def __getitem__(self, position: int) -> Tensor:
        """Return a batch from the pool of this position."""
        lanes = max(self.options.workers, 1)
        turn = position // lanes // self.songs.batches_per_song
        pool = [self._number(position % lanes, turn + place) for place in range(self.songs.pool)]
        self._kept = {number: self._kept.get(number) or self._render(number) for number in pool}
        library = Library(
            list(self._kept.values()),
            [1.0] * len(self._kept),
            round(WINDOW * CHUNK * self.sample_rate),
            self.channels,
        )
        # a stem may rest in all songs of a pool
        sounding = [stem for stem in self.stems if len(library.windows(stem))]
        rows = [self.stems.index(stem) for stem in sounding]
        out = np.zeros(
            (self.options.batch, len(self.stems), self.channels, self.samples), dtype=np.float32
        )
        if sounding:
            mixed = MixedSongs(
                library,
                self.options,
                stems=sounding,
                samples=self.samples,
                rank=self.rank,
                world_size=self.world_size,
                seed=self.seed,
            )
            out[:, rows] = mixed[position].numpy()
        return torch.from_numpy(out)

    def _number(self, lane: int, turn: int) -> int:
        """Choose the seed of a song."""
        draw = np.random.SeedSequence([self.seed, self.rank, lane, turn]).generate_state(1)[0]
        return self.songs.first + int(draw) % self.songs.songs

    def _render(self, number: int) -> dict[str, Recording]:
        stems = render_song(number, self.songs.duration, self.palette)
        return {stem: self._recording(stems[stem]) for stem in self.stems}

    def _recording(self, audio: Audio) -> Recording:
        if self.channels == 1:
            audio = audio.mean(0, keepdims=True)
        audio = np.concatenate(list(resampled([audio], SAMPLE_RATE, self.sample_rate)), axis=1)
        return recording(audio, self.sample_rate, self.options.activity)


def recording(audio: Audio, sample_rate: int, activity: Activity) -> Recording:
    """Return a recording of audio in memory, `(channels, time)`."""
    chunk = round(CHUNK * sample_rate)
    starts = active_windows(chunk_levels(audio, sample_rate), **activity.model_dump()) * chunk
    return Recording(np.ascontiguousarray(audio.T), audio.shape[1], starts)


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
) -> Batches:
    """Return the stream of one process's batches of targets, `(batch, stems, channels, time)`.

    Args:
        options: From the recipe.
        stems: Names, in the network's order.
        sample_rate: Hz.
        channels: 1 or 2.
        rank: Number of this process.
        world_size: Number of processes.
        seed: Of everything.
        stretch: How much longer segments are than the recipe says, for augmentations that use
            them up; see `AugmentationOptions.stretch`.
        device: Where a bank makes its batches; other sources make them on the CPU.
        allow_partial: Whether to train on the songs without problems if others have some.

    Raises:
        ConfigError: a stem never sounds, or a folder has problems.
    """
    samples = int(np.ceil(options.samples(sample_rate) * stretch))
    place = {"rank": rank, "world_size": world_size, "seed": seed}
    if options.synthetic is not None:
        source: Source = SyntheticSongs(
            options,
            options.synthetic,
            stems=stems,
            sample_rate=sample_rate,
            channels=channels,
            samples=samples,
            **place,
        )
    else:
        raise ConfigError("Only synthetic songs can be trained on.")
    return Batches(source, options.steps_per_epoch, options.workers)
