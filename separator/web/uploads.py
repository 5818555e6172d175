"""What visitors have sent: whose it is, and how much of it one visitor may leave here."""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

COOKIE = "separator-visitor"
_STALLED = 60.0  # seconds after which half an upload is given up


class Visitor(NamedTuple):
    """Who sends a request.

    Attributes:
        token: What a browser is recognised by; of programs without a cookie, the address.
        address: What limits count for; a browser gets a new token at will.
    """

    token: str
    address: str


def known_visitor(cookies: Mapping[str, str], address: str) -> Visitor:
    """Recognise a visitor; the address stands for the cookie of a program that has none."""
    near = _neighbourhood(address)
    token = cookies.get(COOKIE, "")
    return Visitor(token if re.fullmatch(r"[\w-]{22}", token) else near, near)


def _neighbourhood(address: str) -> str:
    """Return an address, of IPv6 the network of 64 bits: one house has as many as it likes.

    >>> _neighbourhood("192.0.2.7"), _neighbourhood("2001:db8::7")
    ('192.0.2.7', '2001:db8::/64')
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(ipaddress.ip_network(f"{address}/64", strict=False))


@dataclass
class _Upload:
    address: str
    size: int
    owners: set[str] = field(default_factory=set)
    is_used: bool = False


class Uploads:
    """Files that visitors have sent, each open to its sender alone.

    Args:
        folder: Where Gradio stores them.
        most_bytes: Sum over the files of one address.
        most_files: Files of one address that no job has used.
    """

    def __init__(self, folder: Path, most_bytes: int, most_files: int) -> None:
        self.folder = folder
        self.most_bytes = most_bytes
        self.most_files = most_files
        self._known: dict[str, _Upload] = {}
        self._for_all: set[str] = set()
        self._arriving: dict[str, int] = {}  # bytes under way, by address
        self._lost: list[tuple[float, str, int]] = []  # halves that lie here: when, whose, bytes
        self._lock = threading.RLock()

    def owns(self, visitor: Visitor, path: object) -> bool:
        """Tell whether this visitor has sent this very file, or everybody may use it."""
        if not isinstance(path, str):
            return False
        with self._lock:
            known = self._known.get(path)
            return path in self._for_all or bool(known and visitor.token in known.owners)

    def open_to_all(self, path: Path) -> None:
        """Let everybody use a file of ours."""
        with self._lock:
            self._for_all.add(str(path))

    def use(self, path: Path) -> None:
        """Take note that a job has a copy of its own: the file may go when room is needed."""
        with self._lock:
            if known := self._known.get(str(path)):
                known.is_used = True

    @contextmanager
    def arriving(self, visitor: Visitor) -> Iterator[Arrival]:
        """Watch files come in; those that are not kept count until they are swept away."""
        arrival = Arrival(self, visitor)
        try:
            yield arrival
        finally:
            with self._lock:
                self._arriving[visitor.address] -= arrival.taken
                if not self._arriving[visitor.address]:
                    del self._arriving[visitor.address]
                if not arrival.is_kept:
                    self._lost.append((time.monotonic(), visitor.address, arrival.taken))

    def take(self, visitor: Visitor, count: int) -> bool:
        """Make room for so many bytes, or tell that there is none."""
        address = visitor.address
        with self._lock:
            mine = {path: it for path, it in self._known.items() if it.address == address}
            held = count + self._arriving.get(address, 0) + sum(it.size for it in mine.values())
            held += sum(lost for _, whose, lost in self._lost if whose == address)
            for path, upload in mine.items():  # the oldest first
                if held > self.most_bytes and upload.is_used:
                    Path(path).unlink(missing_ok=True)
                    del self._known[path]
                    held -= upload.size
            unused = sum(not it.is_used for it in mine.values())
            if held > self.most_bytes or unused >= self.most_files:
                return False
            self._arriving[address] = self._arriving.get(address, 0) + count
            return True

    def keep(self, visitor: Visitor, paths: list[str]) -> None:
        """Remember whose these files are."""
        with self._lock:
            for path in paths:
                known = self._known.get(path)
                if known is None:  # the file may take a moment to get its name
                    size = Path(path).stat().st_size if Path(path).exists() else 0
                    known = self._known[path] = _Upload(visitor.address, size)
                known.owners.add(visitor.token)
                known.is_used = False

    def expire(self, seconds: float) -> None:
        """Delete files that are older, and those that stalled half-way."""
        now = time.time()
        for path in [*self.folder.rglob("*")]:
            with suppress(OSError):  # it may go at any moment
                is_half = path.parent == self.folder and path.name.startswith("tmp")
                if now - path.stat().st_mtime < (_STALLED if is_half else seconds):
                    continue
                if path.is_dir():
                    path.rmdir()  # if it is empty
                elif str(path) not in self._for_all:
                    path.unlink()
        with self._lock:
            self._known = {path: it for path, it in self._known.items() if Path(path).exists()}
            self._lost = [it for it in self._lost if time.monotonic() - it[0] < _STALLED]


class Arrival:
    """Files of one request on their way in.

    Attributes:
        taken: Bytes that have come.
        is_kept: Whether they became uploads.
    """

    def __init__(self, uploads: Uploads, visitor: Visitor) -> None:
        self._uploads = uploads
        self._visitor = visitor
        self.taken = 0
        self.is_kept = False
        uploads.take(visitor, 0)

    def take(self, count: int) -> bool:
        """Let so many bytes in, or tell that they are too many."""
        allowed = self._uploads.take(self._visitor, count)
        self.taken += count if allowed else 0
        return allowed

    def keep(self, paths: list[str]) -> None:
        """Turn what has come into uploads of this visitor."""
        self._uploads.keep(self._visitor, paths)
        self.is_kept = True
