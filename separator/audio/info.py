"""What a file says about itself, and how much of it is really there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from separator.audio.layout import Layout

#: Hz. Below, no music is left, and a file of kilobytes would last for hours.
SAMPLE_RATES = range(1_000, 10_000_001)


@dataclass(frozen=True)
class AudioInfo:
    """One audio stream of a file, as its headers describe it.

    `samples` is `None` where the container doesn't count them (mp3 without a Xing header, webm,
    wma, raw AAC, WAV from a pipe); `duration` (seconds) may still be known roughly.
    `bit_depth` is 16, 24 or 32 for lossless sources (the smallest that holds them), else `None`.
    """

    path: Path
    sample_rate: int
    channels: int
    samples: int | None
    duration: float | None
    codec: str
    container: str
    bit_depth: int | None
    is_float: bool
    layout: Layout | None
    streams: int

    @property
    def tolerance(self) -> int:
        """Samples by which encoders of lossy formats disagree about the end: a frame or two."""
        return 0 if self.bit_depth else round(0.1 * self.sample_rate)


@dataclass(frozen=True)
class Truncation:
    """How a file falls short of its own header; `expected` is `None` where it doesn't say."""

    expected: int | None
    decoded: int
    message: str


def truncation(
    info: AudioInfo, decoded: int, *, damaged: int = 0, ended: bool = True
) -> Truncation | None:
    """Compare the samples decoded with those declared; what is estimated proves nothing.

    Args:
        info: What the header says.
        decoded: Samples from the start of the file to the last one that could be decoded.
        damaged: Number of parts that the codec refused.
        ended: Whether the container's end mark was found (where there is one).
    """
    seconds = decoded / info.sample_rate
    if info.samples is not None and decoded >= info.samples - info.tolerance:
        return None
    if info.samples is not None:
        whole = info.samples / info.sample_rate
        places = 1 if whole - seconds > 0.1 else 4
        message = f"only {seconds:.{places}f} s of {whole:.{places}f} s can be decoded"
        return Truncation(info.samples, decoded, message)
    if not ended:
        message = f"is cut off after {seconds:.1f} s; it doesn't say how much is missing"
    elif damaged:
        message = f"has damaged parts that were skipped ({damaged}); {seconds:.1f} s remain"
    else:
        return None
    return Truncation(None, decoded, message)
