"""Decoding by libsndfile: Ogg Vorbis of one or two channels, and oddities of WAV.

FFmpeg 8 gets the end of Vorbis files wrong that are shorter than a few pages, and takes WAV samples
for smaller than their containers are. Where both read a file, this is the second opinion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from separator.audio import ogg
from separator.audio.conform import Conformer
from separator.audio.headers import Wave
from separator.audio.info import AudioInfo
from separator.audio.sources import Source

Block = npt.NDArray[np.float32]

_READ = 1 << 15  # samples at once


class SndfileDecoder:
    """Decoder of any file that libsndfile reads.

    Args:
        path: The file.
        wave: The header of a WAV file.
    """

    def __init__(self, path: Path, wave: Wave | None = None):
        self.damaged = 0
        self.limit: int | None = None
        self.notes: list[str] = []
        # libsndfile's own skipping of ID3 tags would lose as many bytes at the end
        self._source = Source(path, wave.front, path.stat().st_size) if wave else Source(path)
        try:
            self._file = soundfile.SoundFile(self._source)
        except soundfile.LibsndfileError:
            self._source.close()
            raise
        is_pcm = self._file.subtype.startswith("PCM")
        is_float = self._file.subtype in ("FLOAT", "DOUBLE")
        bits = wave.bits if wave else int(re.sub(r"\D", "", self._file.subtype) or 32)
        depth = 16 if bits <= 16 else 24 if bits <= 24 else 32
        known = wave.samples if wave else self._file.frames
        self.info = AudioInfo(
            path=path,
            sample_rate=self._file.samplerate,
            channels=self._file.channels,
            samples=known,
            duration=self._file.frames / self._file.samplerate,
            codec=self._file.subtype.lower(),
            container="wav" if wave else self._file.format.lower(),
            bit_depth=depth if is_pcm or is_float else None,
            is_float=is_float,
            layout=wave.layout if wave else None,
            streams=1,
        )

    @property
    def samples(self) -> int:
        """Number of samples that libsndfile finds."""
        return int(self._file.frames)

    def seek(self, sample: int) -> int:
        """Move to `sample` or a little before it, and return the position reached."""
        if self.info.bit_depth is None:
            return 0
        reached: int = self._file.seek(min(sample, self._file.frames))
        return reached

    def __iter__(self) -> Iterator[Block]:
        """Yield arrays (channels, time) of any length."""
        yield from _blocks(self._file, self)
        self._source.check()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._source.close()


class VorbisDecoder:
    """Ogg Vorbis, link by link: libsndfile stops at the end of the first."""

    def __init__(self, path: Path, links: list[ogg.Link]):
        self.damaged = 0
        self.limit: int | None = None
        self._path, self._links = path, links
        with Source(path, links[0].begin, links[0].end) as source:
            first = soundfile.SoundFile(source)
            rate, channels, samples = first.samplerate, first.channels, first.frames
        self._conformer = Conformer(str(path), rate, channels)
        self.notes = self._conformer.notes
        known = len(links) == 1 and ogg.has_ended(path)
        self.info = AudioInfo(
            path=path,
            sample_rate=rate,
            channels=channels,
            samples=samples if known else None,
            duration=samples / rate if len(links) == 1 else None,
            codec="vorbis",
            container="ogg",
            bit_depth=None,
            is_float=False,
            layout=None,
            streams=1,
        )

    def seek(self, sample: int) -> int:
        """Stay at the start: libsndfile 1.2 misses its aim when it seeks near the end."""
        return 0

    def __iter__(self) -> Iterator[Block]:
        """Yield arrays (channels, time) of any length."""
        for link in self._links:
            with Source(self._path, link.begin, link.end) as source:
                try:
                    with soundfile.SoundFile(source) as file:
                        for block in _blocks(file, self):
                            yield from self._conformer.process(block, file.samplerate)
                except soundfile.LibsndfileError:
                    self.damaged += 1
                source.check()
        yield from self._conformer.finish()

    def close(self) -> None:
        """Close the file; each link's is closed when it has been read."""


def _blocks(file: soundfile.SoundFile, decoder: SndfileDecoder | VorbisDecoder) -> Iterator[Block]:
    """Yield the samples that are left, up to the first damage."""
    while True:
        try:
            block = file.read(_READ, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            decoder.damaged += 1
            return
        if not len(block):
            return
        yield block.T
