"""What pages have asked for, under tokens that outlive the page.

A browser keeps the token in the page's address. When the page is loaded again, after a drop of the
network or by the back button, it finds its jobs and their results; jobs for which no page asks any
more are given up.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from separator.web.jobs import Job


@dataclass(eq=False)
class Work:
    """Jobs that a page has begun together.

    Attributes:
        files: What was uploaded for them.
        seen: When a page last asked for it, by the monotonic clock.
    """

    jobs: Sequence[Job]
    files: Sequence[Path] = ()
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    seen: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """Take note that somebody waits for it, and keep what is done."""
        self.seen = time.monotonic()
        for job in self.jobs:
            if job.state == "done":
                job.result.touch()

    @property
    def is_over(self) -> bool:
        """Whether all its jobs have ended."""
        return all(job.ended.is_set() for job in self.jobs)


class Works:
    """All work that a page may still ask for."""

    def __init__(self) -> None:
        self._all: dict[str, Work] = {}
        self._lock = threading.Lock()

    def begin(self, jobs: Sequence[Job], files: Sequence[Path] = ()) -> Work:
        """Remember jobs of a page."""
        work = Work(jobs, files)
        with self._lock:
            self._all[work.token] = work
        return work

    def find(self, token: str, owner: str) -> Work | None:
        """Return the work under a token, from now on that of this owner; None if it is gone."""
        with self._lock:
            work = self._all.get(token)
        if work:
            work.touch()
            for job in work.jobs:
                job.owner = owner
        return work

    def expire(self, seconds: float) -> None:
        """Forget what nobody has asked for in that time."""
        limit = time.monotonic() - seconds
        with self._lock:
            self._all = {token: work for token, work in self._all.items() if work.seen > limit}

    def abandoned(self, seconds: float) -> list[Job]:
        """Return the jobs that go on while no page has asked for them in that time."""
        limit = time.monotonic() - seconds
        with self._lock:
            works = [work for work in self._all.values() if work.seen < limit]
        return [job for work in works for job in work.jobs if not job.ended.is_set()]
