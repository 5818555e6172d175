"""Read TensorFlow's checkpoints ("tensor bundles") without TensorFlow.

    NAME.index                  a sorted table: name -> type, shape, shard, offset, size
    NAME.data-00000-of-00001    the numbers

The table has blocks of entries, whose keys leave out what they share with the key before; a block
of handles (offset, size) of those blocks; and at the end of the file, the handle of that one.
Numbers are stored as varints, values as protocol buffers. Every offset and size is held against the
file.

Reference: github.com/google/leveldb, doc/table_format.md, 2011; github.com/tensorflow/tensorflow,
tensorflow/core/protobuf/tensor_bundle.proto, 2016.
"""

from __future__ import annotations

import math
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from separator.checkpoints.states import guarded

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48  # bytes: two handles, filled up, and the magic ones
_TRAILER = 5  # bytes behind a block: how it is compressed, and a checksum
_LARGEST_INDEX = 1 << 20  # bytes
#: How many times larger than their archive weights may be; they hardly become smaller in it.
_MOST_GROWTH = 4
#: Types of numbers by TensorFlow's enumeration.
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}

Read = Callable[[int, int], bytes]


class BundleEntry(NamedTuple):
    """Where a tensor lies in the data; offset and size in bytes."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int
    size: int


def read_bundle(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a bundle.

    Args:
        path: its `.index`, beside the data, or a `.tar.gz` that holds both.

    Raises:
        ModelError: A file can't be read, is damaged, cut short, or has a form that isn't known.
    """
    with guarded(path):
        if path.suffix == ".index":
            return _read_files(path)
        with tarfile.open(path, "r:gz") as archive:
            return _read_archive(archive, most=_MOST_GROWTH * path.stat().st_size)


def _read_files(path: Path) -> dict[str, Tensor]:
    if path.stat().st_size > _LARGEST_INDEX:
        raise ValueError(f"an index of more than {_LARGEST_INDEX} bytes")
    entries = read_index(path.read_bytes())
    data = path.with_suffix(".data-00000-of-00001")
    size = data.stat().st_size

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    with data.open("rb") as file:
        return _tensors(entries, size, read)


def _read_archive(archive: tarfile.TarFile, most: int) -> dict[str, Tensor]:
    """Read a bundle that lies in an archive, of `most` bytes at most; nothing goes to the disk."""
    members = {}
    for member in archive:
        if member.isfile() and not member.name.split("/")[-1].startswith("."):
            members[member.name] = member
    names = [name for name in members if name.endswith(".index")]
    if len(names) != 1:
        raise ValueError(f"{len(names)} files in it end in .index, expected one")
    name = names[0].removesuffix(".index") + ".data-00000-of-00001"
    if name not in members:
        raise ValueError(f"'{name}' is missing")
    index, data = members[names[0]], members[name]
    if index.size > _LARGEST_INDEX:
        raise ValueError(f"an index of more than {_LARGEST_INDEX} bytes")
    if data.size > most:
        raise ValueError(f"data of {data.size} bytes, which no weights grow to from so few")
    file = archive.extractfile(index)
    assert file is not None  # both are plain files
    entries = read_index(file.read())
    file = archive.extractfile(data)
    assert file is not None

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    return _tensors(entries, data.size, read)


def _tensors(entries: dict[str, BundleEntry], size: int, read: Read) -> dict[str, Tensor]:
    """Read the tensors in the order in which they lie, from data of `size` bytes."""
    found = {}
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
        if entry.offset < end:
            raise ValueError(f"'{name}' overlaps another tensor")
        end = entry.offset + entry.size
        if end > size:
            raise ValueError(f"'{name}' ends at byte {end}, the data have {size}")
        content = read(entry.offset, entry.size)
        numbers = np.frombuffer(bytearray(content), entry.dtype)
        found[name] = torch.from_numpy(numbers.reshape(entry.shape))
    return found


def read_index(data: bytes) -> dict[str, BundleEntry]:
    """Return the entries of an index.

    Raises:
        ValueError, IndexError, struct.error: It is damaged, or has a form that isn't known.
    """
    if len(data) < _FOOTER or not data.endswith(_MAGIC):
        raise ValueError("its index has no valid end")
    footer = _Varints(data[-_FOOTER:])
    footer.read(), footer.read()  # of a block that is always empty
    entries = {}
    for _, handle in _block(data, footer.read(), footer.read()):
        numbers = _Varints(handle)
        for key, value in _block(data, numbers.read(), numbers.read()):
            if key:
                entries[key.decode("utf-8")] = _entry(value)
            else:
                _check_header(value)
    return entries


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block."""
    if offset + size + _TRAILER > len(data) - _FOOTER:
        raise ValueError("a block of its index lies beyond the end")
    if data[offset + size]:
        raise ValueError("its index is compressed")
    block = data[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    numbers = _Varints(block[: len(block) - 4 * (restarts + 1)])
    key = b""
    while numbers.left:
        shared, own, length = numbers.read(), numbers.read(), numbers.read()
        key = key[:shared] + numbers.take(own)
        yield key, numbers.take(length)


def _entry(value: bytes) -> BundleEntry:
    """Read a `BundleEntryProto`."""
    fields = dict(_fields(value))
    kind = fields.get(1, 0)
    if kind not in _TYPES:
        raise ValueError(f"numbers of the unknown type {kind}")
    if fields.get(3, 0) or 7 in fields:
        raise ValueError("tensors in several parts")
    sizes = [
        dict(_fields(dim)).get(1, 0) for number, dim in _fields(fields.get(2, b"")) if number == 2
    ]
    entry = BundleEntry(np.dtype(_TYPES[kind]), tuple(sizes), fields.get(4, 0), fields.get(5, 0))
    if math.prod(entry.shape) * entry.dtype.itemsize != entry.size:
        raise ValueError(f"a tensor of shape {entry.shape} with {entry.size} bytes")
    return entry


def _check_header(value: bytes) -> None:
    """Refuse a `BundleHeaderProto` of several files, or of another order of bytes."""
    fields = dict(_fields(value))
    if fields.get(1, 0) != 1 or fields.get(2, 0):
        raise ValueError("several files of data, or big-endian numbers")


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the numbers and values of a protocol buffer's fields."""
    numbers = _Varints(message)
    while numbers.left:
        tag = numbers.read()
        if tag & 7 == 0:
            yield tag >> 3, numbers.read()
        elif tag & 7 == 2:
            yield tag >> 3, numbers.take(numbers.read())
        elif tag & 7 in (1, 5):
            yield tag >> 3, numbers.take(8 if tag & 7 == 1 else 4)
        else:
            raise ValueError("a field of an unknown kind")


class _Varints:
    """Numbers of 7 bits a byte, and bytes, one after another."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    @property
    def left(self) -> bool:
        """Whether there is more."""
        return self._place < len(self._data)

    def read(self) -> int:
        """Return the next number."""
        number = 0
        for shift in range(0, 64, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number of more than 64 bits")

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self._place + count
        if end > len(self._data):
            raise ValueError("its index is cut short")
        self._place, start = end, self._place
        return self._data[start:end]
