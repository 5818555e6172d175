"""Pages of Ogg files: which streams follow each other, whether the end is there, serial numbers.

    page = "OggS" version flags granule serial sequence checksum table-of-sizes body

A file may be a chain of links, each a complete stream (recordings of internet radio are, and what
`cat a.ogg b.ogg` makes).

Reference: RFC 3533.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

_HEAD = struct.Struct("<4sBBqIIIB")
_LARGEST = _HEAD.size + 255 + 255 * 255  # bytes of a page
_FIRST, _LAST = 2, 4  # flags: a stream begins, a stream ends
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggPage(NamedTuple):
    """Place, flags, granule and serial number of one page, and the start of its body."""

    begin: int
    end: int
    flags: int
    granule: int
    serial: int
    head: bytes


@dataclass(frozen=True)
class Link:
    """Stretch of a file that is one stream; `head` begins its first packet."""

    begin: int
    end: int
    serial: int
    head: bytes


def pages(file: BinaryIO) -> Iterator[OggPage]:
    """Yield the pages from the start of the file to the first that is damaged or cut off."""
    size = file.seek(0, 2)
    begin = file.seek(0)
    while len(data := file.read(_HEAD.size)) == _HEAD.size:
        magic, _, flags, granule, serial, _, _, count = _HEAD.unpack(data)
        table = file.read(count)
        end = begin + _HEAD.size + count + sum(table)
        if magic != b"OggS" or end > size:
            return
        yield OggPage(begin, end, flags, granule, serial, file.read(min(64, sum(table))))
        begin = file.seek(end)


def links(path: Path) -> list[Link]:
    """Return the streams that follow each other; none where streams lie side by side.

    The last link lasts to the end of the file, whatever is damaged there.
    """
    found: list[Link] = []
    with path.open("rb") as file:
        for page in pages(file):
            if page.flags & _FIRST:
                found.append(Link(page.begin, 0, page.serial, page.head))
            elif not found or page.serial != found[-1].serial:
                return []
        size = file.seek(0, 2)
    ends = [link.begin for link in found[1:]] + [size]
    return [
        Link(link.begin, end, link.serial, link.head) for link, end in zip(found, ends, strict=True)
    ]


def is_small_vorbis(link: Link) -> bool:
    """Return whether a link is Vorbis with one or two channels."""
    return link.head[:7] == b"\x01vorbis" and len(link.head) > 11 and link.head[11] <= 2


def has_ended(path: Path) -> bool:
    """Return whether the last page is whole and marked as the end of its stream."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - 2 * _LARGEST))
        tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if page[:4] != b"OggS" or len(page) < _HEAD.size + page[26]:
        return False
    whole = _HEAD.size + page[26] + sum(page[27 : 27 + page[26]])
    return bool(page[5] & _LAST) and len(page) >= whole


def settle_serial(file: BinaryIO) -> None:
    """Replace the random serial number of a whole file of one stream by one that follows from it.

    So the same music gives the same bytes, and other music another number, as chains need.
    """
    places = list(pages(file))
    number = 0
    for page in places:
        file.seek(page.begin + _HEAD.size)
        number = zlib.crc32(file.read(page.end - page.begin - _HEAD.size), number)
    for page in places:
        file.seek(page.begin)
        data = bytearray(file.read(page.end - page.begin))
        data[14:18] = number.to_bytes(4, "little")
        data[22:26] = bytes(4)
        data[22:26] = checksum(data).to_bytes(4, "little")
        file.seek(page.begin)
        file.write(data)


def checksum(page: bytes | bytearray) -> int:
    """Return the checksum of a page whose own field is zero: CRC-32, highest bit first, from 0.

    zlib counts from the lowest bit and from all ones, so bits are mirrored before and after.

    >>> hex(checksum(b"1"))
    '0xd0f37027'
    """
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
