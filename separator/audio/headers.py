"""The few facts that codec libraries don't pass on, read from the files' headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from separator.audio.layout import WAVE_ORDER, Layout

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MS_ADPCM, _IMA_ADPCM = 2, 0x11
#: Bytes that programs state which write into a pipe, and can't know: the highest number of 31 or
#: 32 bits less a header, or rounded (SoX writes 0x7FFFF000, and 0x7F000000 into AIFF).
_STATED_BY_PIPES = (0x7F000000, 1 << 31, 1 << 32)
_ROUNDED_BY = 1 << 16
_FLAC_PADDING, _FLAC_PICTURE = 1, 6
_MOST_BLOCKS, _MOST_TAGS = 1000, 1 << 16  # blocks of flac, bytes of comments


def is_stated_by_a_pipe(size: int) -> bool:
    """Return whether a size stands for "unknown".

    >>> [is_stated_by_a_pipe(size) for size in (0, 0x7FFFF000, 0xFFFFFFFF - 44, 1_000_000)]
    [True, True, True, False]
    """
    return size == 0 or any(abs(size - top) <= _ROUNDED_BY for top in _STATED_BY_PIPES)


@dataclass(frozen=True)
class Wave:
    """Header of a WAV or RF64 file.

    Attributes:
        front: Bytes before it (an ID3 tag).
        big_endian: Whether it is RIFX.
        tag: Number of the codec.
        channels: Number of channels.
        frame_bytes: Bytes of one sample of all channels; in compressed formats, of a block.
        bits: Bits of a sample that count.
        mask: Speakers, a bit for each.
        frame_samples: Samples of a compressed block.
        data_bytes: Size that is declared for the samples; 0 where unknown.
        stated: Samples that a compressed file declares beside it (`fact`).
    """

    front: int
    big_endian: bool
    tag: int = 0
    channels: int = 0
    frame_bytes: int = 0
    bits: int = 0
    mask: int = 0
    frame_samples: int = 1
    data_bytes: int = 0
    stated: int | None = None

    @property
    def is_pcm(self) -> bool:
        """Whether a frame is a sample."""
        return self.tag in (_PCM, _FLOAT)

    @property
    def is_float(self) -> bool:
        """Whether samples are floating-point numbers."""
        return self.tag == _FLOAT

    @property
    def is_odd(self) -> bool:
        """Whether FFmpeg would read noise, or nothing: it takes the smallest container."""
        container = self.channels * -(-self.bits // 8)
        return self.front > 0 or self.big_endian or (self.is_pcm and self.frame_bytes != container)

    @property
    def samples(self) -> int | None:
        """Number of samples that is declared, if it is."""
        if not self.frame_bytes or not self.data_bytes:
            return None
        if self.is_pcm:
            return self.data_bytes // self.frame_bytes
        most = -(-self.data_bytes // self.frame_bytes) * self.frame_samples
        fits = most - self.frame_samples < (self.stated or 0) <= most
        return self.stated if fits and self.tag in (_MS_ADPCM, _IMA_ADPCM) else None

    @property
    def layout(self) -> Layout | None:
        """Where the speakers stand, if the file says so."""
        names = tuple(name for bit, name in enumerate(WAVE_ORDER) if self.mask >> bit & 1)
        return names if len(names) == self.channels else None


def read_wave(path: Path) -> Wave | None:
    """Return the header of a WAV file; `None` where it is another kind of file.

    Decoders trust the file's size more than the header, so a truncated file looks whole to them.
    """
    with path.open("rb") as file:
        front = skip_id3(file)
        magic, form = struct.unpack("<4s4x4s", file.read(12).ljust(12, b"\0"))
        if magic not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or form != b"WAVE":
            return None
        order = ">" if magic == b"RIFX" else "<"
        return Wave(front, magic == b"RIFX", **_chunks(file, order))


def _chunks(file: BinaryIO, order: str) -> dict[str, int]:
    """Return what the chunks up to the samples say."""
    facts: dict[str, int] = {}
    size64 = 0
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack(f"{order}4sI", head)
        if name == b"data":
            size = size64 if size64 and size == 0xFFFFFFFF else size
            facts["data_bytes"] = _known_bytes(file, size)
            return facts
        body = file.read(min(size, 64))
        padded = body.ljust(64, b"\0")
        if name == b"ds64":
            size64 = struct.unpack_from("<8xQ", padded)[0]
        elif name == b"fact":
            facts["stated"] = struct.unpack_from(f"{order}I", padded)[0]
        elif name == b"fmt ":
            facts |= _format(padded, order)
        file.seek(size + size % 2 - len(body), 1)
    return facts


def _known_bytes(file: BinaryIO, size: int) -> int:
    """Return the size of the samples, or 0 where the header can't have known it."""
    here = file.tell()
    rest = file.seek(0, 2) - here
    unknown = size > rest and (is_stated_by_a_pipe(size) or size >= 1 << 62)
    return 0 if unknown else size


def _format(body: bytes, order: str) -> dict[str, int]:
    tag, channels, frame_bytes, bits = struct.unpack_from(f"{order}HH8xHH", body)
    facts = {"tag": tag, "channels": channels, "frame_bytes": frame_bytes, "bits": bits}
    if tag == _EXTENSIBLE:
        valid, mask, tag = struct.unpack_from(f"{order}18xHIH", body)
        facts |= {"tag": tag, "mask": mask, "bits": valid or bits}
    elif tag in (_MS_ADPCM, _IMA_ADPCM):
        facts["frame_samples"] = struct.unpack_from(f"{order}18xH", body)[0]
    return facts


def mp3_samples(path: Path) -> int | None:
    """Return the number of samples that the first frame of an mp3 counts, if it does.

    FFmpeg takes its own estimate where the size of the file isn't the one that is stated there.

    Reference: http://gabriel.mp3-tech.org/mp3infotag.html
    """
    with path.open("rb") as file:
        skip_id3(file)
        first = file.read(4096)
    sync = first.find(b"\xff")
    if len(first) < sync + 2:
        return None
    frame_samples = 1152 if first[sync + 1] & 8 else 576  # MPEG-1, or 2 and 2.5
    if (tag := max(first.find(b"Xing"), first.find(b"Info"))) >= 0:
        lame = first[tag + 120 : tag + 144].ljust(24, b"\0")
        has_count = len(first) > tag + 7 and first[tag + 7] & 1
        frames = int.from_bytes(first[tag + 8 : tag + 12], "big") if has_count else 0
        cut = int.from_bytes(lame[21:24], "big") if lame[:1].strip(b"\0") else 0
        samples = frames * frame_samples - (cut >> 12) - (cut & 0xFFF)
    elif (tag := first.find(b"VBRI")) >= 0:
        samples = int.from_bytes(first[tag + 14 : tag + 18], "big") * frame_samples
    else:
        return None
    return samples if samples > 0 else None


def hidden_tags(path: Path) -> tuple[int, dict[int, int]]:
    """Return where a file begins behind its ID3 tags, and what else hides tags from FFmpeg.

    FFmpeg reads tags in a time that grows with the square of their number, and expands compressed
    ones. The pictures and long comments of flac become padding; the bytes to change are returned.
    """
    with path.open("rb") as file:
        begin = skip_id3(file)
        patches: dict[int, int] = {}
        if file.read(4) != b"fLaC":
            return begin, patches
        for _ in range(_MOST_BLOCKS):
            place = file.tell()
            head = file.read(4)
            if len(head) < 4:
                break
            size = int.from_bytes(head[1:], "big")
            # a few comments stay: FFmpeg learns from them where the speakers stand
            if head[0] & 0x7F == _FLAC_PICTURE or size > _MOST_TAGS:
                patches[place] = head[0] & 0x80 | _FLAC_PADDING
            file.seek(size, 1)
            if head[0] & 0x80:
                break
        return begin, patches


def skip_id3(file: BinaryIO) -> int:
    """Move behind any ID3v2 tags at the start, which may hold a cover of megabytes."""
    while len(head := file.read(10)) == 10 and head[:3] == b"ID3":
        size = sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:]))
        file.seek(size + 10 * (head[5] >> 4 & 1), 1)  # with a footer, ten more
    return file.seek(-len(head), 1)
