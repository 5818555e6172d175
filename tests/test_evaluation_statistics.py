"""Averages, intervals and tests against closed forms, scipy and what they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from separator.evaluation.statistics import average, bootstrap, compare_pairs, holm

SCORES = np.random.default_rng(0).normal(6.0, 2.0, 50)


@pytest.mark.parametrize("kind", ["mean", "median"])
def test_average_leaves_out_what_says_nothing(kind):
    expected = getattr(np, kind)(SCORES)
    assert average([*SCORES, math.nan, math.inf], kind) == pytest.approx(expected)


def test_average_of_nothing_is_nan():
    assert math.isnan(average([math.nan], "mean"))


@pytest.mark.parametrize("kind", ["mean", "median"])
def test_interval_holds_the_average_and_is_reproducible(kind):
    first, second = (bootstrap(SCORES, kind) for _ in range(2))
    assert first == second
    assert first.low < first.value < first.high
    assert first.tracks == 50


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    interval = bootstrap(SCORES, "mean", resamples=20_000)
    error = SCORES.std() / math.sqrt(len(SCORES))
    assert interval.low == pytest.approx(SCORES.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(SCORES.mean() + 1.96 * error, abs=0.1 * error)


def test_interval_does_not_depend_on_how_draws_are_grouped(monkeypatch):
    whole = bootstrap(SCORES, "median")
    monkeypatch.setattr("separator.evaluation.statistics._AT_ONCE", 1000)
    assert bootstrap(SCORES, "median") == whole


def test_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    samples = generator.normal(0.0, 1.0, (300, 50))
    intervals = [bootstrap(sample, "mean", resamples=500) for sample in samples]
    covered = np.mean([interval.low < 0 < interval.high for interval in intervals])
    assert 0.90 < covered < 0.98


@pytest.mark.parametrize("tracks", [1, 5])
def test_few_tracks_have_no_interval(tracks):
    interval = bootstrap([3.0] * tracks, "mean")
    assert (interval.value, interval.tracks) == (3.0, tracks)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_comparison_with_itself_finds_nothing():
    comparison = compare_pairs(SCORES, SCORES, "mean")
    assert comparison.difference.value == 0
    assert (comparison.wins, comparison.losses) == (0, 0)
    assert comparison.wilcoxon == comparison.permutation == 1


def test_comparison_finds_a_steady_difference():
    comparison = compare_pairs(SCORES + 0.5, SCORES, "median")
    assert comparison.difference[:3] == pytest.approx((0.5, 0.5, 0.5))
    assert (comparison.wins, comparison.losses) == (50, 0)
    assert comparison.wilcoxon < 1e-6
    assert comparison.permutation < 1e-3


def test_lower_can_be_better():
    comparison = compare_pairs(SCORES + 0.5, SCORES, "mean", better="lower")
    assert (comparison.wins, comparison.losses) == (0, 50)


def test_comparison_takes_only_tracks_that_both_have():
    comparison = compare_pairs([1.0, math.nan, 3.0], [0.0, 1.0, math.nan], "mean")
    assert comparison.difference.tracks == 1


def test_comparison_of_nothing_has_no_p_value():
    comparison = compare_pairs([math.nan], [1.0], "mean")
    assert math.isnan(comparison.wilcoxon)
    assert math.isnan(comparison.permutation)


def test_few_tracks_try_all_signs():
    """All of n differences are positive: only 2 of 2^n sign patterns are as extreme."""
    for count in (1, 5, 8):
        comparison = compare_pairs(np.arange(1.0, count + 1), np.zeros(count), "mean")
        assert comparison.permutation == pytest.approx(2 / 2**count)


def test_many_tracks_agree_with_all_signs(monkeypatch):
    first, second = np.random.default_rng(2).normal([[0.6], [0.0]], 1, (2, 12))
    exact = compare_pairs(first, second, "mean").permutation
    monkeypatch.setattr("separator.evaluation.statistics._FLIPS", 4000)  # of 2^12 = 4096
    assert compare_pairs(first, second, "mean").permutation == pytest.approx(exact, abs=0.02)


def test_wilcoxon_is_scipys():
    other = SCORES + np.random.default_rng(3).normal(0.2, 1.0, 50)
    expected = stats.wilcoxon(SCORES, other).pvalue
    assert compare_pairs(SCORES, other, "mean").wilcoxon == pytest.approx(expected)


def test_holm_keeps_order_and_nan():
    corrected = holm([0.04, math.nan, 0.001, 0.04])
    assert corrected[0] == corrected[3] == pytest.approx(0.08)
    assert corrected[2] == pytest.approx(0.003)
    assert math.isnan(corrected[1])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
