"""Draw training segments from recorded stems: where something sounds, from one song or several.

    coherent:  one song, one place          random:  a song and a place for each stem

                 |--------|                 vocals   song 7     |--------|
      vocals ~~~~~~~~~~~~~~~~~~             drums    song 2  |--------|
      drums  ~~~~~~~~~~~~~~~~~~             bass     song 9         |--------|

Random mixing makes many songs of few, coherent mixing keeps what musicians do together. Silence
is avoided by the source activity detection of BSRNN: segments come from `active_windows`.

Audio is float32 `(channels, time)`; levels are RMS amplitudes of chunks of `CHUNK` seconds.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from pydantic import Field

from separator.errors import ConfigError
from separator.schema import Strict
from separator.synthesis.oscillators import Audio
from separator.words import nearest

Integers = npt.NDArray[np.int64]

CHUNK = 0.6  # seconds
WINDOW = 10  # chunks
HOP = 5  # chunks from window to window


def chunk_levels(audio: Audio, sample_rate: int) -> Audio:
    """Return the RMS amplitude of each chunk, the last one as short as the signal leaves it.

    >>> chunk_levels(np.full((2, 900), 0.5, np.float32), 1000).tolist()
    [0.5, 0.5]
    """
    size = round(CHUNK * sample_rate)
    starts = np.arange(0, audio.shape[1], size)
    power = np.add.reduceat(np.square(audio, dtype=np.float64).mean(0), starts)
    lengths = np.diff(np.append(starts, audio.shape[1]))
    return np.sqrt(power / lengths).astype(np.float32)


class Activity(Strict):
    """Limits below which sound counts as silence.

    Attributes:
        quantile: A chunk sounds if it isn't among this share of the stem's softest chunks,
        floor: and is louder than this RMS amplitude.
        share: A window sounds if more than this share of its chunks do.
    """

    quantile: Annotated[float, Field(ge=0, le=1)] = 0.15
    floor: Annotated[float, Field(ge=0)] = 1e-3
    share: Annotated[float, Field(ge=0, lt=1)] = 0.5


def active_windows(levels: Audio, activity: Activity) -> Integers:
    """Return the first chunks of those windows in which the stem sounds.

    There is a window of ten chunks every five chunks. A stem shorter than a window is one window.

    Reference: Luo and Yu (2022), Music source separation with band-split RNN, arXiv 2209.15174,
    section IV-A: windows of 6 s with 50 % overlap, ten chunks each, and `Activity`'s defaults. Its
    floor is an "energy" of 1e-3, of which it doesn't say whether it is a sum or a mean.
    """
    if not len(levels):
        return np.zeros(0, dtype=np.int64)
    # not "louder than the quantile": a steady sound would never sound
    sounds = (levels >= np.quantile(levels, activity.quantile)) & (levels > activity.floor)
    starts = np.arange(0, max(len(levels) - WINDOW, 0) + 1, HOP)
    shares = np.array([sounds[start : start + WINDOW].mean() for start in starts])
    return starts[shares > activity.share]


@dataclass(frozen=True)
class Recording:
    """One stem of one song, in memory or on disk, and where it sounds.

    Attributes:
        audio: `(time, channels)`, integers or floats, or the `.npy` file that holds them.
        frames: Samples in each channel.
        scale: What to multiply samples by for an amplitude.
        starts: First samples of the active windows.
    """

    audio: npt.NDArray[np.generic] | Path
    frames: int
    starts: Integers
    scale: float = 1.0

    def read(self, start: int, samples: int) -> Audio:
        """Return `(channels, samples)` from `start` on; there is silence behind the end."""
        audio = _opened(self.audio) if isinstance(self.audio, Path) else self.audio
        piece = audio[start : start + samples]
        out = np.zeros((audio.shape[1], samples), dtype=np.float32)
        np.multiply(piece.T, np.float32(self.scale), out=out[:, : len(piece)], dtype=np.float32)
        return out


def recording(audio: Audio, sample_rate: int, activity: Activity) -> Recording:
    """Return a recording of `audio` (channels, time), kept in memory."""
    starts = first_samples(chunk_levels(audio, sample_rate), sample_rate, activity)
    return Recording(np.ascontiguousarray(audio.T), audio.shape[1], starts)


def first_samples(levels: Audio, sample_rate: int, activity: Activity) -> Integers:
    """Return where the active windows begin, in samples."""
    return active_windows(levels, activity) * round(CHUNK * sample_rate)


@functools.lru_cache(maxsize=4096)
def _opened(path: Path) -> npt.NDArray[np.generic]:
    """Map a file into memory, and keep it mapped: reading its header again costs more."""
    array: npt.NDArray[np.generic] = np.load(path, mmap_mode="r")
    return array


Recordings = Mapping[str, Recording]


@dataclass(frozen=True)
class Library:
    """The songs to draw from.

    Attributes:
        songs: Each a mapping of stems to recordings; a stem that a song lacks is silent in it.
        weights: How often to draw from each song's windows, relative to the others'.
        window: Samples in a window.
        channels: Number in every recording.
    """

    songs: Sequence[Recordings]
    weights: Sequence[float]
    window: int
    channels: int
    _tables: dict[str, tuple[Integers, npt.NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def stems(self) -> tuple[str, ...]:
        """The names of all stems, sorted."""
        return tuple(sorted({stem for song in self.songs for stem in song}))

    def windows(self, stem: str) -> Integers:
        """Return the active windows of a stem: `(n, 2)`, the number of a song and a sample."""
        return self._table(stem)[0]

    def draw(self, stem: str, samples: int, rng: Generator) -> tuple[int, int]:
        """Draw a song and the first sample of a segment in which the stem sounds.

        A segment shorter than a window lies within one, a longer one around one, as far as the
        song reaches.
        """
        windows, cumulated = self._table(stem)
        song, start = windows[np.searchsorted(cumulated, rng.random(), side="right")]
        low, high = sorted((start, start + self.window - samples))
        last = max(self.songs[song][stem].frames - samples, 0)
        return int(song), int(np.clip(rng.integers(low, high + 1), 0, last))

    def read(self, stem: str, song: int, start: int, samples: int) -> Audio:
        """Return a segment `(channels, samples)`."""
        recording = self.songs[song].get(stem)
        if recording is None:
            return np.zeros((self.channels, samples), dtype=np.float32)
        return recording.read(start, samples)

    def check(self, stems: Iterable[str]) -> None:
        """Refuse stems that never sound.

        Raises:
            ConfigError: Some stem sounds in no song.
        """
        for stem in stems:
            if len(self.windows(stem)) == 0:
                known = nearest(stem, self.stems) or f" There are: {', '.join(self.stems)}."
                raise ConfigError(f"The stem '{stem}' sounds in none of the songs.{known}")

    def _table(self, stem: str) -> tuple[Integers, npt.NDArray[np.float64]]:
        """Return the windows of a stem and their cumulated probabilities, made when first asked."""
        if stem not in self._tables:
            none: Integers = np.zeros(0, dtype=np.int64)
            starts = [song[stem].starts if stem in song else none for song in self.songs]
            counts = [len(places) for places in starts]
            songs = np.repeat(np.arange(len(starts)), counts)
            places = np.concatenate([none, *starts])
            cumulated = np.cumsum(np.repeat(np.asarray(self.weights, dtype=np.float64), counts))
            # the last one must exceed every random number, whatever rounding did to it
            cumulated = cumulated / cumulated[-1:] if len(cumulated) else cumulated
            self._tables[stem] = np.stack([songs, places], axis=1), cumulated
        return self._tables[stem]


def mix(
    library: Library,
    stems: Sequence[str],
    samples: int,
    rng: Generator,
    *,
    coherent: float = 0.5,
    doubled: float = 0.0,
) -> Audio:
    """Draw one segment of every stem: `(stems, channels, samples)`.

    Args:
        library: Where to draw from.
        stems: Names, in order.
        samples: Length of the segment.
        rng: Decides everything; as many numbers are drawn, whatever they say.
        coherent: Probability that all stems come from one place of one song, in which at least
            one of them sounds; else each comes from a song of its own.
        doubled: Probability that a randomly drawn stem is the sum of two segments, as in Kong et
            al. (2021), arXiv 2109.05418.
    """
    together = rng.random() < coherent
    lead = stems[int(rng.integers(len(stems)))]
    song, start = library.draw(lead, samples, rng)
    out = np.empty((len(stems), library.channels, samples), dtype=np.float32)
    for row, stem in enumerate(stems):
        first, second = (library.draw(stem, samples, rng) for _ in range(2))
        twice = rng.random() < doubled
        out[row] = library.read(stem, *((song, start) if together else first), samples)
        if twice and not together:
            out[row] += library.read(stem, *second, samples)
    return out
