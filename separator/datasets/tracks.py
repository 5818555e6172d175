"""Songs with their stems, read at any place without loading the rest.

    track.files = {"mixture": (a.wav,), "vocals": (lead.wav, choir.wav), "drums": (), ...}

The files of a stem are summed; a stem without files is silent. Positions and lengths are counted
in samples unless a name says otherwise; audio is float32 (channels, time).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from separator.audio.reader import open_audio
from separator.errors import AudioError, ConfigError
from separator.words import MIXTURE, nearest

Signal = npt.NDArray[np.float32]
Blocks = Generator[Signal, None, None]

_BLOCK_SAMPLES = 1 << 16


class AudioSource(Protocol):
    """Something that a stem, or a part of it, is read from."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def samples(self) -> int:
        """Length."""

    def blocks(self, start: int, samples: int, block_samples: int) -> Blocks:
        """Yield `samples` samples from `start` on, as arrays (channels, `block_samples`)."""

    def identity(self) -> list[str | int]:
        """Return plain data that changes when the audio does, without reading it."""


@dataclass(frozen=True)
class AudioFile:
    """One audio stream of a file, as the scan found it.

    Attributes:
        direct: Whether libsndfile can read it: wav and flac at a random place cost 1 ms that way,
            30 ms through FFmpeg's small frames, which counts where training reads pieces.
    """

    path: Path
    stream: int
    sample_rate: int
    channels: int
    samples: int
    direct: bool = False

    def blocks(self, start: int, samples: int, block_samples: int) -> Blocks:
        """Yield `samples` samples from `start` on, as arrays (channels, `block_samples`).

        Raises:
            AudioError: The file can't be read, or ends too early.
        """
        read = self._direct if self.direct else self._decoded
        for block in read(start, samples, block_samples):
            samples -= block.shape[1]
            if samples and block.shape[1] < block_samples:
                break
            yield block
        if samples:
            raise AudioError(
                f"'{self.path}' ends {samples} samples too early: it had {self.samples} when it "
                "was scanned. Open the data set anew."
            )

    def identity(self) -> list[str | int]:
        """Return the file's place, size and time of change.

        Raises:
            OSError: The file is gone.
        """
        status = self.path.stat()
        return [str(self.path.resolve()), self.stream, status.st_size, status.st_mtime_ns]

    def _decoded(self, start: int, samples: int, block_samples: int) -> Blocks:
        seconds = {"start": start / self.sample_rate, "duration": samples / self.sample_rate}
        with open_audio(self.path, stream=self.stream, **seconds) as reader:
            yield from reader.blocks(block_samples)

    def _direct(self, start: int, samples: int, block_samples: int) -> Blocks:
        try:
            with soundfile.SoundFile(bytes(self.path)) as file:
                file.seek(min(start, file.frames))
                for begin in range(0, samples, block_samples):
                    size = min(block_samples, samples - begin)
                    block = file.read(size, dtype="float32", always_2d=True).T
                    self._check_finite(block, start + begin)
                    yield block
        except soundfile.LibsndfileError as error:
            raise AudioError(f"'{self.path}' can't be read: {error}") from error

    def _check_finite(self, block: Signal, first: int) -> None:
        finite = np.isfinite(block).all(0)
        if not finite.all():
            seconds = (first + int(finite.argmin())) / self.sample_rate
            raise AudioError(
                f"'{self.path}' has a sample that is NaN or infinite at {seconds:.3f} s; "
                "mend or export the file anew."
            )


@dataclass(frozen=True)
class LoadedAudio:
    """Audio that another package loads, whole: `load` returns (time, channels).

    Its identity is that of its `name`, of which there may be no other with other audio. It takes
    its samples along to another process, where `load` may not be able to go.
    """

    load: Callable[[], npt.NDArray[Any]] = field(repr=False)
    channels: int
    samples: int
    name: str = ""

    def identity(self) -> list[str | int]:
        """Return name, channels and length."""
        return [self.name, self.channels, self.samples]

    def blocks(self, start: int, samples: int, block_samples: int) -> Blocks:
        """Yield `samples` samples from `start` on, as arrays (channels, `block_samples`)."""
        audio = np.asarray(self.load()[start : start + samples].T, np.float32)
        for begin in range(0, audio.shape[1], block_samples):
            yield audio[:, begin : begin + block_samples]

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes it anew from its samples."""
        return _from_samples, (np.asarray(self.load(), np.float32), self.name)


def _from_samples(samples: Signal, name: str) -> LoadedAudio:
    return LoadedAudio(lambda: samples, samples.shape[1], samples.shape[0], name)


@dataclass(frozen=True)
class Track:
    """One song.

    Attributes:
        name: Unlike every other track's of its data set; can be a file's name.
        sample_rate: Hz.
        channels: Mono files of a stereo track are read as two equal channels.
        samples: Length of the mixture; shorter stems end in silence, longer ones are cut.
        stems: Names, in the order of the data set's.
        files: What each stem, and the mixture, is summed from.
    """

    name: str
    sample_rate: int
    channels: int
    samples: int
    stems: tuple[str, ...]
    files: Mapping[str, tuple[AudioSource, ...]] = field(repr=False, hash=False)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate

    def identity(self) -> dict[str, list[list[str | int]]]:
        """Return plain data that changes when the audio does, by stem, without reading it.

        Raises:
            OSError: A file is gone.
        """
        return {stem: [part.identity() for part in parts] for stem, parts in self.files.items()}

    def mixture(self, start: float = 0.0, duration: float | None = None) -> Signal:
        """Return the mixture (channels, time).

        Args:
            start: Seconds skipped, to the nearest sample.
            duration: Seconds; to the end where absent.
        """
        samples = None if duration is None else round(duration * self.sample_rate)
        return self.read(MIXTURE, round(start * self.sample_rate), samples)

    def read(self, stem: str, start: int = 0, samples: int | None = None) -> Signal:
        """Return a piece of a stem, or of the "mixture", as (channels, `samples`).

        Args:
            stem: One of `stems`, or "mixture".
            start: The first sample.
            samples: Length, with silence after the end of the track; to its end where absent.

        Raises:
            ConfigError: There is no such stem.
            AudioError: A file can't be read.
        """
        samples = self._length(start, samples)
        if not samples:
            return np.zeros((self.channels, 0), np.float32)
        return next(self.blocks(stem, start, samples, block_samples=samples))

    def blocks(
        self,
        stem: str = MIXTURE,
        start: int = 0,
        samples: int | None = None,
        *,
        block_samples: int = _BLOCK_SAMPLES,
    ) -> Blocks:
        """Yield the same as `read`, as arrays (channels, `block_samples`), the last one shorter."""
        end = start + self._length(start, samples)
        with ExitStack() as stack:
            parts = [
                stack.enter_context(closing(source.blocks(start, last - start, block_samples)))
                for source in self._sources(stem)
                if (last := min(end, self.samples, source.samples)) > start
            ]
            for begin in range(start, end, block_samples):
                block = np.zeros((self.channels, min(block_samples, end - begin)), np.float32)
                for part in parts:
                    piece = next(part, block[:, :0])
                    block[:, : piece.shape[1]] += piece
                yield block

    def _length(self, start: int, samples: int | None) -> int:
        if start < 0 or (samples is not None and samples < 0):
            raise ConfigError(
                f"'{self.name}' can't be read from sample {start} for {samples}: negative."
            )
        return max(0, self.samples - start) if samples is None else samples

    def _sources(self, stem: str) -> tuple[AudioSource, ...]:
        if stem not in self.files:
            known = ", ".join(self.files)
            raise ConfigError(
                f"'{self.name}' has no stem '{stem}'; it has: {known}.{nearest(stem, self.files)}"
            )
        return self.files[stem]
