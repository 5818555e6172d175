"""Say how sure a score is, and whether two methods differ: over tracks, without distributions.

Scores of songs are few, skewed and come in pairs (every method separates the same songs), so that
confidence intervals come from resampled tracks and tests from paired differences. A score that is
NaN, of a silent stem for example, or infinite is left out, as in museval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Average = Literal["mean", "median"]

_AVERAGES: dict[Average, Callable[..., Any]] = {"mean": np.mean, "median": np.median}
MIN_TRACKS = 6  # for an interval: the signs of five differences alone can't reach p < 0.05 either
_AT_ONCE = 2_000_000  # numbers that are drawn together, to bound the memory
_FLIPS = 10_000  # signs that are tried: all of them, up to 13 tracks


class Interval(NamedTuple):
    """Average over tracks, and where it probably lies: `low` to `high`."""

    value: float
    low: float
    high: float
    tracks: int


class PairedTest(NamedTuple):
    """Comparison of two methods on the same tracks.

    Attributes:
        difference: The first less the second, averaged over tracks, with its interval.
        wins: Tracks on which the first is better; `losses` those on which it is worse.
        wilcoxon: p of the signed-rank test: are differences as often and as much above as below?
        permutation: p of the sign-flip test: is the mean difference as large by chance?
    """

    difference: Interval
    wins: int
    losses: int
    wilcoxon: float
    permutation: float


def average(values: Sequence[float] | Floats, kind: Average) -> float:
    """Average over tracks, NaN left out; NaN if nothing is left.

    >>> average([1.0, 2.0, 9.0, float("nan")], "median")
    2.0
    """
    known = _known(values)
    return float(_AVERAGES[kind](known)) if known.size else float("nan")


def bootstrap(
    values: Sequence[float] | Floats,
    kind: Average,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return an average with the percentile interval of its bootstrap distribution.

    With fewer than `MIN_TRACKS` tracks the interval is NaN. Draws of few songs hold little but
    repetitions of them, and their interval is far narrower than what it stands for.

    Args:
        values: One score per track.
        kind: What to average by.
        level: Probability that the interval stands for.
        resamples: Number of times that as many tracks are drawn anew, with replacement.
        seed: Start of the draws, so that the same scores give the same interval.

    Reference: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    known = _known(values)
    if known.size < MIN_TRACKS:
        return Interval(average(known, kind), float("nan"), float("nan"), known.size)
    found = stats.bootstrap(
        (known,),
        _AVERAGES[kind],
        confidence_level=level,
        n_resamples=resamples,
        batch=max(1, _AT_ONCE // known.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = map(float, found.confidence_interval)
    return Interval(average(known, kind), low, high, known.size)


def compare_pairs(
    first: Sequence[float],
    second: Sequence[float],
    kind: Average,
    *,
    better: Literal["higher", "lower"] = "higher",
    seed: int = 0,
) -> PairedTest:
    """Compare the scores of two methods on the same tracks, in the same order.

    Tracks that lack one of the two scores are left out. Without any track left both p-values are
    NaN.

    Reference: Wilcoxon, "Individual comparisons by ranking methods", 1945; Demsar, "Statistical
    comparisons of classifiers over multiple data sets", JMLR 7, 2006.
    """
    differences = _known(np.asarray(first, float) - np.asarray(second, float))
    gains = differences if better == "higher" else -differences
    return PairedTest(
        bootstrap(differences, kind, seed=seed),
        int((gains > 0).sum()),
        int((gains < 0).sum()),
        _signed_ranks(differences),
        _sign_flips(differences, seed),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests, so that no single one is false too often.

    Reference: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = [p for p in p_values if p == p]
    corrected: dict[float, float] = {}
    largest = 0.0
    for rank, p in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected.setdefault(p, largest)
    return [corrected.get(p, p) for p in p_values]


def _signed_ranks(differences: Floats) -> float:
    if not differences.size:
        return float("nan")
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def _sign_flips(differences: Floats, seed: int) -> float:
    """Return how often other signs make the mean as large: all of them for few tracks."""
    if differences.size < 2:
        return 1.0 if differences.size else float("nan")
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=_FLIPS,
        batch=max(1, _AT_ONCE // differences.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _known(values: Sequence[float] | Floats) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]
