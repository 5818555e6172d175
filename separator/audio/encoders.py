"""Encoders: float32 blocks in, bytes of an audio file out.

All of them write to an open binary file. Integers are rounded to the nearest, without dither, so
that a 16-bit file read and written is the same, and stems plus residual null to the rounding.
"""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from typing import BinaryIO, Protocol, cast

import av
import av.error
import numpy as np
import numpy.typing as npt
import soundfile

from separator.audio import ogg
from separator.audio.formats import Format
from separator.audio.layout import WAVE_ORDER, Layout, default_layout
from separator.audio.resample import Resampler

Block = npt.NDArray[np.float32]

_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


class EncoderSink:
    """File that takes a codec's bytes, and keeps the first error for the caller.

    An exception can't travel through a codec library: it would be printed, or lost.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write bytes, or count them as written after an error."""
        if self.error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Read bytes."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; a full disk may show here, as pending bytes are written first."""
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            self.error = self.error or error
            return 0

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def mute(self) -> None:
        """Ignore what the codec still writes."""
        self.error = self.error or OSError("abandoned")

    def check(self) -> None:
        """Raise the error that was kept."""
        if self.error is not None:
            raise self.error


class Encoder(Protocol):
    """Encoder of blocks into a file that the caller opened."""

    def write(self, block: Block) -> None:
        """Encode (channels, time)."""

    def finish(self) -> None:
        """Write what is left, and the header."""

    def abandon(self) -> None:
        """Let go of the file without writing to it."""


def open_encoder(
    file: BinaryIO,
    format: Format,
    sample_rate: int,
    channels: int,
    bit_depth: int | None,
    bitrate: int | None,
    layout: Layout | None,
) -> Encoder:
    """Open the encoder of a format; `check_output` has been passed."""
    kbps = bitrate or (format.bitrate or 0) * channels // 2
    if format.name == "ogg":
        return VorbisEncoder(file, sample_rate, channels, kbps)
    return FFmpegEncoder(file, format, sample_rate, channels, bit_depth, kbps, layout)


class FFmpegEncoder:
    """FFmpeg, which notes delay and padding of lossy codecs in the container."""

    def __init__(
        self,
        file: BinaryIO,
        format: Format,
        sample_rate: int,
        channels: int,
        bit_depth: int | None,
        kbps: int,
        layout: Layout | None,
    ):
        self._file, self._sink, self._format = file, EncoderSink(file), format
        codec, self._samples_as = format.codecs[bit_depth]
        self._rate = sample_rate
        if format.name == "opus" and sample_rate not in _OPUS_RATES:
            self._rate = 48000
        self._resampler = Resampler(sample_rate, self._rate, channels)
        self._order, name = _arrange(format, channels, layout)
        self._layout = av.AudioLayout(name)
        self._container = av.open(
            self._sink, "w", format=format.container, options=_muxer_options(format, self._rate)
        )
        self._stream = cast(
            av.AudioStream,
            self._container.add_stream(codec, rate=self._rate, layout=self._layout),
        )
        self._stream.options = _codec_options(format, channels, kbps)
        if not format.lossless:
            self._stream.bit_rate = kbps * 1000
        else:
            self._stream.format = av.AudioFormat(self._samples_as)
        self._level = 1 / _lame_level(kbps, sample_rate) if format.name == "mp3" else 1.0
        self._written = 0

    def write(self, block: Block) -> None:
        """Encode (channels, time)."""
        self._encode(self._resampler.process(block))

    def finish(self) -> None:
        """Write what is left, and the header."""
        self._encode(self._resampler.process(self._resampler.silence(0), last=True))
        if self._written:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        self._sink.check()
        if self._format.name == "mp3":
            state_mp3_padding(self._file, self._written)
        elif self._format.container == "ogg":
            ogg.settle_serial(self._file)

    def abandon(self) -> None:
        """Let go of the file without writing to it."""
        self._sink.mute()
        with suppress(av.error.FFmpegError):
            self._container.close()

    def _encode(self, block: Block) -> None:
        if not block.shape[1]:
            return
        samples = np.ascontiguousarray(self._converted(block)[self._order].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, self._samples_as, self._layout)
        frame.sample_rate, frame.pts = self._rate, self._written
        frame.time_base = Fraction(1, self._rate)
        self._container.mux(self._stream.encode(frame))
        self._written += block.shape[1]
        self._sink.check()

    def _converted(self, block: Block) -> npt.NDArray[np.generic]:
        if self._samples_as == "s16":
            return to_integers(block, 16).astype(np.int16)
        if self._samples_as == "s32":
            return to_integers(block, 24) << 8  # FFmpeg holds 24 bits in the upper part of 32
        return block if self._level == 1 else block * np.float32(self._level)


class VorbisEncoder:
    """Ogg Vorbis by libsndfile, as PyAV comes without libvorbis."""

    # Nominal kb/s of the qualities 0 to 10, two channels at 44.1 kHz (libvorbis' table).
    _KBPS = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 500)
    _SLICE = 4096  # libsndfile keeps a whole write on the stack; a long one would overflow it

    def __init__(self, file: BinaryIO, sample_rate: int, channels: int, kbps: int):
        self._file, self._sink = file, EncoderSink(file)
        quality = float(np.interp(kbps * 2 / channels, self._KBPS, np.linspace(0, 1, 11)))
        self._encoder = soundfile.SoundFile(
            self._sink, "w", sample_rate, channels, "VORBIS", format="OGG",
            compression_level=1 - quality,
        )  # fmt: skip

    def write(self, block: Block) -> None:
        """Encode (channels, time)."""
        for begin in range(0, block.shape[1], self._SLICE):
            self._encoder.write(block[:, begin : begin + self._SLICE].T)
            self._sink.check()

    def finish(self) -> None:
        """Write what is left."""
        self._encoder.close()
        self._sink.check()
        ogg.settle_serial(self._file)

    def abandon(self) -> None:
        """Let go of the file without writing to it."""
        self._sink.mute()
        self._encoder.close()


def to_integers(block: Block, bits: int) -> npt.NDArray[np.int32]:
    """Round to signed integers of `bits`, full scale being 2^(bits - 1), and clip what is beyond.

    >>> to_integers(np.array([[0.5, -1.0, 1.0]], np.float32), 16)
    array([[ 16384, -32768,  32767]], dtype=int32)
    """
    full_scale = 1 << (bits - 1)
    scaled: Block = np.rint(block * np.float32(full_scale))
    np.clip(scaled, -full_scale, full_scale - 1, out=scaled)
    integers: npt.NDArray[np.int32] = scaled.astype(np.int32)
    return integers


def state_mp3_padding(file: BinaryIO, samples: int) -> None:
    """Correct the padding in the LAME tag, so that exactly `samples` come back.

    FFmpeg states at most one frame of padding; when the decoder's delay pushes the music's end
    over a frame's edge there is more, and up to 47 samples of silence would stay at the end.

    Reference: http://gabriel.mp3-tech.org/mp3infotag.html
    """
    file.seek(0)
    head = file.read(4096)
    tag = max(head.find(b"Xing"), head.find(b"Info"))
    if tag < 0 or len(head) < tag + 144:
        return
    frames = int.from_bytes(head[tag + 8 : tag + 12], "big")
    frame_samples = (
        1152 if head[head.rfind(b"\xff", 0, tag) + 1] & 8 else 576
    )  # MPEG-1, or 2 and 2.5
    delay = head[tag + 141] << 4 | head[tag + 142] >> 4
    padding = frames * frame_samples - delay - samples
    if 0 <= padding < 4096:
        file.seek(tag + 141)
        file.write((delay << 12 | padding).to_bytes(3, "big"))


def _lame_level(kbps: int, sample_rate: int) -> float:
    """Return the factor by which LAME lowers the music at a bit rate, measured with LAME 3.100.

    Its presets do so against clipping in players; here, levels between stems come first.
    """
    levels = {160: 0.95, 192: 0.97, 224: 0.98, 256: 1.0}
    highest = 256 if sample_rate >= 32000 else 160  # MPEG-2 ends at 160 kb/s
    return levels[min(levels, key=lambda known: abs(known - min(kbps, highest)))]


def _arrange(format: Format, channels: int, layout: Layout | None) -> tuple[list[int], str]:
    """Return the channels in the order of files, and FFmpeg's name for where they stand.

    Few formats can say another order, and PyAV would free its table twice.
    """
    order = list(range(channels))
    if layout and len(layout) == len(set(layout) & set(WAVE_ORDER)) == channels:
        order = [layout.index(speaker) for speaker in WAVE_ORDER if speaker in layout]
        layout = tuple(layout[index] for index in order)
    else:
        layout = default_layout(channels)
    # Opus knows one layout for each number of channels, which differs from others at the most in
    # calling the surround speakers "back" or "side".
    if format.name == "opus":
        layout = default_layout(channels)
    return order, "+".join(layout) if layout else f"{channels} channels"


def _muxer_options(format: Format, rate: int) -> dict[str, str]:
    if format.name == "wav":
        return {"rf64": "auto"}
    if format.name == "m4a":
        # the edit list, which says how long the music is, counts in this unit
        return {"movie_timescale": str(rate)}
    return {}


def _codec_options(format: Format, channels: int, kbps: int) -> dict[str, object]:
    if format.name == "opus" and channels > 2:
        return {"mapping_family": "1"}
    if format.name == "mp3" and kbps >= 256:
        # LAME's noise shaping has nothing left to do at such rates and costs twice the time
        return {"compression_level": "7"}
    if format.name == "m4a":
        # the default one distorts the first frame (error 0.2 of full scale), at twice the cost
        return {"aac_coder": "fast"}
    return {}
