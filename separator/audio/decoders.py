"""Two decoders with one interface, and which of them reads a file.

odd WAV .............................. libsndfile
Ogg Vorbis of one or two channels .... libsndfile, link by link
all else ............................. FFmpeg; libsndfile where FFmpeg can't open it
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import av.error
import numpy as np
import numpy.typing as npt
import soundfile

from separator.audio import headers, ogg
from separator.audio.ffmpeg import FFmpegDecoder
from separator.audio.info import AudioInfo
from separator.audio.sndfile import SndfileDecoder, VorbisDecoder
from separator.errors import AudioError

Block = npt.NDArray[np.float32]

_UNKNOWN = (av.error.FFmpegError, ValueError)


class Decoder(Protocol):
    """Decoder of one audio stream, from its start or from near a later position."""

    info: AudioInfo
    damaged: int  # parts that the codec refused so far
    limit: int | None  # number of samples that are music, where the file says so exactly
    notes: list[str]  # what the user should know of what was decoded so far

    def seek(self, sample: int) -> int:
        """Move to `sample` or a little before it, and return the position reached."""

    def __iter__(self) -> Iterator[Block]:
        """Yield arrays (channels, time) of any length."""

    def close(self) -> None:
        """Close the file."""


def open_decoder(path: Path, stream: int | None = None) -> Decoder:
    """Open the decoder that suits the file.

    Raises:
        AudioError: The file can't be read, isn't audio, or has no such stream.
    """
    try:
        decoder = _odd(path) if stream in (None, 0) else None
        return decoder or FFmpegDecoder(path, stream)
    except _UNKNOWN as error:
        if stream in (None, 0):
            with suppress(soundfile.LibsndfileError):
                return SndfileDecoder(path)
        raise AudioError(
            f"'{path}' can't be decoded: it is no audio or video file, or damaged at its start or "
            "index. Try to play it, or export it anew."
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise AudioError(f"'{path}' can't be read: {reason}.") from error


def _odd(path: Path) -> Decoder | None:
    """Open what libsndfile reads better."""
    with path.open("rb") as file:
        start = file.read(4)
    with suppress(soundfile.LibsndfileError):
        if start == b"OggS":
            links = ogg.links(path)
            if links and all(map(ogg.is_small_vorbis, links)):
                return VorbisDecoder(path, links)
        elif (wave := headers.read_wave(path)) and wave.is_odd:
            decoder = SndfileDecoder(path, wave)
            if decoder.samples > (wave.samples or decoder.samples):
                decoder.close()
                raise AudioError(
                    f"'{path}' contradicts itself: a sample has {wave.bits} bits, and all channels "
                    f"together {wave.frame_bytes} bytes. Export it anew."
                )
            return decoder
    return None
