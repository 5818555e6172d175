"""Average scores over tracks as the field does, compare methods, and write everything as CSV.

BSSEval's ratios are the median over frames, then the median over tracks; all other metrics are
means over tracks. The mean over stems is that of their averages.
"""

from __future__ import annotations

import csv
import io
import math
import statistics as plain
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TextIO

from separator.errors import ConfigError
from separator.evaluation.lookup import describe
from separator.evaluation.metrics import METRICS
from separator.evaluation.results import (
    FRAME_METRICS,
    Kind,
    TrackResult,
    data_set,
    find_results,
    safe_name,
    save_text,
)
from separator.evaluation.scoring import ACCOMPANIMENT, FRAME_BASED, REMAINDER
from separator.evaluation.statistics import (
    Average,
    Interval,
    PairedTest,
    average,
    bootstrap,
    compare_pairs,
    holm,
)
from separator.files import whole_file

ALL = "mean"  # column of the mean over stems
_KINDS: tuple[Kind, ...] = ("mixture", "estimates", "model", "oracle")  # in tables
_MIB = 2**20


@dataclass(frozen=True)
class Speed:
    """Cost of the separation, over all tracks of a method; None where it isn't known.

    Attributes:
        real_time_factor: Seconds of work for a second of music.
        peak_memory: MiB at the most.
        metric_factor: Seconds of measuring for a second of music.
    """

    real_time_factor: float | None
    peak_memory: float | None
    metric_factor: float


@dataclass(frozen=True)
class Row:
    """Comparison of two methods in one stem and metric; `p_holm` is Wilcoxon's, corrected."""

    first: str
    second: str
    stem: str
    metric: str
    comparison: PairedTest
    p_holm: float


@dataclass(frozen=True)
class Summary:
    """Scores of all tracks, without their frames.

    Attributes:
        results: At least one, all of one split.
    """

    results: tuple[TrackResult, ...]

    @cached_property
    def methods(self) -> dict[str, Kind]:
        """Kinds by name: the mixture first, oracles last, in between by name."""
        kinds = {result.run.method: result.run.kind for result in self.results}
        return dict(sorted(kinds.items(), key=lambda item: (_KINDS.index(item[1]), item[0])))

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """All that were scored; those that a method left out come last."""
        names = dict.fromkeys(target.name for r in self.results for target in r.targets)
        return tuple(sorted(names, key=lambda name: name in (ACCOMPANIMENT, REMAINDER)))

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Keys of all metrics, in the order of `METRICS`; others come last."""
        keys = {key: None for r in self.results for target in r.targets for key in target.scores}
        known = [key for key in METRICS if key in keys]
        return (*known, *(key for key in keys if key not in METRICS))

    @cached_property
    def tracks(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted({result.track for result in self.results}))

    @property
    def data(self) -> str:
        """Kind of the data set."""
        return self.results[0].run.data

    @property
    def split(self) -> str:
        """Split of the data set."""
        return self.results[0].split

    @cached_property
    def _scores(self) -> dict[tuple[str, str, str], dict[str, float]]:
        """By method, stem and metric: the score of each track."""
        scores: dict[tuple[str, str, str], dict[str, float]] = {}
        for result in self.results:
            for target in result.targets:
                for metric, score in target.scores.items():
                    key = (result.run.method, target.name, metric)
                    scores.setdefault(key, {})[result.track] = score
        return scores

    def scores(self, method: str, stem: str, metric: str) -> list[float]:
        """Return the score of each of `tracks`; NaN where there is none."""
        found = self._scores.get((method, stem, metric), {})
        return [found.get(track, math.nan) for track in self.tracks]

    def interval(self, method: str, stem: str, metric: str) -> Interval:
        """Return the average over tracks, and where it probably lies."""
        return bootstrap(self.scores(method, stem, metric), average_of(metric))

    def value(self, method: str, stem: str, metric: str) -> float:
        """Return the average over tracks, for `ALL` the mean over the stems of the data set."""
        if stem == ALL:
            own = [name for name in self.stems if name not in (ACCOMPANIMENT, REMAINDER)]
            return plain.fmean([self.value(method, name, metric) for name in own or self.stems])
        return average(self.scores(method, stem, metric), average_of(metric))

    def count(self, method: str) -> int:
        """Return the number of tracks."""
        return sum(result.run.method == method for result in self.results)

    def speed(self, method: str) -> Speed:
        """Return what the method took."""
        runs = [result.run for result in self.results if result.run.method == method]
        timed = [run for run in runs if run.seconds is not None]
        memory = [run.peak_memory for run in runs if run.peak_memory is not None]
        music = sum(run.duration for run in runs)
        seconds = sum(run.seconds or 0.0 for run in timed)
        return Speed(
            seconds / sum(run.duration for run in timed) if timed else None,
            max(memory) / _MIB if memory else None,
            sum(run.metric_seconds for run in runs) / music,
        )

    @cached_property
    def comparisons(self) -> tuple[Row, ...]:
        """All pairs of models and estimates, corrected for their number in each metric."""
        rivals = [name for name, kind in self.methods.items() if kind in ("model", "estimates")]
        return tuple(row for metric in self.metrics for row in self._compare(rivals, metric))

    def _compare(self, rivals: Sequence[str], metric: str) -> Iterator[Row]:
        better: Literal["higher", "lower"] = (
            "higher" if describe(metric).higher_is_better else "lower"
        )
        pairs = [(*pair, stem) for pair in combinations(rivals, 2) for stem in self.stems]
        found = []
        for first, second, stem in pairs:
            own, other = (self.scores(name, stem, metric) for name in (first, second))
            comparison = compare_pairs(own, other, average_of(metric), better=better)
            if comparison.difference.tracks:
                found.append((first, second, stem, comparison))
        corrected = holm([comparison.wilcoxon for *_, comparison in found])
        for (first, second, stem, comparison), p in zip(found, corrected, strict=True):
            yield Row(first, second, stem, metric, comparison, p)


def average_of(metric: str) -> Average:
    """Return how a metric is averaged over tracks."""
    return "median" if metric in FRAME_BASED else "mean"


def summarize(folder: Path, split: str) -> Summary:
    """Read all results of a split below a folder; frames go to `frames.csv` in it.

    Raises:
        ConfigError: There are none, they are of different data sets, or those of a model were made
            with different settings.
    """
    if not any(folder.glob(f"*/{safe_name(split)}/*.json")):
        raise ConfigError(f"'{folder}' holds no results of the split '{split}'.")
    results = []
    path = folder / "frames.csv"
    try:
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            for result in _with_frames_written(find_results(folder), split, file):
                results.append(result)
    except OSError as error:
        raise ConfigError(f"Can't write '{path}': {error.strerror}.") from error
    _check_settings(results, folder)
    return Summary(tuple(results))


def write_tables(summary: Summary, folder: Path) -> None:
    """Write `scores.csv`, `summary.csv`, `comparisons.csv` and `methods.csv`."""
    tables = {
        "scores": _score_rows(summary),
        "summary": _summary_rows(summary),
        "comparisons": _comparison_rows(summary),
        "methods": _method_rows(summary),
    }
    for name, rows in tables.items():
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        save_text(folder / f"{name}.csv", text.getvalue())


def _with_frames_written(
    results: Iterable[TrackResult], split: str, file: TextIO
) -> Iterator[TrackResult]:
    """Write the frames of each result to a file, and yield it without them."""
    writer = csv.writer(file)
    writer.writerow(("method", "split", "track", "stem", "time", "duration", *FRAME_METRICS))
    for result in results:
        if result.split != split:
            continue
        head = (result.run.method, result.split, result.track)
        for target in result.targets:
            columns = [target.frames.get(name, ()) for name in FRAME_METRICS]
            for i, values in enumerate(zip(*columns, strict=True)):
                writer.writerow((*head, target.name, float(i), 1.0, *values))
        yield replace(result, targets=tuple(replace(t, frames={}) for t in result.targets))


def _check_settings(results: Sequence[TrackResult], folder: Path) -> None:
    data = sorted({data_set(result.run.data, result.run.place) for result in results})
    if len(data) > 1:
        raise ConfigError(
            f"'{folder}' holds results of different data sets ({', '.join(data)}), whose averages "
            "would mean nothing; give each a folder of its own."
        )
    settings: dict[str, str] = {}
    for result in results:
        run = result.run
        own = run.fingerprint.split("-")[0]
        if run.kind != "estimates" and settings.setdefault(run.method, own) != own:
            raise ConfigError(
                f"The results of '{run.method}' in '{folder}' were made with different settings; "
                "finish the evaluation with one of them, or delete that folder."
            )


def _score_rows(summary: Summary) -> Iterator[Sequence[Any]]:
    yield "method", "kind", "split", "track", "stem", "metric", "score", "reason"
    for result in summary.results:
        head = (result.run.method, result.run.kind, result.split, result.track)
        for target in result.targets:
            for metric, score in target.scores.items():
                yield *head, target.name, metric, score, target.reasons.get(metric, "")


def _summary_rows(summary: Summary) -> Iterator[Sequence[Any]]:
    yield "method", "kind", "stem", "metric", "average", "score", "low", "high", "tracks"
    for metric in summary.metrics:
        kind = average_of(metric)
        for method in summary.methods:
            for stem in summary.stems:
                interval = summary.interval(method, stem, metric)
                if interval.tracks:
                    yield method, summary.methods[method], stem, metric, kind, *interval


def _comparison_rows(summary: Summary) -> Iterator[Sequence[Any]]:
    yield (
        *("first", "second", "stem", "metric", "difference", "low", "high", "tracks"),
        *("wins", "losses", "p_wilcoxon", "p_permutation", "p_wilcoxon_holm"),
    )
    for row in summary.comparisons:
        found = row.comparison
        tests = (found.wins, found.losses, found.wilcoxon, found.permutation, row.p_holm)
        yield row.first, row.second, row.stem, row.metric, *found.difference, *tests


def _method_rows(summary: Summary) -> Iterator[Sequence[Any]]:
    yield "method", "kind", "tracks", "real_time_factor", "peak_memory_mib", "metric_factor"
    for method, kind in summary.methods.items():
        speed = summary.speed(method)
        numbers = (speed.real_time_factor, speed.peak_memory, speed.metric_factor)
        yield method, kind, summary.count(method), *numbers
