"""Draw what an evaluation found, as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from separator.errors import ConfigError
from separator.evaluation.lookup import describe
from separator.evaluation.summary import ALL, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAIN = ("csdr", "usdr")


def draw_all(summary: Summary, folder: Path) -> list[Path]:
    """Draw all plots that the results allow.

    Raises:
        ConfigError: Matplotlib is missing, or the folder can't be written to.
    """
    metrics = [metric for metric in _MAIN if metric in summary.metrics] or summary.metrics[:1]
    drawn = []
    for metric in metrics:
        figures = {
            "boxes": draw_boxes(summary, metric),
            "speed": draw_speed(summary, metric),
            "differences": draw_differences(summary, metric),
        }
        for name, figure in figures.items():
            if figure:
                drawn.append(_save(figure, folder / f"{name}-{metric}.png"))
    return drawn


def draw_boxes(summary: Summary, metric: str) -> Figure:
    """Draw the distribution over tracks: boxes from quartile to quartile, per stem and method."""
    methods, stems = list(summary.methods), summary.stems
    figure, axes = _figure(2 + 0.5 * len(stems) * len(methods))
    colors = _colors(len(methods))
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        scores = [_finite(summary.scores(method, stem, metric)) for stem in stems]
        axes.boxplot(
            scores,
            positions=[s + (i - (len(methods) - 1) / 2) * width for s in range(len(stems))],
            widths=0.85 * width,
            patch_artist=True,
            boxprops={"facecolor": colors[i], "linewidth": 0.8},
            medianprops={"color": "black"},
            flierprops={"markersize": 3},
            label=method,
        )
    axes.set_xticks(range(len(stems)), stems)
    axes.set_ylabel(_label(metric))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, frameon=False)
    return figure


def draw_speed(summary: Summary, metric: str) -> Figure | None:
    """Draw quality against speed; None where no method was timed."""
    points = [
        (method, factor, summary.value(method, ALL, metric))
        for method in summary.methods
        if (factor := summary.speed(method).real_time_factor)
    ]
    points = [point for point in points if math.isfinite(point[2])]
    if not points:
        return None
    figure, axes = _figure(7)
    for (method, factor, value), color in zip(points, _colors(len(points)), strict=True):
        axes.scatter([1 / factor], [value], s=60, color=color, edgecolor="black")
        axes.annotate(method, (1 / factor, value), (6, 6), textcoords="offset points")
    for method, kind in summary.methods.items():
        if kind in ("mixture", "oracle"):
            _level(axes, summary.value(method, ALL, metric), method)
    factors = [factor for _, factor, _ in points]
    if max(factors) >= 10 * min(factors):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("seconds of music, separated in a second")
    axes.set_ylabel(f"{_label(metric)}, mean over stems")
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    return figure


def draw_differences(summary: Summary, metric: str) -> Figure | None:
    """Draw the differences of the best method to the others, track by track.

    Each is the mean over stems, sorted; None where there is nothing to compare.
    """
    sign = 1 if describe(metric).higher_is_better else -1
    rivals = [m for m, kind in summary.methods.items() if kind in ("model", "estimates")]
    values = {method: sign * summary.value(method, ALL, metric) for method in rivals}
    rivals.sort(key=lambda method: -values[method] if math.isfinite(values[method]) else math.inf)
    if len(rivals) == 1 and "mixture" in summary.methods:
        rivals.append("mixture")
    if len(rivals) < 2:
        return None
    best, *others = rivals
    figure, axes = _figure(8)
    for method, color in zip(others, _colors(len(others)), strict=True):
        differences = np.sort(_finite(_track_means(summary, best, method, metric)))
        numbers = range(1, len(differences) + 1)
        axes.plot(numbers, differences, ".-", color=color, label=f"{best} - {method}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_xlabel("tracks, in order of the difference")
    axes.set_ylabel(f"difference of {_label(metric)}")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _level(axes: Axes, value: float, name: str) -> None:
    axes.axhline(value, color="gray", linestyle=":", linewidth=1)
    across = axes.get_yaxis_transform()  # x as a fraction of the width
    axes.text(0.99, value, name, transform=across, ha="right", va="bottom", color="gray")


def _track_means(summary: Summary, first: str, second: str, metric: str) -> list[float]:
    """Return the mean over stems of the difference, for each track; NaN where there is none."""
    rows = [
        np.subtract(summary.scores(first, stem, metric), summary.scores(second, stem, metric))
        for stem in summary.stems
    ]
    columns = [_finite(column) for column in np.transpose(rows)]
    return [float(np.mean(column)) if len(column) else math.nan for column in columns]


def _figure(width: float) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "The report needs matplotlib: pip install 'separator[evaluate]', or use --no-report."
        ) from error
    figure = Figure(figsize=(min(20.0, max(6.0, width)), 4.5), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Figure, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise ConfigError(f"Can't write '{path}': {error.strerror}.") from error
    return path


def _colors(count: int) -> Sequence[Any]:
    from matplotlib import colormaps

    return [colormaps["tab10"](i % 10) for i in range(count)]


def _label(metric: str) -> str:
    info = describe(metric)
    return f"{info.name} / {info.unit}" if info.unit else info.name


def _finite(scores: Sequence[float]) -> list[float]:
    return [score for score in scores if math.isfinite(score)]
