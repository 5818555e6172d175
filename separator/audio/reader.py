"""Reading audio as a stream of blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType

import av.error
import numpy as np
import numpy.typing as npt

from separator.audio import ogg, opinion
from separator.audio.decoders import Decoder, open_decoder
from separator.audio.info import SAMPLE_RATES, AudioInfo, Truncation, truncation
from separator.errors import AudioError

Block = npt.NDArray[np.float32]


def probe(path: str | Path, *, stream: int | None = None) -> AudioInfo:
    """Return what a file's headers say, without decoding it.

    Raises:
        AudioError: The file can't be read, isn't audio or holds no samples.
    """
    with open_audio(path, stream=stream) as reader:
        return reader.info


def open_audio(
    path: str | Path,
    *,
    stream: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
) -> AudioReader:
    """Open an audio or video file for reading in blocks.

    Args:
        path: Any file with sound in it.
        stream: Audio stream, counted from 0 (`.stem.mp4` files have five); the first that
            can be decoded where absent.
        start: Seconds skipped, to the nearest sample.
        duration: Seconds read at most; to the end where absent.

    Raises:
        AudioError: The file can't be read, isn't audio or holds no samples.
    """
    return AudioReader(Path(path), stream, start, duration)


class AudioReader:
    """One audio stream of a file, as float32 blocks (channels, time).

    `samples` is the length that is expected (`None` if unknown). When the blocks are exhausted,
    `samples_read` is the true one, and `truncation` says whether the file ended early.
    """

    def __init__(self, path: Path, stream: int | None, start: float, duration: float | None):
        self.samples_read = 0
        self.truncation: Truncation | None = None
        if not (math.isfinite(start) and start >= 0):
            raise AudioError(f"Start is {start} s; allowed: 0 or more.")
        if duration is not None and not (math.isfinite(duration) and duration > 0):
            raise AudioError(f"Duration is {duration} s; allowed: more than 0.")
        _check_file(path)
        self._decoder: Decoder = open_decoder(path, stream)
        self.info = self._decoder.info
        self.sample_rate, self.channels = self.info.sample_rate, self.info.channels
        self._is_default = stream in (None, 0)
        if self.sample_rate not in SAMPLE_RATES:
            self.close()
            raise AudioError(
                f"'{path}' has {self.sample_rate} samples per second; allowed: "
                f"{SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1}. Convert it first."
            )
        self._first = round(start * self.sample_rate)
        self._wanted = None if duration is None else max(1, round(duration * self.sample_rate))
        self.samples = self._expected()

    def _expected(self) -> int | None:
        declared = self.info.samples
        if declared == 0:
            self.close()
            raise AudioError(f"'{self.info.path}' holds no audio: its header says 0 samples.")
        if declared is None:
            return None
        return max(0, min(declared - self._first, self._wanted or declared))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of what was read so far."""
        return tuple(self._decoder.notes)

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Block]:
        return self.blocks()

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()

    def blocks(self, block_samples: int = 1 << 16) -> Iterator[Block]:
        """Yield arrays (channels, `block_samples`), the last one shorter; once for each reader.

        Raises:
            AudioError: Nothing could be decoded, or a sample is NaN or infinite.
        """
        for block in rechunk(self._window(), block_samples):
            self._check_finite(block)
            self.samples_read += block.shape[1]
            yield block
        if not self.samples_read:
            raise AudioError(self._nothing())

    def _window(self) -> Iterator[Block]:
        """Yield what lies between the start and the end asked for."""
        position = self._decoder.seek(self._first) if self._first else 0
        limits = [self._first + self._wanted] if self._wanted else []
        limits += [self._decoder.limit] if self._decoder.limit else []
        end = min(limits, default=None)
        for source in (self._decoded, self._second_opinion):
            for block in source(position):
                begin = max(0, self._first - position)
                stop = block.shape[1] if end is None else end - position
                if block[:, begin:stop].shape[1]:
                    yield block[:, begin:stop]
                position += block.shape[1]
                if end is not None and position >= end:
                    return
        ended = self.info.container != "ogg" or ogg.has_ended(self.info.path)
        self.truncation = truncation(
            self.info, position, damaged=self._decoder.damaged, ended=ended
        )

    def _decoded(self, _: int) -> Iterator[Block]:
        try:
            yield from self._decoder
        except (OSError, av.error.FFmpegError) as error:
            reason = (error.strerror or str(error)).lower()
            raise AudioError(f"'{self.info.path}' can't be read: {reason}.") from error

    def _second_opinion(self, decoded: int) -> Iterator[Block]:
        """Ask the other decoder where the header counts other samples than were decoded.

        Yields what the other one has beyond them, where both give the same music.

        Raises:
            AudioError: There is more than the header counts, and the other decoder gives something
                else.
        """
        path, declared = self.info.path, self.info.samples
        known = declared is not None and self._is_default and not self._decoder.damaged
        if declared is None or not known or abs(decoded - declared) <= self.info.tolerance:
            return
        with ExitStack() as files:
            one = files.enter_context(closing(open_decoder(path)))
            if (other := opinion.other_decoder(one, path)) is None:
                return
            second = opinion.compare(one, files.enter_context(closing(other)))
        if second.agrees and second.samples > decoded:
            yield from opinion.rest(path, self._decoder, decoded)
        elif decoded > declared and not second.agrees:
            raise AudioError(
                f"'{path}' counts {declared} samples and gives {decoded}; two decoders disagree "
                "about what they are. Convert it to wav first."
            )

    def _check_finite(self, block: Block) -> None:
        finite = np.isfinite(block)
        if not finite.all():
            index = int(np.argmin(finite.all(0)))
            value = "NaN" if np.isnan(block[:, index]).any() else "infinite"
            seconds = (self._first + self.samples_read + index) / self.sample_rate
            raise AudioError(
                f"'{self.info.path}' has a sample that is {value} at {seconds:.3f} s; "
                "mend or export the file anew."
            )

    def _nothing(self) -> str:
        if self._first:
            length = "unknown" if self.info.duration is None else f"{self.info.duration:.1f} s"
            return (
                f"'{self.info.path}' has nothing after {self._first / self.sample_rate:.1f} s; "
                f"its length is {length}."
            )
        return f"'{self.info.path}' holds no audio that can be decoded."


def rechunk(arrays: Iterable[Block], size: int) -> Iterator[Block]:
    """Yield the same samples in arrays (channels, `size`), the last one shorter."""
    pending: list[Block] = []
    held = 0
    for array in arrays:
        pending.append(array)
        held += array.shape[1]
        if held >= size:
            joined = np.concatenate(pending, axis=1)
            whole = held - held % size
            for begin in range(0, whole, size):
                yield np.ascontiguousarray(joined[:, begin : begin + size])
            pending, held = [joined[:, whole:]], held - whole
    if held:
        yield np.ascontiguousarray(np.concatenate(pending, axis=1))


def _check_file(path: Path) -> None:
    """Refuse what isn't a readable file with something in it."""
    try:
        if path.is_dir():
            raise AudioError(f"'{path}' is a folder, not an audio file.")
        if path.exists() and not path.is_file():
            raise AudioError(f"'{path}' is not a regular file.")
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AudioError(f"'{path}' can't be read: {reason}.") from error
    if empty:
        raise AudioError(f"'{path}' is empty (0 bytes).")
