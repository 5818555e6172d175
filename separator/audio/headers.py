"""The few facts that codec libraries don't pass on, read from the files' headers."""

import struct
from pathlib import Path
from typing import BinaryIO

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF


def wav_samples(path: Path) -> int | None:
    """Return the number of samples that a WAV or RF64 header declares, if it does.

    Decoders trust the file's size instead, so a truncated file looks whole to them.
    """
    with path.open("rb") as file:
        magic, _, form = struct.unpack("<4sI4s", file.read(12).ljust(12, b"\0"))
        if magic not in (b"RIFF", b"RF64") or form != b"WAVE":
            return None
        frame_bytes, size64 = 0, 0
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                size = size64 or size
                known = frame_bytes and size not in (0, _UNKNOWN_SIZE)
                return size // frame_bytes if known else None
            body = file.read(min(size, 64))
            if name == b"ds64":
                size64 = struct.unpack_from("<8xQ", body)[0]
            if name == b"fmt ":
                tag, frame_bytes = struct.unpack_from("<H10xH", body)
                if tag == _EXTENSIBLE:
                    tag = struct.unpack_from("<24xH", body)[0]
                # in compressed formats a frame isn't a sample
                frame_bytes *= tag in (_PCM, _FLOAT)
            file.seek(size + size % 2 - len(body), 1)
    return None


def mp3_states_length(path: Path) -> bool:
    """Return whether the first frame is a Xing, Info or VBRI header, which counts the frames."""
    with path.open("rb") as file:
        _skip_id3(file)
        first = file.read(4096)
    return any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))


def _skip_id3(file: BinaryIO) -> None:
    """Move behind any ID3v2 tags at the start, which may hold a cover of megabytes."""
    while len(head := file.read(10)) == 10 and head[:3] == b"ID3":
        size = sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:]))
        file.seek(size, 1)
    file.seek(-len(head), 1)


def ogg_ended(path: Path) -> bool:
    """Return whether the last Ogg page is whole and marked as the end of its stream."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        # a page has at most 65,307 bytes
        file.seek(max(0, size - 2 * 65307))
        tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return False
    whole = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return bool(page[5] & 4) and len(page) >= whole


def is_small_vorbis(path: Path) -> bool:
    """Return whether the file is Ogg Vorbis with one or two channels."""
    with path.open("rb") as file:
        head = file.read(64)
    is_vorbis = head[:4] == b"OggS" and head[28:35] == b"\x01vorbis"
    return is_vorbis and len(head) > 39 and head[39] <= 2
