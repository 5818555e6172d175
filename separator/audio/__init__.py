"""Decoding, encoding and resampling of audio, as streams of float32 blocks (channels, time)."""

from separator.audio.info import AudioInfo, Truncation
from separator.audio.layout import Layout, channel_pairs, default_layout
from separator.audio.reader import AudioReader, open_audio, probe
from separator.audio.resample import Resampler, resampled, resampled_length

__all__ = [
    "AudioInfo",
    "AudioReader",
    "Layout",
    "Resampler",
    "Truncation",
    "channel_pairs",
    "default_layout",
    "open_audio",
    "probe",
    "resampled",
    "resampled_length",
]
