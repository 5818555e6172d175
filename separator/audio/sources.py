"""Files as codec libraries read them: parts of files, impossible positions, failing disks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Source(io.BufferedReader):
    """A file, or a stretch of it, that codec libraries call back to read.

    An exception can't travel through a codec library: it would be printed, or lost. The file seems
    to end there, and `check` raises it.
    """

    def __init__(
        self,
        path: Path,
        begin: int = 0,
        end: int | None = None,
        patches: Mapping[int, int] | None = None,
    ):
        """Open a file.

        Args:
            path: The file.
            begin: Where the stretch begins.
            end: Where it ends; at the end of the file where absent.
            patches: Bytes that are read otherwise than they are, by their places in the file.
        """
        end = path.stat().st_size if end is None else end
        super().__init__(_Stretch(path, begin, end, patches or {}))
        self._failure: OSError | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes; none after an error."""
        try:
            return super().read(size)
        except OSError as error:
            self._failure = self._failure or error
            return b""

    def readinto(self, buffer: Any, /) -> int:
        """Read bytes into a buffer; none after an error."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            self._failure = self._failure or error
            return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position; -1, as FFmpeg wants it, where damaged headers ask for nonsense."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return -1

    def check(self) -> None:
        """Raise the error that was kept."""
        if self._failure is not None:
            raise self._failure


class _Stretch(io.RawIOBase):
    """Part of a file that looks like a file."""

    def __init__(self, path: Path, begin: int, end: int, patches: Mapping[int, int]):
        self._file = io.FileIO(path)
        self._begin, self._size, self._patches = begin, end - begin, patches
        self._file.seek(begin)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        here = self._file.tell()
        rest = max(0, self._begin + self._size - here)
        count = self._file.readinto(memoryview(buffer)[:rest]) or 0
        for place, byte in self._patches.items():
            if here <= place < here + count:
                buffer[place - here] = byte
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origin = (0, self.tell(), self._size)[whence]
        return self._file.seek(self._begin + max(0, origin + offset)) - self._begin

    def tell(self) -> int:
        return self._file.tell() - self._begin

    def close(self) -> None:
        self._file.close()
        super().close()
