"""Decoding, encoding and resampling of audio, as streams of float32 blocks (channels, time)."""

from separator.audio.formats import (
    AUDIO_EXTENSIONS,
    FORMATS,
    check_output,
    is_audio_path,
    kept_bit_depth,
    output_format,
)
from separator.audio.info import AudioInfo, Truncation
from separator.audio.layout import Layout, channel_pairs, default_layout
from separator.audio.reader import AudioReader, open_audio, probe
from separator.audio.resample import Resampler, resampled, resampled_length
from separator.audio.stems import StemWriter
from separator.audio.tags import Cover, Tags, read_tags
from separator.audio.writer import AudioWriter

__all__ = [
    "AUDIO_EXTENSIONS",
    "FORMATS",
    "AudioInfo",
    "AudioReader",
    "AudioWriter",
    "Cover",
    "Layout",
    "Resampler",
    "StemWriter",
    "Tags",
    "Truncation",
    "channel_pairs",
    "check_output",
    "default_layout",
    "is_audio_path",
    "kept_bit_depth",
    "open_audio",
    "output_format",
    "probe",
    "read_tags",
    "resampled",
    "resampled_length",
]
