"""A queue of jobs: one runs at a time, the others know their place, each can be cancelled.

```
submit ──> waiting ──> running ──> done
              │           ├──────> failed      (one line for the user, the rest in the log)
              └───────────┴──────> cancelled
```
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from separator.errors import Cancelled, ConfigError, SeparatorError
from separator.words import one_line

if TYPE_CHECKING:
    from separator.stream.progress import Progress

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """One piece of work and what has become of it so far.

    Attributes:
        title: Title of the song, for people.
        owner: Session that it belongs to.
        visitor: Address that it came from.
        work: What is done; it gets the job, reports to it, and heeds its `cancel`.
        error: One line for the user, where it failed.
        folder: Folder of its files; it is deleted when the job ends, unless that is done.
    """

    title: str
    owner: str
    work: Callable[[Job], Any]
    state: JobState = "waiting"
    step: str = ""
    result: Any = None
    error: str | None = None
    unit: str = "segments"
    done: int = 0
    total: int | None = None
    folder: Path | None = None
    visitor: str = ""
    cancel: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    _first: tuple[float, int] | None = None  # when the step was first reported on, and how much

    def begin(self, step: str) -> None:
        """Say what happens now, or stop here if the user wishes to."""
        self.check()
        self.step, self.done, self.total = step, 0, None
        self._first = None

    def check(self) -> None:
        """Stop here if the user wishes to.

        Raises:
            Cancelled: The user does.
        """
        if self.cancel.is_set():
            raise Cancelled("Cancelled.")

    def report(self, progress: Progress) -> None:
        """Take note of the segments that are done."""
        self.done, self.total = progress.done, progress.total
        self._first = self._first or (time.monotonic(), self.done)

    @property
    def fraction(self) -> float | None:
        """Share of the segments that is done, in [0, 1]; None while that isn't known."""
        return None if not self.total else min(1.0, self.done / self.total)

    @property
    def seconds_left(self) -> float | None:
        """Estimate the time that the remaining segments take, in seconds.

        The first one says nothing: it waits for the model, or half a download was there already.
        """
        if not self.total or self._first is None:
            return None
        began, first = self._first
        if self.done <= first:
            return None
        each = (time.monotonic() - began) / (self.done - first)
        return max(0.0, each * (self.total - self.done))


def _nothing(job: Job) -> None:
    """Stand in for work that is over, or was never asked for."""


class Queue:
    """Jobs that run one after the other in a thread of their own.

    Args:
        max_waiting: Jobs that may wait; more are refused.
        max_each: Jobs of one visitor.
        after: Called with a job that has ended, however it did, before the next begins.
    """

    def __init__(
        self,
        max_waiting: int,
        after: Callable[[Job], None] = _nothing,
        max_each: int | None = None,
    ) -> None:
        self.max_waiting = max_waiting
        self.max_each = max_each
        self._after = after
        self._jobs: list[Job] = []  # the first one runs
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="separator-jobs", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Job:
        """Append a job.

        Raises:
            ConfigError: The queue is full, of this visitor's jobs or of all, or closed.
        """
        with self._changed:
            if self._closed:
                raise ConfigError("The app is about to end; try again when it is back.")
            mine = sum(other.visitor == job.visitor for other in self._jobs)
            if self.max_each is not None and mine >= self.max_each:
                raise ConfigError(
                    f"{mine} of your songs are waiting already; more are taken when they are done."
                )
            if len(self._jobs) > self.max_waiting:
                raise ConfigError(
                    f"{self.max_waiting} songs are waiting already, more are not taken. "
                    "Try again in a few minutes."
                )
            self._jobs.append(job)
            self._changed.notify_all()
        return job

    def place(self, job: Job) -> int:
        """Return how many jobs come before this one; 0 if it runs or has ended."""
        with self._changed:
            return self._jobs.index(job) if job in self._jobs else 0

    @property
    def running(self) -> bool:
        """Whether anything runs or waits."""
        with self._changed:
            return bool(self._jobs)

    def cancel(self, job: Job) -> None:
        """Stop a job: at once if it waits, after the current layer of the network if it runs."""
        job.cancel.set()
        with self._changed:
            if job.state == "waiting" and job in self._jobs:
                self._jobs.remove(job)
                _end(job, "cancelled")

    def cancel_all(self, owner: str = "") -> None:
        """Stop the jobs of all owners whose name begins like this."""
        with self._changed:
            jobs = [job for job in self._jobs if job.owner.startswith(owner)]
        for job in jobs:
            self.cancel(job)

    def close(self, patience: float | None = None) -> None:
        """Stop everything, and wait until the thread has ended: files may be deleted then.

        Args:
            patience: Seconds after which the thread is left alone; None waits for its end.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.cancel_all()
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                job = self._jobs[0]
                job.state = "running"
            _end(job, _work(job))
            self._after(job)
            with self._changed:
                self._jobs.remove(job)


def _work(job: Job) -> JobState:
    """Run a job to its end, whatever that is."""
    try:
        job.begin("Starting")
        job.result = job.work(job)
    except Cancelled:
        return "cancelled"
    except Exception as error:
        job.error = friendly(error)
        return "failed"
    return "done"


def _end(job: Job, state: JobState) -> None:
    job.state = state
    job.work = _nothing  # it holds the model and the request
    if job.folder and state != "done":
        shutil.rmtree(job.folder, ignore_errors=True)
    job.ended.set()


def friendly(error: Exception) -> str:
    """Return one line for the user; log what only a developer can use."""
    if isinstance(error, SeparatorError):
        return one_line(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        log.error("The disk is full.", exc_info=error)
        return "The disk is full. Results that you no longer need can be deleted; then try again."
    log.error("Unexpected error in a job.", exc_info=error)
    return "Something went wrong inside the program; the details are in the server's log."
