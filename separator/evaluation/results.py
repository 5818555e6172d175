"""Keep the scores of a track in one JSON file, in museval's schema.

    results/METHOD/SPLIT/TRACK.json        read by museval's `EvalStore`, `MethodStore`, `json2df`

museval knows `targets`, `name`, `frames`, `time`, `duration`, `metrics`; beside them stand our
`scores` (one number for the whole track, by name of the metric), `reasons` (why a number is NaN)
and, at the top, `separator` (how, how fast, with which warnings). Numbers follow museval's habits:
five decimals, and NaN where a ratio is infinite.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from separator import files
from separator.errors import ConfigError

Kind = Literal["model", "estimates", "oracle", "mixture"]

FRAME_METRICS = ("SDR", "ISR", "SIR", "SAR")
EXCERPTS = "excerpts"  # folder of a method beside those of its splits


@dataclass(frozen=True)
class Target:
    """Scores of one stem of a track.

    Attributes:
        frames: Each of `FRAME_METRICS`, in dB, frame by frame; NaN where a source is silent.
            Empty where BSSEval wasn't asked for.
        scores: One number for the track, by key of the metric; NaN with a reason.
        excerpt: Where the worst frame can be heard: names of the files below the method's folder,
            by "reference" and "estimate", its "time" in seconds and its "sdr".
    """

    name: str
    frames: Mapping[str, list[float]]
    scores: Mapping[str, float]
    reasons: Mapping[str, str] = field(default_factory=dict)
    excerpt: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """Conditions under which a track was separated and measured.

    Attributes:
        method: Its name in tables, and of its folder.
        kind: What the estimates come from.
        fingerprint: Digest of everything that decides the numbers; another one makes them stale.
            What stands before its dash is the same for all tracks of a model.
        engine: "torch", or "museval" with its version.
        data: Kind of the data set.
        place: Its folder; empty where it has none.
        sample_rate: Hz.
        duration: Length of the track, in seconds.
        seconds: Wall-clock time of the separation; None where nothing was separated.
        metric_seconds: Wall-clock time of the metrics.
        peak_memory: Bytes at the most during the separation, of the process or of the GPU.
        warnings: What the user should know.
    """

    method: str
    kind: Kind
    fingerprint: str
    engine: str
    data: str
    sample_rate: int
    duration: float
    seconds: float | None = None
    metric_seconds: float = 0.0
    peak_memory: int | None = None
    place: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrackResult:
    """Scores of one track with one method."""

    track: str
    split: str
    run: Run
    targets: tuple[Target, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, in museval's schema."""
        return {
            "targets": [_target_as_dict(target) for target in self.targets],
            "separator": {"track": self.track, "split": self.split, **asdict(self.run)},
        }

    def write(self, folder: Path) -> Path:
        """Write the file below the folder of all results, whole or not at all."""
        path = result_path(folder, self.run.method, self.split, self.track)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_text(path, json.dumps(self.as_dict(), indent=1))
        return path


def result_path(folder: Path, method: str, split: str, track: str) -> Path:
    """Return where the scores of a track are kept."""
    return folder / safe_name(method) / safe_name(split) / f"{safe_name(track)}.json"


def read_result(path: Path) -> TrackResult:
    """Read the scores of a track.

    Raises:
        ConfigError: The file can't be read, or `TrackResult.write` didn't write it.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        about = dict(data["separator"])
        track, split = about.pop("track"), about.pop("split")
        run = Run(**about | {"warnings": tuple(about["warnings"])})
        targets = tuple(_target(target) for target in data["targets"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"'{path}' holds no scores of this program ({type(error).__name__}: {error}); delete "
            "it, and the track is measured anew."
        ) from error
    return TrackResult(track, split, run, targets)


def find_results(folder: Path) -> Iterator[TrackResult]:
    """Read all scores below a folder of results, by method, split and track.

    Raises:
        ConfigError: A file isn't one of ours.
    """
    for path in sorted(folder.glob("*/*/*.json")):
        yield read_result(path)


def check_place(folder: Path, split: str, data: str, place: str) -> None:
    """Refuse a folder with results of another data set: averages over both would mean nothing.

    One result of each method is looked at. What isn't a result is passed over; the report names it.

    Raises:
        ConfigError: There is one of another data set.
    """
    for method in sorted(folder.glob(f"*/{safe_name(split)}")):
        first = min(method.glob("*.json"), default=None)
        try:
            run = read_result(first).run if first else None
        except ConfigError:
            continue
        if run and (run.data, run.place) != (data, place):
            raise ConfigError(
                f"'{folder}' holds results of {data_set(run.data, run.place)}, not of "
                f"{data_set(data, place)}; give each data set a folder of its own."
            )


def data_set(data: str, place: str) -> str:
    """Name a data set, for people: its kind, and its folder if it has one.

    >>> data_set("dnr", "/music/dnr")
    "dnr in '/music/dnr'"
    """
    return f"{data} in '{place}'" if place else data


def save_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        ConfigError: It can't be written.
    """
    try:
        files.write_text(path, text)
    except OSError as error:
        raise ConfigError(f"Can't write '{path}': {error.strerror}.") from error


def safe_name(name: str) -> str:
    """Return a name for a file or folder on any system, that stays in its folder.

    >>> safe_name("AC/DC: live?")
    'AC_DC_ live_'
    """
    return re.sub(r'[<>:"|?*\\/\x00-\x1f]', "_", name).strip(" .") or "_"


def _target_as_dict(target: Target) -> dict[str, Any]:
    count = len(next(iter(target.frames.values()), ()))
    frames = [
        {
            "time": float(i),
            "duration": 1.0,
            "metrics": {name: _rounded(values[i]) for name, values in target.frames.items()},
        }
        for i in range(count)
    ]
    return {
        "name": target.name,
        "frames": frames,
        "scores": {name: _rounded(score) for name, score in target.scores.items()},
        "reasons": dict(target.reasons),
        "excerpt": dict(target.excerpt),
    }


def _target(data: dict[str, Any]) -> Target:
    frames = [frame["metrics"] for frame in data["frames"]]
    names = FRAME_METRICS if frames else ()
    return Target(
        data["name"],
        {name: [frame[name] for frame in frames] for name in names},
        data["scores"],
        data["reasons"],
        data["excerpt"],
    )


def _rounded(score: float) -> float:
    return round(score, 5) if math.isfinite(score) else math.nan
