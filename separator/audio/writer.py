"""Writing one audio file, which appears whole or not at all."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import av.error
import numpy as np
import numpy.typing as npt
import soundfile

from separator.audio import tags as tagging
from separator.audio.encoders import open_encoder
from separator.audio.formats import check_output, kept_bit_depth, output_format
from separator.audio.layout import Layout
from separator.audio.tags import Tags
from separator.errors import AudioError, ConfigError
from separator.files import give_name, temporary_path

Block = npt.NDArray[np.float32]


class AudioWriter:
    """Hidden file of encoded blocks; `close` gives it its name, `discard` removes it.

    As a context manager it closes, or discards where an error passes.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        channels: int,
        *,
        format: str | None = None,
        bit_depth: int | None = None,
        bitrate: int | None = None,
        layout: Layout | None = None,
        tags: Tags | None = None,
        overwrite: bool = False,
    ):
        """Begin a file; missing folders are made.

        Args:
            path: Where the file appears.
            sample_rate: Hz. Opus files are resampled to 48 kHz where Opus doesn't have the rate.
            channels: Number of channels.
            format: wav, flac, mp3, ogg, opus or m4a; the path's extension where absent.
            bit_depth: 16, 24 or (wav only, as float) 32; 16 where absent. Not for lossy formats.
            bitrate: kb/s, for lossy formats.
            layout: Where the speakers stand; the usual order where absent.
            tags: Title, artist, cover and so on, where the format can hold them.
            overwrite: Replace an existing file.

        Raises:
            ConfigError: The format can't hold such audio.
            AudioError: The file exists, or can't be written.
        """
        self.path = Path(path)
        self.format = output_format(format or self.path.suffix or "none")
        self.bit_depth = bit_depth or kept_bit_depth(self.format, None)
        check_output(self.format, sample_rate, channels, self.bit_depth, bitrate)
        self.channels, self.overwrite, self._tags = channels, overwrite, tags
        self.samples_written = 0
        self._identity: tuple[int, int] | None = None  # of the published file
        self._temporary = temporary_path(self.path)
        try:
            self._check_free()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("xb+")
        except OSError as error:
            raise write_error(self.path, error) from error
        try:
            self._encoder = open_encoder(
                self._file, self.format, sample_rate, channels, self.bit_depth, bitrate, layout
            )
        except (av.error.FFmpegError, soundfile.LibsndfileError) as error:
            self._file.close()
            self._temporary.unlink()
            raise ConfigError(
                f"{self.format.name} can't hold {channels} channels at {sample_rate} Hz ({error}); "
                "choose wav or flac."
            ) from error

    def __enter__(self) -> AudioWriter:
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

    def write(self, block: Block) -> None:
        """Encode (channels, time).

        Raises:
            AudioError: The disk is full, or another reason why nothing can be written.
        """
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise AudioError(
                f"'{self.path.name}' takes blocks ({self.channels}, time), not {block.shape}."
            )
        try:
            self._encoder.write(block)
        except (OSError, av.error.FFmpegError, soundfile.LibsndfileError) as error:
            raise write_error(self.path, error) from error
        self.samples_written += block.shape[1]

    def close(self) -> None:
        """Finish the file and give it its name; nothing happens if that is done already.

        Raises:
            AudioError: It can't be written; nothing is left behind.
        """
        if not self._file.closed:
            self.finish()
            self.publish()

    def finish(self) -> None:
        """Finish the hidden file, tags included.

        Raises:
            AudioError: It can't be written; nothing is left behind.
        """
        try:
            self._encoder.finish()
            self._file.close()
            if self._tags:
                tagging.write_tags(self._temporary, self.format.name, self._tags)
        except (OSError, av.error.FFmpegError, soundfile.LibsndfileError) as error:
            self.discard()
            raise write_error(self.path, error) from error

    def publish(self) -> None:
        """Give the finished file its name.

        Raises:
            AudioError: Another file has it now, or it can't be given; nothing is left behind.
        """
        try:
            self._check_free()
            status = self._temporary.stat()
            if self.overwrite:
                self._temporary.replace(self.path)
            else:
                give_name(self._temporary, self.path)
            self._identity = status.st_dev, status.st_ino
        except FileExistsError as error:
            self.discard()
            raise self._taken() from error
        except OSError as error:
            self.discard()
            raise write_error(self.path, error) from error
        except AudioError:
            self.discard()
            raise

    def take_back(self) -> None:
        """Remove the published file, unless somebody else's has its name by now."""
        with suppress(OSError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) == self._identity:
                self.path.unlink()

    def discard(self) -> None:
        """Remove what was written so far. After `publish` nothing happens."""
        if not self._file.closed:
            self._encoder.abandon()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()

    def _check_free(self) -> None:
        if self.path.is_dir():
            raise AudioError(f"'{self.path}' is a folder; rename it, or choose another folder.")
        if self.path.exists() and not self.overwrite:
            raise self._taken()

    def _taken(self) -> AudioError:
        return AudioError(
            f"'{self.path}' exists already; ask for overwriting, or choose another folder."
        )


def write_error(path: Path, error: Exception) -> AudioError:
    """Return the error of a file that can't be written."""
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    too_long = getattr(error, "errno", None) == errno.ENAMETOOLONG
    advice = "Choose a shorter name" if too_long else "Free some space"
    return AudioError(f"'{path}' can't be written: {reason}. {advice}, or choose another folder.")
