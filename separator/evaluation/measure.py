"""Evaluate many methods in one pass over the tracks of a data set.

    tracks ──> processes ──> a song in memory ──> each method ──> scores ──> one JSON file
                             (read once)          (in turn)                  (resumable)

Memory grows neither with the number of tracks nor with that of results. What fails is named and
counted; all else is finished, and kept.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

import torch

from separator.datasets import Track
from separator.errors import Cancelled, ConfigError, SeparatorError
from separator.evaluation import excerpts
from separator.evaluation.lookup import EmbeddingFile
from separator.evaluation.methods import LoadedSong, Method, digest
from separator.evaluation.results import Run, TrackResult, check_place, read_result, result_path
from separator.evaluation.scoring import choose_engine, pair, score
from separator.files import remove_stale
from separator.heap import keep_freed_memory
from separator.words import one_line

TrackStatus = Literal["done", "kept", "failed", "cancelled"]

_FORMAT = 1  # of the results; a change of definitions makes all older ones stale


@dataclass(frozen=True)
class Evaluation:
    """Plan of what is measured, and how.

    Attributes:
        methods: With names that differ.
        metrics: Keys of `separator.evaluation.metrics.METRICS`, and that of the embedding.
        output: Folder of all results.
        data: Kind of the data set.
        place: Its folder; a folder of results holds those of one data set.
        split: Split of the data set; results are kept in a folder of this name.
        engine: "torch" or "museval".
        ordered: Whether stems have names that mean something; see `scoring.pair`.
        excerpts: Whether the worst frame of each stem is kept for the ears.
        embedding: Whose distance is one of the metrics.
        threads: Threads of each process; torch's own choice where absent.
    """

    methods: tuple[Method, ...]
    metrics: tuple[str, ...]
    output: Path
    data: str = "folder"
    place: str = ""
    split: str = "test"
    engine: str = "torch"
    ordered: bool = True
    excerpts: bool = True
    embedding: EmbeddingFile | None = None
    threads: int | None = None


@dataclass(frozen=True)
class TrackOutcome:
    """Outcome of one track with one method.

    Attributes:
        error: One line, for people.
        details: The traceback of an error that nobody foresaw.
        warnings: Worth knowing of a track that was measured.
    """

    track: str
    method: str
    status: TrackStatus
    error: str | None = None
    details: str | None = None
    warnings: tuple[str, ...] = ()


def evaluate(
    tracks: Sequence[Track],
    evaluation: Evaluation,
    *,
    jobs: int = 1,
    on_track: Callable[[str, Sequence[TrackOutcome]], None] | None = None,
    cancel: threading.Event | None = None,
) -> list[TrackOutcome]:
    """Measure all methods on all tracks; what is finished already is kept as it is.

    On KeyboardInterrupt, and where `cancel` is set, the tracks at work are given up and the rest
    is not begun; what is finished stays.

    Args:
        tracks: Tracks of a data set.
        evaluation: What to do with them.
        jobs: Processes that work side by side, each on a whole track; 1 for this one alone.
        on_track: Called with the name of each track that has ended and what became of it.
        cancel: Set it, from any thread, to stop; with one job.

    Raises:
        ConfigError: The output holds results of another data set.
    """
    check_place(evaluation.output, evaluation.split, evaluation.data, evaluation.place)
    for method in evaluation.methods:
        remove_stale(result_path(evaluation.output, method.name, evaluation.split, "").parent)
    work = _in_turn if jobs == 1 else _side_by_side
    outcomes = []
    for name, found in work(tracks, evaluation, jobs, cancel):
        outcomes += found
        if on_track:
            on_track(name, found)
    return outcomes


def measure_track(track: Track, evaluation: Evaluation, cancel: Any = None) -> list[TrackOutcome]:
    """Measure all methods on a track, and write the scores; errors become outcomes.

    Args:
        track: Track of a data set; read only if something is missing.
        evaluation: What to do.
        cancel: Has `is_set`.
    """
    outcomes = []
    song: LoadedSong | None = None
    for method in evaluation.methods:
        try:
            mark = _fingerprint(track, method, evaluation)
            known = _known_metrics(track, method, evaluation, mark)
            if known.issuperset(evaluation.metrics):
                outcomes.append(TrackOutcome(track.name, method.name, "kept"))
                continue
            # scores of another run are measured again: they need the same estimates
            metrics = dict.fromkeys((*evaluation.metrics, *sorted(known)))
            stale = result_path(evaluation.output, method.name, evaluation.split, track.name)
            stale.unlink(missing_ok=True)  # so that it isn't taken for new if this fails
            song = song or load_song(track, evaluation.split)
            wanted = replace(evaluation, metrics=tuple(metrics))
            result = _measure(song, method, wanted, mark, cancel)
            result.write(evaluation.output)
            outcomes.append(
                TrackOutcome(track.name, method.name, "done", warnings=result.run.warnings)
            )
        except Cancelled:
            outcomes.append(TrackOutcome(track.name, method.name, "cancelled"))
        except (SeparatorError, OSError) as error:
            outcomes.append(TrackOutcome(track.name, method.name, "failed", one_line(error)))
        except Exception as error:
            line = f"unexpected error: {type(error).__name__}: {one_line(error)}"
            details = traceback.format_exc()
            outcomes.append(TrackOutcome(track.name, method.name, "failed", line, details))
    return outcomes


def load_song(track: Track, split: str) -> LoadedSong:
    """Read a track into memory.

    Raises:
        AudioError: A file can't be read.
    """
    references = torch.empty(len(track.stems), track.channels, track.samples)
    for stem, reference in zip(track.stems, references, strict=True):
        reference.copy_(torch.from_numpy(track.read(stem)))
    return LoadedSong(
        name=track.name,
        split=split,
        stems=tuple(track.stems),
        references=references,
        mixture=torch.from_numpy(track.mixture()),
        sample_rate=track.sample_rate,
    )


def _measure(
    song: LoadedSong, method: Method, evaluation: Evaluation, mark: str, cancel: Any
) -> TrackResult:
    if cancel is not None and cancel.is_set():
        raise Cancelled("Cancelled.")
    estimates = method.estimate(song, cancel)
    usage, warnings = estimates.usage, estimates.warnings
    engine, engine_name = choose_engine(evaluation.engine)
    began = time.perf_counter()
    pairing = pair(song, estimates.stems, ordered=evaluation.ordered)
    del estimates  # large, and copied
    more = evaluation.embedding.metrics() if evaluation.embedding else None
    targets = score(song, pairing, evaluation.metrics, engine, more)
    seconds = time.perf_counter() - began
    if evaluation.excerpts and method.kind in ("model", "estimates"):
        folder = result_path(evaluation.output, method.name, song.split, song.name).parents[1]
        targets = excerpts.keep_worst(song, pairing, targets, folder)
    run = Run(
        method=method.name,
        kind=method.kind,
        fingerprint=mark,
        engine=engine_name,
        data=evaluation.data,
        place=evaluation.place,
        sample_rate=song.sample_rate,
        duration=song.duration,
        seconds=usage.seconds if usage else None,
        metric_seconds=seconds,
        peak_memory=usage.bytes if usage else None,
        warnings=warnings,
    )
    return TrackResult(song.name, song.split, run, tuple(targets))


def _fingerprint(track: Track, method: Method, evaluation: Evaluation) -> str:
    """Return what changes with the estimates and how they are compared, or with the references."""
    identity = method.identity(track.name, evaluation.split)
    embedding = evaluation.embedding.identity() if evaluation.embedding else None
    settings = digest(_FORMAT, identity, choose_engine(evaluation.engine)[1], embedding)
    return f"{settings}-{digest(track.identity())}"


def _known_metrics(track: Track, method: Method, evaluation: Evaluation, mark: str) -> set[str]:
    """Return the metrics of which there is a result that still holds."""
    path = result_path(evaluation.output, method.name, evaluation.split, track.name)
    if not path.exists():
        return set()
    try:
        result = read_result(path)
    except ConfigError:  # cut off by a power failure, say, or of an older version
        return set()
    if result.run.fingerprint != mark or not result.targets:
        return set()
    return set.intersection(*(set(target.scores) for target in result.targets))


Ended = Iterator[tuple[str, list[TrackOutcome]]]


def _in_turn(
    tracks: Sequence[Track], evaluation: Evaluation, jobs: int, cancel: threading.Event | None
) -> Ended:
    cancel = cancel or threading.Event()
    if evaluation.threads:
        torch.set_num_threads(evaluation.threads)
    for track in tracks:
        yield track.name, measure_track(track, evaluation, cancel)


def _side_by_side(
    tracks: Sequence[Track], evaluation: Evaluation, jobs: int, cancel: threading.Event | None
) -> Ended:
    context = multiprocessing.get_context("spawn")  # threads and CUDA don't survive a fork
    stop = context.Event()
    threads = evaluation.threads or max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(
        min(jobs, len(tracks) or 1), context, _begin, (evaluation, stop, threads)
    ) as pool:
        names = {pool.submit(_work, track): track.name for track in tracks}
        try:
            for future in as_completed(names):
                yield names[future], _result(future, names[future], evaluation)
        finally:  # also when the caller gave up
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _result(
    future: Future[list[TrackOutcome]], track: str, evaluation: Evaluation
) -> list[TrackOutcome]:
    try:
        return future.result()
    except BrokenProcessPool:
        error = "a process was killed, perhaps for want of memory; run again with fewer --jobs."
        return [TrackOutcome(track, method.name, "failed", error) for method in evaluation.methods]


_state: dict[str, Any] = {}  # of a process: what to do, and whether to stop


def _begin(evaluation: Evaluation, stop: Any, threads: int) -> None:
    """Prepare a process; networks are loaded with the first track and stay."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    keep_freed_memory()
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _state.update(evaluation=evaluation, stop=stop)


def _end_with_parent() -> None:
    """End this process when its parent is killed: it would wait for tracks forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _work(track: Track) -> list[TrackOutcome]:
    return measure_track(track, _state["evaluation"], _state["stop"])
