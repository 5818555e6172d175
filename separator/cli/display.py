"""A batch as people see it: bars on a terminal, else lines; at the end, what failed and why.

On a terminal, the songs of a small batch end in a table, those of a large one in their number;
elsewhere, each file that is written makes a line of stdout.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from separator.api import Result
from separator.batch.run import Event, Job, Outcome, Report
from separator.cli.console import console, line, message, printable, show, table
from separator.errors import SeparatorError
from separator.words import clock

_FEW = 8  # songs that fit into a table that is still looked at


class Display:
    """Listener to the events of `batch.run`; a context manager, for the bars.

    Failures are told as they happen, by `quiet` too, and in a batch once more at its end.

    Args:
        jobs: Number of songs.
        quiet: Whether nothing but failures is told.
        listing: Whether stdout is for the files written, and not for something else.
    """

    def __init__(self, jobs: int, *, quiet: bool, listing: bool = True) -> None:
        self._jobs, self._quiet = jobs, quiet
        self._listing = listing and not quiet
        self._ended = 0
        self._lock = threading.Lock()  # events come from several threads
        live = not quiet and console(stderr=True).is_terminal
        self._bars = Bars(jobs) if live else None
        self._terminal = sys.stdout.isatty()

    def __enter__(self) -> Display:
        if self._bars:
            self._bars.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.progress.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            if self._bars:
                self._bars.update(event)
            if event.outcome:
                self._ended += 1
                self._tell(event.outcome)

    def finish(self, report: Report) -> None:
        """Show how everything ended."""
        if self._quiet:
            return
        if self._terminal and 0 < report.count("done") <= _FEW:
            self._print(_table(report))
        counts = {status: report.count(status) for status in ("done", "skipped", "failed")}
        words = [f"{count} {status}" for status, count in counts.items() if count]
        if cancelled := report.count("cancelled"):
            words.append(f"{cancelled} not finished (interrupted)")
        message(
            f"{', '.join(words) or 'Nothing to do'} in {_time(report.seconds)} "
            f"with {report.model} on {report.device}, {report.precision}."
        )
        failed = [outcome for outcome in report.outcomes if outcome.status == "failed"]
        for outcome in failed if self._jobs > 1 else ():
            message(f"failed: {outcome.job.track.path}: {outcome.error}")

    def _tell(self, outcome: Outcome) -> None:
        source, result = outcome.job.track.path, outcome.result
        head = f"[{self._ended}/{self._jobs}] {source}"
        if outcome.status == "failed":
            message(f"{head}: failed: {outcome.error}")
        if self._quiet:
            return
        for warning in _warnings(outcome):
            message(f"{head}: warning: {warning}")
        if outcome.status == "skipped" and not self._terminal:
            message(f"{head}: skipped, all there")
        if result and not self._terminal:
            message(
                f"{head}: {_time(result.duration)} in {_time(result.seconds)}, "
                f"{len(result.outputs)} files"
            )
            for path in result.outputs.values():
                self._print(path)

    def _print(self, result: Table | Path) -> None:
        """Print a result; the songs go on if stdout takes no more."""
        if not self._listing:
            return
        try:
            line(result) if isinstance(result, Path) else show(result)
        except BrokenPipeError:
            self._listing = False
        except SeparatorError as error:
            self._listing = False
            message(f"warning: {error} The songs are separated all the same.")


class _Clock(ProgressColumn):
    """Column of a bar: the time since its beginning, and what is left."""

    max_refresh = 0.5  # seconds

    def render(self, task: Task) -> Text:
        """Write both."""
        left = task.time_remaining
        ending = "" if left is None else f", {clock(left)} left"
        return Text(f"{clock(task.elapsed or 0)} elapsed{ending}", no_wrap=True)


class Bars:
    """One bar for each file at work, by segments really done, and one for all.

    Files that haven't begun are taken to be as long as the mean of those that have.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._ended = 0
        self._idle = 0  # files that ended without any work: skipped, or unreadable
        self._segments: dict[int, tuple[int, int]] = {}  # of each job: done, in all
        self._tasks: dict[int, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            _Clock(),
            console=console(stderr=True),
            transient=True,
            redirect_stdout=False,  # it may go into a file
        )
        self._all = self.progress.add_task("", total=None, visible=jobs > 1)

    def update(self, event: Event) -> None:
        """Follow an event."""
        key = id(event.job)
        if event.outcome:
            self._end(key)
        elif event.progress is None:
            name = printable(_shorten(event.job.track.track))
            self._tasks[key] = self.progress.add_task(name, total=None)
        else:
            done, total = event.progress.done, event.progress.total or event.progress.done
            self._segments[key] = (done, total)
            self.progress.update(self._tasks[key], completed=done, total=total)
        self._update_all()

    def _end(self, key: int) -> None:
        self._ended += 1
        self._idle += key not in self._segments
        if key in self._segments:
            done = self._segments[key][0]
            self._segments[key] = (done, done)
        if key in self._tasks:
            self.progress.remove_task(self._tasks.pop(key))

    def _update_all(self) -> None:
        begun = len(self._segments)
        done = sum(done for done, _ in self._segments.values())
        total = sum(total for _, total in self._segments.values())
        waiting = self._jobs - self._idle - begun
        self.progress.update(
            self._all,
            description=f"{self._ended} of {self._jobs} files",
            completed=done,
            total=total + total / begun * waiting if begun else None,
        )


def show_plan(jobs: list[Job]) -> int:
    """Print what would be done; return the exit code."""
    for job in jobs:
        if job.problem:
            message(f"{job.track.path}: would fail: {job.problem}")
        for name, path in job.outputs.items():
            verb = "write" if name in job.missing else "keep"
            if not job.problem:
                line(f"{job.track.path}: {verb} {path}")
    return 1 if any(job.problem for job in jobs) else 0


def _table(report: Report) -> Table:
    rows = table("Song", "Length", "Time", "Speed", "Stems", "")
    for outcome in report.outcomes:
        if outcome.result:
            cells = (outcome.job.track.track, *_cells(outcome.result))
            rows.add_row(*map(printable, cells))
    return rows


def _cells(result: Result) -> tuple[str, ...]:
    folders = {str(path.parent) for path in result.outputs.values()}
    speed = result.duration / max(result.seconds, 1e-9)
    return (
        _time(result.duration),
        _time(result.seconds),
        f"{speed:.1f}x",
        ", ".join(result.outputs),
        " ".join(f"in {folder}" for folder in sorted(folders)),
    )


def _warnings(outcome: Outcome) -> list[str]:
    """Return what is worth knowing of a file that was separated."""
    result = outcome.result
    if result is None:
        return []
    warnings = list(result.notes)
    if result.truncated:
        warnings.insert(0, f"The file {result.truncated}.")
    if result.gain != 1:
        warnings.append(f"All stems were lowered to {result.gain:.3f} so that none clips.")
    return warnings


def _time(seconds: float) -> str:
    """Write a time for people.

    >>> _time(7.25), _time(3725)
    ('7.2 s', '1:02:05')
    """
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def _shorten(text: str, width: int = 40) -> str:
    """Keep the end of a long name.

    >>> _shorten("a/very/long/name", 8)
    '.../name'
    """
    return text if len(text) <= width else f"...{text[-(width - 3) :]}"
