"""What can be written, and in which rates, channels and bit depths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from separator.audio.info import AudioInfo
from separator.errors import ConfigError
from separator.words import nearest

Codecs = dict[int | None, tuple[str, str]]

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AAC_RATES = (7350, *_MP3_RATES, 64000, 88200, 96000)


@dataclass(frozen=True)
class Format:
    """One kind of output file.

    `codecs` maps a bit depth (`None` for lossy formats) to FFmpeg's names of the encoder and of
    the samples it takes. `bitrate` is the default in kb/s for two channels.
    """

    name: str
    container: str
    codecs: Codecs
    channels: int
    sample_rates: tuple[int, ...] | range
    bitrate: int | None = None

    @property
    def lossless(self) -> bool:
        """Whether what is read back equals what was written, to the bit depth."""
        return None not in self.codecs


_LOSSLESS: Codecs = {16: ("flac", "s16"), 24: ("flac", "s32")}
_WAV: Codecs = {16: ("pcm_s16le", "s16"), 24: ("pcm_s24le", "s32"), 32: ("pcm_f32le", "flt")}

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("wav", "wav", _WAV, 64, range(1, 1_000_000)),
        Format("flac", "flac", _LOSSLESS, 8, range(1, 655_351)),
        Format("mp3", "mp3", {None: ("libmp3lame", "flt")}, 2, _MP3_RATES, 320),
        Format("ogg", "ogg", {None: ("vorbis", "flt")}, 2, range(8000, 192_001), 192),
        Format("opus", "ogg", {None: ("libopus", "flt")}, 8, range(8000, 48_001), 160),
        Format("m4a", "ipod", {None: ("aac", "flt")}, 8, _AAC_RATES, 256),
    )
}

#: In bits, of any lossless format.
BIT_DEPTHS = tuple(sorted({bits for format in FORMATS.values() for bits in format.codecs if bits}))

_READABLE = """
    wav wave rf64 w64 bwf flac mp1 mp2 mp3 mpa ogg oga ogx opus spx m4a m4b m4p m4r mp4 aac alac
    adts aif aiff aifc caf au snd wma asf wmv webm weba mka mkv mov qt avi m4v f4v f4a flv mpg mpeg
    vob m2ts mts ts m2t 3gp 3g2 3ga amr awb ac3 ec3 eac3 dts dtshd thd truehd mlp ape wv tta tak
    mpc mp+ ofr shn dsf dff oma aa3 at3 ra rm rmvb ogv ogm voc gsm g722 sln paf sf ircam nist sph
    avr dv nut mxf gxf wtv
"""
# What lies beside music and holds none.
_OTHERS = """
    jpg jpeg png gif webp bmp tif tiff svg pdf txt md rtf doc docx html nfo log cue m3u m3u8 pls lrc
    srt vtt ass json yaml yml xml csv ini db sfv md5 url mid midi
"""
_BESIDE = frozenset(f".{name}" for name in _OTHERS.split())
AUDIO_EXTENSIONS = frozenset(f".{name}" for name in _READABLE.split())


def is_audio_path(path: Path) -> bool:
    """Return whether the name looks like an audio or video file, for searching folders.

    >>> is_audio_path(Path("a song.MP3")), is_audio_path(Path("cover.jpg"))
    (True, False)
    """
    return path.suffix.lower() in AUDIO_EXTENSIONS and not path.name.startswith(".")


def is_beside_audio(path: Path) -> bool:
    """Return whether a file is of a kind that lies beside music: pictures, texts, lists, hidden.

    >>> is_beside_audio(Path("cover.jpg")), is_beside_audio(Path("take.xyz"))
    (True, False)
    """
    return path.suffix.lower() in _BESIDE or path.name.startswith(".")


def output_format(name: str) -> Format:
    """Return the format of a name or an extension such as `flac` or `.flac`.

    Raises:
        ConfigError: There is no such format.
    """
    key = name.lower().removeprefix(".")
    if key not in FORMATS:
        raise ConfigError(
            f"Unknown output format '{name}'; allowed: {', '.join(FORMATS)}.{nearest(key, FORMATS)}"
        )
    return FORMATS[key]


def kept_bit_depth(format: Format, source: AudioInfo | None) -> int | None:
    """Return the bit depth of the source where the format has it, else the nearest it has.

    Lossy sources become 16-bit. `None` stands for a lossy format.
    """
    if not format.lossless:
        return None
    depth = (source.bit_depth if source else None) or 16
    return min(depth, max(bits for bits in format.codecs if bits))


def check_output(
    format: Format,
    sample_rate: int,
    channels: int,
    bit_depth: int | None = None,
    bitrate: int | None = None,
) -> None:
    """Check that a format can hold such audio.

    Raises:
        ConfigError: It can't; the message says what it can.
    """
    name = format.name
    if bit_depth not in format.codecs:
        allowed = ", ".join(str(bits) for bits in format.codecs if bits) or "none, it is lossy"
        raise ConfigError(f"{name} has no bit depth {bit_depth}; allowed: {allowed}.")
    if not 1 <= channels <= format.channels:
        raise ConfigError(
            f"{name} can't hold {channels} channels; allowed: 1 to {format.channels}. "
            "Choose wav or flac."
        )
    if sample_rate not in format.sample_rates:
        rates = format.sample_rates
        allowed = (
            f"{rates.start} to {rates.stop - 1}"
            if isinstance(rates, range)
            else ", ".join(map(str, rates))
        )
        raise ConfigError(
            f"{name} can't hold {sample_rate} Hz; allowed: {allowed}. Choose wav or flac."
        )
    if bitrate is not None and (format.lossless or not 8 <= bitrate <= 512):
        allowed = "none, it is lossless" if format.lossless else "8 to 512 kb/s"
        raise ConfigError(f"{name} has no bit rate {bitrate} kb/s; allowed: {allowed}.")
