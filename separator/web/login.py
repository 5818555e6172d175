"""Guessing a password is slow: after each wrong one the next attempt waits twice as long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from separator.errors import SeparatorError

_FREE = 2  # typing errors that cost nothing
_LONGEST = 60.0  # seconds
_MOST_AT_ONCE = 5
_FORGOTTEN = 3600.0  # seconds after the last wrong attempt

log = logging.getLogger(__name__)


class TooManyAttempts(SeparatorError):
    """Attempts of one address that come faster than they are answered."""


@dataclass
class _Record:
    failures: int = 0
    last: float = 0.0
    pending: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class Attempt:
    """One attempt; whoever makes it says whether it succeeded."""

    succeeded: bool = False


class Login:
    """Attempts of each address, one after the other, with growing pauses.

    Args:
        pause: Waits for so many seconds.
    """

    def __init__(self, pause: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._pause = pause
        self._records: dict[str, _Record] = {}

    @asynccontextmanager
    async def attempt(self, address: str) -> AsyncIterator[Attempt]:
        """Wait until this address may try again, then take note of how it went.

        Raises:
            TooManyAttempts: Others of this address are waiting.
        """
        self._forget()
        record = self._records.setdefault(address, _Record())
        if record.pending >= _MOST_AT_ONCE:
            raise TooManyAttempts("Too many attempts at once; wait a minute.")
        record.pending += 1
        try:
            async with record.lock:
                await self._pause(delay(record.failures))
                attempt = Attempt()
                yield attempt
                record.last = time.monotonic()
                record.failures = 0 if attempt.succeeded else record.failures + 1
                if attempt.succeeded:
                    log.info("Log-in from %s.", address)
                else:
                    log.warning(
                        "Wrong user or password from %s, %d in a row.", address, record.failures
                    )
        finally:
            record.pending -= 1

    def _forget(self) -> None:
        """Drop what is old, so that the records of the whole world need no room."""
        limit = time.monotonic() - _FORGOTTEN
        self._records = {
            address: record
            for address, record in self._records.items()
            if record.pending or record.last > limit
        }


def delay(failures: int) -> float:
    """Return for how many seconds an attempt waits after so many wrong ones.

    >>> [delay(failures) for failures in (0, 2, 3, 4, 5, 100)]
    [0.0, 0.0, 1.0, 2.0, 4.0, 60.0]
    """
    extra = failures - _FREE
    return min(_LONGEST, 2.0 ** min(extra - 1, 10)) if extra > 0 else 0.0
