"""Writing all stems of one track together: one gain, and all of them or none.

    write({stem: block}) -> queue -> thread: encode at gain 1 --+-> nothing clipped: rename
                                            spool as float32 ---+-> else: encode anew, one gain

Integers and lossy formats can't hold what is beyond full scale. As the loudest sample is known
only at the end, the stems are encoded as they are and also kept as floats in hidden files beside
the outputs; these are read only if something clipped. Levels between stems never change, and stems
plus residual null against the mixture times the gain. A stem that is there already counts for the
gain, too: else a run that is resumed would write louder stems.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from separator.audio.formats import kept_bit_depth, output_format
from separator.audio.info import AudioInfo
from separator.audio.tags import Tags, read_tags
from separator.audio.writer import AudioWriter, write_error
from separator.errors import AudioError, ConfigError
from separator.files import give_name, temporary_path

Block = npt.NDArray[np.float32]

_QUEUED_BLOCKS = 8
_MARGIN = 1 - 1e-6  # float32 products may round up across full scale
_SPOOL_SAMPLES = 1 << 16


class StemWriter:
    """Writer of the stems of one track, which encodes in a thread of its own.

    As a context manager it closes, or discards everything where an error passes.
    `gain` (linear) is 1 until `close` finds that something clipped; `notes` are for the user.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        sample_rate: int,
        channels: int,
        *,
        format: str | None = None,
        bit_depth: int | None = None,
        bitrate: int | None = None,
        source: AudioInfo | None = None,
        tags: Tags | None = None,
        overwrite: bool = False,
        others: Iterable[str] = (),
    ):
        """Begin all files.

        Args:
            paths: Where each stem appears.
            sample_rate: Hz.
            channels: Number of channels.
            format: As in `AudioWriter`; the paths' extension where absent.
            bit_depth: As in `AudioWriter`; the source's where absent.
            bitrate: As in `AudioWriter`.
            source: The song; its layout, bit depth and tags are kept.
            tags: Other tags than the source's.
            overwrite: Replace existing files.
            others: Stems that are given too and not written: the gain is what all need together,
                whichever of them are there already.

        Raises:
            ConfigError: The format can't hold such audio, or two stems share a path.
            AudioError: A file exists, or can't be written.
        """
        if len(set(paths.values())) < len(paths):
            raise ConfigError("Two stems would have one path; every stem needs a path of its own.")
        self.gain = 1.0
        self._excess = 0.0
        self._closed = False
        self._error: Exception | None = None
        self._queue: queue.Queue[Mapping[str, Block] | None] = queue.Queue(_QUEUED_BLOCKS)
        self._spools: dict[str, _Spool] = {}
        self._writers: dict[str, AudioWriter] = {}
        tags = tags or (read_tags(source.path) if source else Tags())
        self.notes = (tags.note,) if tags.note else ()
        self._given = {*paths, *others}
        self._paths, self._sample_rate, self._channels = dict(paths), sample_rate, channels
        self._format, self._bitrate, self._overwrite = format, bitrate, overwrite
        self._tags = {stem: tags.for_stem(stem) for stem in paths}
        self._bit_depth, self._source = bit_depth, source
        try:
            for stem, path in self._paths.items():
                self._writers[stem] = self._open(stem)
                if self._writers[stem].bit_depth != 32:
                    self._spools[stem] = _Spool(path, channels)
        except BaseException:
            self._remove()
            raise
        self._thread = threading.Thread(target=self._work, name="stem-writer", daemon=True)
        self._thread.start()

    def __enter__(self) -> StemWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()

    def write(self, blocks: Mapping[str, Block]) -> None:
        """Queue one block (channels, time) of every stem; waits while the queue is full.

        The arrays must not change afterwards.

        Raises:
            AudioError: An earlier block couldn't be written.
            ConfigError: The stems aren't those that were begun.
        """
        self._check()
        if blocks.keys() != self._given:
            wanted = ", ".join(sorted(self._given))
            raise ConfigError(f"Blocks of {', '.join(blocks)} were given; wanted: {wanted}.")
        self._queue.put(blocks)

    def close(self) -> float:
        """Finish and name all files, and return the gain that was applied to them.

        After the first time, it only returns the gain.

        Raises:
            AudioError: A stem couldn't be written; none is left behind.
        """
        if self._closed:
            return self.gain
        self._closed = True
        try:
            self._join()
            self._check()
            if self._excess > 1:
                self._encode_anew(_MARGIN / self._excess)
            for writer in self._writers.values():
                writer.finish()
            self._publish()
        finally:
            self.discard()
        return self.gain

    def discard(self) -> None:
        """Stop, and remove all hidden files; after `close` nothing is left to remove."""
        self._closed = True
        self._error = self._error or AudioError("The stems were discarded.")
        self._join()
        self._remove()

    def _open(self, stem: str) -> AudioWriter:
        path = self._paths[stem]
        name = self._format or path.suffix or "none"
        depth = self._bit_depth or kept_bit_depth(output_format(name), self._source)
        return AudioWriter(
            path,
            self._sample_rate,
            self._channels,
            format=self._format,
            bit_depth=depth,
            bitrate=self._bitrate,
            layout=self._source.layout if self._source else None,
            tags=self._tags[stem],
            overwrite=self._overwrite,
        )

    def _work(self) -> None:
        """Encode until the end of the queue; after an error, only empty it."""
        while (blocks := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._encode(blocks)
                except Exception as error:
                    self._error = error  # raised in the caller's thread

    def _encode(self, blocks: Mapping[str, Block]) -> None:
        for stem, block in blocks.items():
            writer = self._writers.get(stem) or next(iter(self._writers.values()))
            if writer.bit_depth != 32:
                self._excess = max(self._excess, excess(block, writer.bit_depth))
            if stem in self._writers:
                writer.write(block)
            if spool := self._spools.get(stem):
                spool.write(block)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _join(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _encode_anew(self, gain: float) -> None:
        self.gain = gain
        for stem, spool in self._spools.items():
            self._writers[stem].discard()
            self._writers[stem] = self._open(stem)
            for block in spool.blocks():
                self._writers[stem].write(block * np.float32(gain))

    def _publish(self) -> None:
        """Rename all; if one fails, take back those that have appeared, for what they replaced."""
        published: list[AudioWriter] = []
        replaced: dict[Path, Path] = {}
        try:
            for writer in self._writers.values():
                if self._overwrite and writer.path.is_file():
                    replaced[writer.path] = _set_aside(writer.path)
                writer.publish()
                published.append(writer)
        except BaseException:
            for writer in published:
                writer.take_back()
            for path, aside in replaced.items():
                with suppress(OSError):  # another run's file may be there by now
                    give_name(aside, path)
            raise
        finally:
            for aside in replaced.values():
                with suppress(OSError):
                    aside.unlink(missing_ok=True)

    def _remove(self) -> None:
        """Remove all hidden files that are left."""
        for writer in self._writers.values():
            writer.discard()
        for spool in self._spools.values():
            spool.remove()


def _set_aside(path: Path) -> Path:
    """Give a file a hidden name and return it; the file keeps the other one where links exist."""
    hidden = temporary_path(path)
    with suppress(OSError):
        hidden.hardlink_to(path)
        return hidden
    try:
        return path.rename(hidden)
    except OSError as error:
        raise write_error(path, error) from error


class _Spool:
    """Blocks kept as floats in a hidden file."""

    def __init__(self, target: Path, channels: int):
        self._target, self._channels = target, channels
        self._path = temporary_path(target.with_suffix(".f32"))
        try:
            self._file = self._path.open("xb+")
        except OSError as error:
            raise write_error(target, error) from error

    def write(self, block: Block) -> None:
        try:
            self._file.write(np.ascontiguousarray(block.T, np.float32).data)
        except OSError as error:
            raise write_error(self._target, error) from error

    def blocks(self) -> Iterator[Block]:
        self._file.seek(0)
        while data := self._file.read(4 * self._channels * _SPOOL_SAMPLES):
            yield np.frombuffer(data, np.float32).reshape(-1, self._channels).T

    def remove(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink()


def excess(block: Block, bit_depth: int | None) -> float:
    """Return how many times full scale the loudest sample is; up to 1, nothing clips.

    Integers reach -1, but only 1 - 2^(1 - bits) upwards; lossy formats reach 1 both ways.

    >>> excess(np.array([[-1.0, 0.5]], np.float32), 16), excess(np.array([[2.0]], np.float32), None)
    (1.0, 2.0)
    """
    if not block.size:
        return 0.0
    top = 1.0 if bit_depth is None else 1 - 2.0 ** (1 - bit_depth)
    return max(float(block.max()) / top, -float(block.min()))
