"""Songs made in the background by other processes, kept and mixed where the network is trained.

    processes: compose, render -> file -> thread -> pool on the device (int16, a ring of songs)
                                                        |
    step: draw songs, places, speeds -> interpolate -> targets (batch, stems, channels, time)

That feeds a GPU with ever new music: mixing costs it milliseconds, and new songs push out old ones.
Which songs are in the pool follows from the position in the stream, so a batch is a pure function
of it; where songs aren't made fast enough, training waits for them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Generator, Tensor

from separator.errors import ConfigError, ModelError
from separator.schema import Count
from separator.synthesis import SAMPLE_RATE
from separator.training.data.augmentation import uniform
from separator.training.data.bank import Bank
from separator.training.data.batches import outlive_one_signal
from separator.training.data.sources import Composed, Plan, rendered

_SCALE = 32767.0  # what full scale is in the pool


class Studio(Composed):
    """Options of songs made while training, in other processes; see `separator.synthesis`.

    Attributes:
        processes: How many make songs for each process that trains.
        opening: Songs in the pool before the first batch.
        pool: Most songs in each device's pool; one of 24 s takes 17 MB of its memory.
        batches_per_song: After so many batches another song joins the pool.
        varied: Share of the stems that are played faster or slower.
        semitones: Highest change of speed, up and down, as a change of pitch.
    """

    processes: Count = 2
    opening: Count = 8
    pool: Count = 100
    batches_per_song: Count = 4
    varied: Annotated[float, Field(ge=0, le=1)] = 0.5
    semitones: Annotated[float, Field(ge=0, le=24)] = 3.0

    def frames(self, sample_rate: int) -> int:
        """Return how many samples of a song are kept."""
        return int(self.duration * SAMPLE_RATE) * sample_rate // SAMPLE_RATE


class StudioSongs:
    """Batches drawn from a pool of songs on a device.

    A resumed run makes the songs of its pool anew before it goes on.

    Raises:
        ConfigError: There is no such stem, or songs are too short for segments.
    """

    def __init__(self, options: Studio, plan: Plan, device: torch.device) -> None:
        options.check(plan.stems)
        self.options, self.plan = options, plan
        frames = options.frames(plan.sample_rate)
        if frames < plan.samples * 2 ** (options.semitones / 12):
            raise ConfigError(
                f"'data.studio.duration' is {options.duration:g} s: too short for segments of "
                f"{plan.samples / plan.sample_rate:g} s played {options.semitones:g} semitones "
                "higher."
            )
        clips = options.pool * len(plan.stems)
        try:
            samples = torch.zeros((clips, plan.channels, frames), dtype=torch.int16, device=device)
        except RuntimeError as error:
            raise ModelError(
                f"{device} has no room for {options.pool} songs of {options.duration:g} s: lower "
                "'data.studio.pool'."
            ) from error
        scales = torch.full((clips,), 1 / _SCALE, device=device)
        self.bank = Bank(samples, scales, {}, plan.sample_rate)
        self._next = 0  # number of the song that joins the pool next
        self._coming: dict[int, Future[Tensor]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="separator-studio-")
        self._loader = ThreadPoolExecutor(1)
        self._renderers = ProcessPoolExecutor(
            options.processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
        )

    def __getitem__(self, position: int) -> Tensor:
        """Return the batch of this position, once the songs that it draws from are there.

        Raises:
            AudioError: A program that plays or speaks failed.
            ModelError: A process that makes songs was ended.
        """
        try:
            count = self._fill(position)
        except BrokenExecutor as error:
            raise ModelError(
                "A process that makes songs was ended, perhaps because memory was short: lower "
                "'data.studio.processes' or 'data.studio.duration', and go on with --resume."
            ) from error
        except BaseException:  # Ctrl-C, perhaps: nobody needs the songs that were ordered
            self.close()
            raise
        generator = self.plan.generator(position, self.bank.samples.device)
        return draw(self.bank, count, self.options, self.plan, generator)

    def close(self) -> None:
        """Make no more songs."""
        for pool in (self._renderers, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self, position: int) -> int:
        """Let songs join the pool up to a position; return how many are in it."""
        options, stems = self.options, len(self.plan.stems)
        end = options.opening + position // options.batches_per_song
        first = max(0, end - options.pool)
        if not first <= self._next <= end:  # the stream was left and entered elsewhere
            self._next = first
            self._coming.clear()
        for number in range(self._next, end + options.processes):  # some are made ahead
            if number not in self._coming:
                self._coming[number] = self._ordered(number)
        for number in range(self._next, end):
            slot = number % options.pool
            self.bank.samples[slot * stems : (slot + 1) * stems] = self._coming.pop(number).result()
        self._next = end
        return min(end, options.pool)

    def _ordered(self, number: int) -> Future[Tensor]:
        """Have a song made and brought to the device."""
        path = Path(self._folder.name, f"{number}.npy")
        made = self._renderers.submit(_make, path, self.options, self.plan, self._song(number))
        return self._loader.submit(_brought, made, path, self.bank.samples.device)

    def _song(self, number: int) -> int:
        """Return a song's seed: all processes together go through all songs before one returns."""
        start = int(np.random.SeedSequence(self.plan.seed).generate_state(1)[0])
        mine = number * self.plan.world_size + self.plan.rank
        return self.options.first + (start + mine) % self.options.songs


def _begin() -> None:
    """Prepare a process that makes songs: one thread, and an end with the process it works for."""
    outlive_one_signal(0)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this process, whatever it is doing, when its parent has ended."""
    wait([parent])
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _make(path: Path, options: Studio, plan: Plan, seed: int) -> None:
    """Write the stems of a song: `(stems, channels, time)`, int16."""
    stems = rendered(seed, options.duration, options.palette(), plan)
    audio = np.stack([stems[stem] for stem in plan.stems])[..., : options.frames(plan.sample_rate)]
    np.save(path, np.round(audio.clip(-1.0, 1.0) * _SCALE).astype(np.int16))


def _brought(made: Future[None], path: Path, device: torch.device) -> Tensor:
    """Wait for a song and bring it to the device."""
    made.result()
    song = torch.from_numpy(np.load(path)).to(device)
    path.unlink()
    return song


def draw(bank: Bank, songs: int, options: Studio, plan: Plan, g: Generator) -> Tensor:
    """Return targets `(batch, stems, channels, time)` on the bank's device.

    A segment's stems come from one place of one song, played at one speed, or each from another;
    see `Plan.coherent`. `g` is a generator of the bank's device, `songs` how many it holds.
    """
    like, stems = bank.scales, len(plan.stems)
    size = (plan.batch, stems)

    def each(low: float, high: float) -> Tensor:
        numbers = uniform(size, low, high, like, g)
        return torch.where(together, numbers[:, :1], numbers)

    together = uniform((plan.batch, 1), 0.0, 1.0, like, g) < plan.coherent
    clip = (each(0.0, songs)).long() * stems + torch.arange(stems, device=like.device)
    varied = each(0.0, 1.0) < options.varied
    semitones = each(-options.semitones, options.semitones) * varied
    speed = torch.exp2(semitones / 12.0)
    spare = bank.samples.shape[-1] - plan.samples * speed
    onset = -each(0.0, 1.0) * spare / speed
    return bank.play(clip, speed, onset, plan.samples)
