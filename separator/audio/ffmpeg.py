"""Decoding by FFmpeg (through PyAV): nearly every audio or video format.

FFmpeg reads all that libsndfile reads and more, at the same speed or faster (flac 1.2 times, ogg
1.7 times), keeps the order of the channels, and removes the delay and padding of mp3, AAC and Opus.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Discard

from separator.audio import headers, ogg
from separator.audio.conform import Conformer
from separator.audio.info import AudioInfo
from separator.audio.layout import Layout
from separator.audio.sources import Source
from separator.errors import AudioError

Block = npt.NDArray[np.float32]

# Files must not make FFmpeg open other files or addresses (playlists can).
_OPTIONS = {"protocol_whitelist": "none"}
# Containers whose headers count the samples, where others estimate them from bit rates.
_COUNTING = {"aiff", "ape", "au", "caf", "flac", "mov", "mp3", "ogg", "tta", "w64", "wav", "wv"}
# Where a position that FFmpeg seeks is proven to be the one that decoding from the start reaches.
_EXACT_CODECS = {
    "aiff": ("pcm_",),
    "au": ("pcm_",),
    "caf": ("pcm_",),
    "flac": ("flac",),
    "mov": ("pcm_", "aac", "alac"),
    "ogg": ("opus", "libopus"),
    "w64": ("pcm_",),
    "wav": ("pcm_",),
}
_WARM_UP = 0.5  # seconds decoded before a position, until lossy codecs have settled
_AAC_FRAMES = (1024, 2048)


class FFmpegDecoder:
    """FFmpeg: nearly every audio or video format.

    Args:
        path: The file.
        stream: Audio stream, counted from 0; the first that can be decoded where absent.
    """

    def __init__(self, path: Path, stream: int | None = None):
        self.damaged = 0
        self._path, self._index = path, stream
        self._wave = headers.read_wave(path)
        self._open()
        self._rate, self._channels = self._form()
        self.info = self._describe()
        self.limit = self._stated_length()
        self._conformer = Conformer(str(path), self.info.sample_rate, self.info.channels)
        self.notes = self._conformer.notes

    def _open(self) -> None:
        begin, patches = headers.hidden_tags(self._path)
        self._file = Source(self._path, begin, None, patches)
        try:
            self._container: InputContainer = av.open(
                self._file, "r", options=_OPTIONS, metadata_errors="replace"
            )
            self._stream = self._select()
        except BaseException:
            self.close()
            self._file.check()
            raise
        self._decoded = self._frames()

    def _select(self) -> av.AudioStream:
        streams = self._container.streams.audio
        if not streams:
            raise AudioError(f"'{self._path}' has no audio stream.")
        if self._index is not None and not 0 <= self._index < len(streams):
            raise AudioError(
                f"'{self._path}' has no audio stream {self._index}; it has {len(streams)}, "
                "counted from 0."
            )
        wanted = streams if self._index is None else streams[self._index : self._index + 1]
        for selected in wanted:
            # asked for once: PyAV would free the table of an order of its own twice
            if (layout := _known_layout(selected)) is not None:
                break
        else:
            raise AudioError(f"'{self._path}' has an audio stream of an unknown kind.")
        for other in self._container.streams:
            if other is not selected:
                other.discard = Discard.all
        if (self._format, selected.codec_context.name) == ("caf", "alac"):
            # the last frame is short, and FFmpeg would cut off its padding all the same
            selected.codec_context.options = {"flags2": "+skip_manual"}
        self._speakers = _layout(layout)
        if " channels (" in layout.name:
            selected.codec_context.layout = f"{layout.nb_channels} channels"
        return selected

    def _form(self) -> tuple[int, int]:
        """Return rate and channels of the first frame: FFmpeg may have looked at later ones."""
        first = next(self._decoded, None)
        if first is None:
            context = self._stream.codec_context
            return context.sample_rate, context.layout.nb_channels
        self._decoded = _chain(first, self._decoded)
        return first.sample_rate, first.layout.nb_channels

    def _describe(self) -> AudioInfo:
        context, samples, rate = self._stream.codec_context, self._declared(), self._rate
        duration = samples / rate if samples is not None else self._rough_duration()
        return AudioInfo(
            path=self._path,
            sample_rate=rate,
            channels=self._channels,
            samples=samples,
            duration=duration,
            codec=context.name,
            container=self._format,
            bit_depth=_bit_depth(context),
            is_float=context.name.startswith(("pcm_f32", "pcm_f64")),
            layout=self._speakers,
            streams=len(self._container.streams.audio),
        )

    @property
    def _format(self) -> str:
        return str(self._container.format.name).split(",")[0]

    @property
    def _exact(self) -> bool:
        """Whether the container's clock can address every sample."""
        base = self._stream.time_base
        return base is not None and (1 / base) % self._rate == 0

    @property
    def _can_seek(self) -> bool:
        codecs = _EXACT_CODECS.get(self._format, ())
        return self._exact and self._stream.codec_context.name.startswith(codecs)

    def _to_samples(self, time: int) -> int:
        base = self._stream.time_base or Fraction(0)
        return round(time * base * self._rate)

    def _declared(self) -> int | None:
        """Return the number of samples where the file counts them; never FFmpeg's estimates."""
        if self._format not in _COUNTING or not self._exact or not self._stream.duration:
            return None
        codec = self._stream.codec_context.name
        is_pcm = codec.startswith("pcm_")
        if self._format == "wav":
            return self._wave.samples if self._wave else None
        if self._format == "ogg" and not ogg.has_ended(self._path):
            return None
        if self._format == "mp3":
            return headers.mp3_samples(self._path)
        if self._format in ("aiff", "caf") and not is_pcm:
            return None
        if (length := self._stated_length()) is not None:
            return length
        stated = self._to_samples(self._stream.duration) - self._pre_skip()
        # FFmpeg corrects the duration of a truncated caf or aiff, but not its count of samples
        return max(0, stated, self._stream.frames if is_pcm else 0) or None

    def _pre_skip(self) -> int:
        """Return the samples before the music that Ogg Opus counts in its duration (RFC 7845)."""
        context = self._stream.codec_context
        if self._format != "ogg" or context.name not in ("opus", "libopus"):
            return 0
        return int.from_bytes((context.extradata or b"")[10:12], "little")

    def _stated_length(self) -> int | None:
        """Return the length of the music where it ends before the last frame does.

        In MP4, Apple's gapless note (delay, padding and samples, in hexadecimal) is true if it adds
        up to all frames; programs copy it to files that it doesn't fit. In WAV, ADPCM has blocks.
        """
        if wave := self._wave:
            return None if wave.is_pcm else wave.samples
        fields = self._container.metadata.get("iTunSMPB", "").split()[1:4]
        try:
            delay, padding, samples = (int(field, 16) for field in fields)
        except ValueError:
            return None
        total = [self._stream.frames * size for size in _AAC_FRAMES]
        fits = self._format == "mov" and delay + padding + samples in total
        return samples or None if fits else None

    def _rough_duration(self) -> float | None:
        return self._container.duration / av.time_base if self._container.duration else None

    def seek(self, sample: int) -> int:
        """Move to `sample` or a little before it, and return the position reached."""
        rate = self.info.sample_rate
        target = sample - round(_WARM_UP * rate)
        if target > rate and self._can_seek and (first := next(self._decoded, None)) is not None:
            base = self._stream.time_base or Fraction(1)
            origin = first.pts or 0
            offset = int(origin + Fraction(target, rate) / base)
            with suppress(av.error.FFmpegError):
                self._container.seek(offset, stream=self._stream)
                self._decoded = self._frames()
                if (frame := next(self._decoded, None)) is not None:
                    reached = self._to_samples((frame.pts or 0) - origin)
                    if 0 < reached <= sample:
                        self._decoded = _chain(frame, self._decoded)
                        return reached
        self.close()
        self._open()
        return 0

    def __iter__(self) -> Iterator[Block]:
        """Yield arrays (channels, time) of any length."""
        previous = None
        for frame in self._decoded:
            if previous is not None:
                yield from self._conformed(previous, int(previous.samples))
            previous = frame
        if previous is not None:
            yield from self._conformed(previous, self._music(previous))
            yield from self._conformer.finish()

    def _conformed(self, frame: av.AudioFrame, samples: int) -> Iterator[Block]:
        block = _to_float(_safe(frame))[:, :samples]
        yield from self._conformer.process(block, frame.sample_rate)

    def _frames(self) -> Iterator[av.AudioFrame]:
        packets = self._container.demux(self._stream)
        # there, a frame still has the rate of the one before
        is_mp3 = self._stream.codec_context.name.startswith("mp3")
        while True:
            try:
                for frame in next(packets).decode():
                    if is_mp3:
                        frame.sample_rate = self._stream.codec_context.sample_rate
                    yield frame
            except StopIteration:
                break
            except av.error.FFmpegError:
                self.damaged += 1  # the next packet may be whole; a failed demuxer stops
        self._file.check()

    def _music(self, last: av.AudioFrame) -> int:
        """Return how much of the last frame is music: in MP4, the length of its packet says it."""
        if self._format == "mov" and self._exact and last.duration:
            return min(last.samples, self._to_samples(last.duration))
        return int(last.samples)

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_container"):
            self._container.close()
        self._file.close()


def _chain(frame: av.AudioFrame, frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    yield frame
    yield from frames


def _known_layout(stream: av.AudioStream) -> av.AudioLayout | None:
    """Return the channels of a stream; `None` where FFmpeg doesn't know it, its rate, or them."""
    context: av.AudioCodecContext | None = stream.codec_context
    if context is None or not context.sample_rate:
        return None
    return layout if (layout := context.layout).nb_channels else None


def _safe(frame: av.AudioFrame) -> av.AudioFrame:
    """Return a frame that PyAV can read.

    PyAV 18 reads past the end of a frame's table of planes when it has exactly eight, so planar
    frames of many channels are interleaved by FFmpeg first. It knows no integers of 64 bits.
    """
    wide = frame.format.name.startswith("s64")
    if frame.layout.nb_channels < 8 and not wide:
        return frame
    return av.AudioResampler(format="dbl" if wide else "flt").resample(frame)[0]


def _to_float(frame: av.AudioFrame) -> Block:
    """Return the frame's samples in [-1, 1) as (channels, time)."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    full_scale = np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    if samples.dtype.kind == "u":
        return (samples.astype(np.float32) - full_scale) / full_scale
    return samples.astype(np.float32) / full_scale


def _layout(layout: av.AudioLayout) -> Layout | None:
    names = tuple(channel.name for channel in layout.channels)
    return None if not names or "NONE" in names or len(set(names)) < len(names) else names


def _bit_depth(context: av.AudioCodecContext) -> int | None:
    name, data = context.name, context.extradata or b""
    if name == "flac" and len(data) >= 14:
        bits = ((data[12] & 1) << 4 | data[13] >> 4) + 1  # STREAMINFO
    elif name == "alac" and len(data) >= 18:
        bits = data[17]
    elif context.format is None:
        return None  # nothing of a damaged file could be decoded
    elif name.startswith(("pcm_", "wavpack", "tta", "ape", "mlp", "truehd")):
        bits = 8 * context.format.bytes
        if name.startswith(("pcm_s24", "pcm_u24")):
            bits = 24
    else:
        return None
    return 16 if bits <= 16 else 24 if bits <= 24 else 32
