"""Separate many files: plan their outputs, isolate failures, report.

```
inputs --find_audio--> tracks --plan--> jobs --run--> Report
                                          └── what exists already, what would collide
```
Nothing here prints; `run` tells what happens through events, the report says how it ended.
"""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from separator.batch.tracks import Track, identity
from separator.errors import Cancelled, ConfigError, SeparatorError
from separator.files import remove_stale, write_text
from separator.stream.wanted import Wanted
from separator.version import __version__
from separator.words import one_line

if TYPE_CHECKING:  # finding and planning must not wait for torch
    from separator.api import Result, Separator
    from separator.stream.progress import Progress

Status = Literal["done", "skipped", "failed", "cancelled"]
Existing = Literal["refuse", "skip", "overwrite"]


@dataclass(frozen=True)
class Options:
    """Wishes for every file.

    Attributes:
        output: Folder for all results.
        wanted: Stems by name, residual, range and form of the files.
        existing: What to do about outputs that exist: refuse the file, skip what is there, or
            overwrite it.
    """

    output: Path
    wanted: Wanted
    existing: Existing = "refuse"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all outputs of a file."""
        residual = self.wanted.residual
        return (*(self.wanted.stems or ()), *([residual] if residual else []))

    def as_dict(self) -> dict[str, Any]:
        """Return the options as plain data."""
        wishes = asdict(self.wanted)
        del wishes["overwrite"]  # is what `existing` says
        return {"output": self.output, **wishes, "existing": self.existing}


@dataclass(frozen=True)
class Job:
    """A track, where its outputs go, and which of them are still to be made."""

    track: Track
    outputs: dict[str, Path]
    missing: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True)
class Outcome:
    """End of a job.

    Attributes:
        error: One line, for people.
        details: The traceback of an error that nobody foresaw.
    """

    job: Job
    status: Status
    result: Result | None = None
    error: str | None = None
    details: str | None = None


@dataclass(frozen=True)
class Event:
    """A job has begun, has come further (`progress`), or has ended (`outcome`)."""

    job: Job
    progress: Progress | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Report:
    """Ends of all jobs, and the conditions under which they ran."""

    model: str
    device: str
    precision: str
    options: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    seconds: float = field(compare=False)

    def count(self, status: Status) -> int:
        """Return the number of jobs that ended so."""
        return sum(outcome.status == status for outcome in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {
            "version": __version__,
            "model": self.model,
            "device": self.device,
            "precision": self.precision,
            "options": self.options,
            "seconds": round(self.seconds, 3),
            "files": [_as_dict(outcome) for outcome in self.outcomes],
        }

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.as_dict(), indent=2, default=str)

    def write(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all.

        Raises:
            ConfigError: The file can't be written.
        """
        try:
            write_text(path, self.as_json())
        except OSError as error:
            raise ConfigError(f"Can't write the report '{path}': {error.strerror}.") from error


def plan(
    tracks: Sequence[Track], options: Options, *, model: str, known: Sequence[str]
) -> list[Job]:
    """Decide where the outputs of each track go, and what of them is still to be made.

    Files in a searched folder that are outputs of an earlier run of the same plan are passed
    over.

    Args:
        tracks: As `find_audio` returns them.
        options: What is wanted.
        model: Name of the model, for templates.
        known: All stems of the model, also those that are not wanted now.

    Raises:
        ConfigError: Two outputs would be one file, or an output would replace an input.
    """

    def outputs(track: Track, names: Iterable[str]) -> dict[str, Path]:
        if track.problem:
            return {}
        paths = {name: options.wanted.path(track.track, name, model) for name in names}
        return {name: options.output / path for name, path in paths.items()}

    every = {*known, *options.names}
    earlier = {identity(path) for track in tracks for path in outputs(track, every).values()}
    tracks = [track for track in tracks if track.named or identity(track.path) not in earlier]
    jobs = [_job(track, outputs(track, options.names), options.existing) for track in tracks]
    _refuse_collisions(jobs)
    return jobs


def run(
    jobs: Sequence[Job],
    separator: Separator,
    options: Options,
    *,
    workers: int = 1,
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
) -> Report:
    """Separate all files; one that fails does not stop the others.

    On KeyboardInterrupt, and where `cancel` is set, the files at work are given up without a
    trace and the rest is not begun; what is finished stays.

    Args:
        jobs: As `plan` returns them.
        separator: The model, shared by all workers.
        options: As given to `plan`.
        workers: Files that are worked on side by side.
        on_event: Called from the workers' threads.
        cancel: Set it, from any thread, to stop.
    """
    began = time.perf_counter()
    for folder in {path.parent for job in jobs for path in job.outputs.values()}:
        remove_stale(folder)
    cancel = cancel or threading.Event()
    worker = _Worker(separator, options, on_event or (lambda event: None), cancel)
    with ThreadPoolExecutor(workers, thread_name_prefix="separate") as pool:
        futures = [pool.submit(worker, job) for job in jobs]
        try:
            while wait(futures, timeout=0.5).not_done:
                pass  # in small portions: a signal can't end an unlimited wait everywhere
        except KeyboardInterrupt:
            cancel.set()
        outcomes = tuple(future.result() for future in futures)
    return Report(
        model=separator.card.name,
        device=str(separator.device),
        precision=str(separator.precision).removeprefix("torch."),
        options=options.as_dict() | separator.settings,
        outcomes=outcomes,
        seconds=time.perf_counter() - began,
    )


@dataclass(frozen=True)
class _Worker:
    """Worker that does one job after the other and never raises."""

    separator: Separator
    options: Options
    on_event: Callable[[Event], None]
    cancel: threading.Event

    def __call__(self, job: Job) -> Outcome:
        outcome = self._outcome(job)
        self.on_event(Event(job, outcome=outcome))
        return outcome

    def _outcome(self, job: Job) -> Outcome:
        if job.problem:
            return Outcome(job, "failed", error=one_line(job.problem))
        if not job.missing:
            return Outcome(job, "skipped")
        try:
            return Outcome(job, "done", self._separate(job))
        except Cancelled:
            return Outcome(job, "cancelled")
        except SeparatorError as error:
            return Outcome(job, "failed", error=one_line(error))
        except Exception as error:
            line = f"unexpected error: {type(error).__name__}: {one_line(error)}"
            return Outcome(job, "failed", error=line, details=traceback.format_exc())

    def _separate(self, job: Job) -> Result:
        if self.cancel.is_set():
            raise Cancelled("Cancelled.")
        self.on_event(Event(job))
        options = self.options
        result = self.separator.write_stems(
            job.track.path,
            {name: job.outputs[name] for name in job.missing},
            # the residual, and the gain, come from all chosen stems, those that are there included
            replace(options.wanted, overwrite=options.existing == "overwrite"),
            progress=lambda progress: self.on_event(Event(job, progress)),
            cancel=self.cancel,
        )
        if result.gain != 1 and len(job.missing) < len(job.outputs):
            note = (
                f"The gain of {result.gain:.3f} is what all chosen stems need; files that were "
                "there already have it if they were made by the same options."
            )
            result = replace(result, notes=(*result.notes, note))
        return result


def _job(track: Track, outputs: dict[str, Path], existing: Existing) -> Job:
    there = [path for path in outputs.values() if os.path.lexists(path)]
    missing = tuple(outputs)
    problem = track.problem
    if existing == "skip":
        missing = tuple(name for name, path in outputs.items() if path not in there)
    elif existing == "refuse" and there and not problem:
        more = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        problem = f"'{there[0]}'{more} exists; use --skip-existing or --overwrite."
    return Job(track, outputs, missing, problem)


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {identity(job.track.path) for job in jobs}
    owners: dict[str, Track] = {}
    for job in jobs:
        for path in job.outputs.values():
            if identity(path) in sources:
                raise ConfigError(
                    f"'{path}' is an input and would be written too; choose another --output "
                    "or --template."
                )
            owner = owners.setdefault(identity(path), job.track)
            if owner is not job.track or list(job.outputs.values()).count(path) > 1:
                raise ConfigError(
                    f"'{owner.path}' and '{job.track.path}' would both be written to '{path}'; "
                    "put {track} and {stem} into the --template."
                )


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result
    there = outcome.job.outputs if outcome.status in ("done", "skipped") else {}
    data: dict[str, Any] = {
        "source": str(outcome.job.track.path),
        "status": outcome.status,
        "outputs": {name: str(path) for name, path in there.items()},
        "error": outcome.error,
    }
    if outcome.details:
        data["details"] = outcome.details
    if result:
        data |= {
            "written": list(result.outputs),
            "duration": result.duration,
            "seconds": round(result.seconds, 3),
            "network_seconds": round(result.network_seconds, 3),
            "real_time_factor": round(result.seconds / result.duration, 4),
            "gain": result.gain,
            "truncated": result.truncated,
            "notes": list(result.notes),
        }
    return data
