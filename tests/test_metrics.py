"""The metrics: ratios in closed form, what all of them have in common, the best order."""

import math

import numpy as np
import pytest
import torch
from metric_signals import compare, noise
from torch import Tensor

from separator.errors import AudioError
from separator.evaluation.bss_eval import bss_eval
from separator.evaluation.embeddings import Embedding, embedding_distance
from separator.evaluation.log_wmse import log_wmse_score
from separator.evaluation.metrics import METRICS, Comparison
from separator.evaluation.permutations import best_permutation
from separator.evaluation.ratios import frame_median, sdr_improvement, si_sdr, usdr
from separator.evaluation.spectral import bleedless_fullness, l1_freq, mr_stft

# Ratios


@pytest.mark.parametrize("decibels", [-10.0, 0.0, 7.5, 60.0])
@pytest.mark.parametrize("length", [1, 1000, 150001])
def test_usdr_of_scaled_noise_is_known(decibels, length):
    references, error = noise(2, 2, length).double(), noise(2, 2, length, seed=1).double()
    size = (references.square().sum((1, 2)) / error.square().sum((1, 2))).sqrt()
    estimates = references + 10 ** (-decibels / 20) * size[:, None, None] * error
    scores = usdr(1e3 * references, 1e3 * estimates)  # loud: what is added does not count
    torch.testing.assert_close(scores, torch.full((2,), decibels).double(), rtol=0, atol=1e-4)


def test_usdr_of_perfect_estimates_is_finite():
    references = torch.ones(1, 1, 10)
    assert usdr(references, references).item() == pytest.approx(80, abs=1e-6)  # 10 / 1e-7


def test_usdr_counts_channels_together():
    references = torch.ones(1, 2, 100)
    estimates = references.clone()
    estimates[:, 1] = 0  # half of the energy is lost
    assert usdr(references, estimates).item() == pytest.approx(10 * math.log10(2), abs=1e-6)


def test_sdr_improvement_of_mixture_is_zero():
    references = noise(3, 2, 500)
    mixture = references.sum(0)
    assert sdr_improvement(references, mixture.expand_as(references), mixture).tolist() == [0] * 3
    halfway = (mixture + references) / 2
    torch.testing.assert_close(
        sdr_improvement(references, halfway, mixture),
        torch.full((3,), 20 * math.log10(2)).double(),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("gain", [1e-4, 1.0, -3.0])
def test_si_sdr_ignores_scale(gain):
    references = noise(2, 2, 3000).double()
    estimates = references + 0.3 * noise(2, 2, 3000, seed=1)
    expected = si_sdr(references, estimates)
    torch.testing.assert_close(si_sdr(references, gain * estimates), expected)
    torch.testing.assert_close(si_sdr(gain * references, estimates), expected)


def test_si_sdr_of_orthogonal_error_is_known():
    reference = torch.tensor([3.0, 4.0, 0.0]).view(1, 1, 3)
    error = torch.tensor([0.0, 0.0, 0.5]).view(1, 1, 3)
    assert si_sdr(reference, 7 * (reference + error)).item() == pytest.approx(20)


def test_si_sdr_has_one_gain_for_all_channels():
    references = torch.ones(1, 2, 100)
    estimates = references.clone()
    estimates[:, 1] = 0  # best gain 1/2: |s/2|^2 = |s/2 - e|^2
    assert si_sdr(references, estimates).item() == pytest.approx(0, abs=1e-9)


def test_frame_median_ignores_frames_without_a_ratio():
    frames = noise(3, 8).double()
    frames[0, :3], frames[1, 5], frames[2] = torch.nan, torch.inf, torch.nan
    expected = [np.median(row[np.isfinite(row)]) for row in frames[:2].numpy()]
    assert frame_median(frames)[:2].tolist() == pytest.approx(expected)
    assert frame_median(frames)[2].isnan()


# The registry


def test_metrics_improve_as_errors_shrink():
    references = torch.nn.functional.avg_pool1d(noise(2, 2, 44104), 5, 1)
    error = references.flip(0) + 0.1 * noise(*references.shape, seed=1)
    bad, good = (compare(references, references + gain * error) for gain in (0.5, 0.05))
    for name, metric in METRICS.items():
        better = metric(good) > metric(bad)
        assert bool((better == metric.higher_is_better).all()), name


def test_metrics_are_float64_of_each_stem():
    references = noise(2, 2, 9000)
    estimates = references + torch.tensor([0.1, 0.3]).view(2, 1, 1) * noise(2, 2, 9000, seed=1)
    comparison = compare(references, estimates)
    swapped = compare(references.flip(0), estimates.flip(0))
    for name, metric in METRICS.items():
        scores = metric(comparison)
        assert scores.shape == (2,) and scores.dtype == torch.float64, name
        assert scores[0] != scores[1], name
        torch.testing.assert_close(metric(swapped).flip(0), scores, rtol=1e-6, atol=1e-6)


def test_frames_are_measured_once():
    calls = []

    def engine(references: Tensor, estimates: Tensor, *, window: int, hop: int):
        calls.append((window, hop))
        return bss_eval(references, estimates, window=window, hop=hop, filter_length=8)

    references = noise(2, 1, 3500)
    estimates = references + 0.1 * noise(2, 1, 3500, seed=1)
    comparison = compare(references, estimates, sample_rate=1000, engine=engine)
    frames = bss_eval(references, estimates, window=1000, hop=1000, filter_length=8)
    names = ("csdr", "cisr", "csir", "csar")
    for name, ratios in zip(names, frames, strict=True):
        assert METRICS[name](comparison).tolist() == np.median(ratios, axis=1).tolist()
    assert calls == [(1000, 1000)]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("length", [1, 130, 5001])
def test_any_length_has_scores(name, length):
    references = 1 + noise(1, 1, length).abs()
    scores = METRICS[name](compare(references, 0.5 * references))
    perfect_but_for_the_level = name in ("csir", "csar", "si_sdr")  # has infinite ratios
    assert scores.shape == (1,) and (scores.isfinite().all() or perfect_but_for_the_level)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "log_wmse"])
def test_silent_references_have_no_score_but_a_reason(name):
    references, estimates = noise(3, 2, 4000), noise(3, 2, 4000, seed=1)
    references[1] = 0
    comparison = compare(references, estimates)
    scores = METRICS[name](comparison)
    assert scores[1].isnan()
    reasons = comparison.reasons(scores)
    assert reasons[1] == "the reference is silent"
    if name[0] != "c":  # BSSEval scores a frame only if all of its stems sound
        assert not scores[[0, 2]].isnan().any() and reasons[0] == reasons[2] == ""
    else:
        assert "no frame" in reasons[0]


def test_silent_estimates_have_a_reason():
    comparison = compare(noise(1, 1, 1000), torch.zeros(1, 1, 1000))
    scores = METRICS["si_sdr"](comparison)
    assert scores.isnan() and comparison.reasons(scores) == ("the estimate is silent",)


FUNCTIONS = {
    "usdr": usdr,
    "si_sdr": si_sdr,
    "l1_freq": l1_freq,
    "multi_resolution_stft": mr_stft,
    "bleedless_fullness": bleedless_fullness,
    "log_wmse": lambda r, e: log_wmse_score(r, e, torch.ones(2, 100)),
    "sdr_improvement": lambda r, e: sdr_improvement(r, e, torch.ones(2, 100)),
    "embedding": lambda r, e: embedding_distance(r, e, Embedding("same", lambda x: x, 44100)),
    "best_order": best_permutation,
    "Comparison": lambda r, e: Comparison(r, e, torch.ones(2, 100)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_cannot_be_compared_is_an_error(name):
    measure = FUNCTIONS[name]
    references = torch.ones(3, 2, 100)
    for shape in ((3, 2, 99), (3, 1, 100), (2, 2, 100), (2, 100)):
        with pytest.raises(AudioError) as error:
            measure(references, torch.ones(shape))
        assert str(tuple(references.shape)) in str(error.value) and str(shape) in str(error.value)
    with pytest.raises(AudioError, match=r"\(3, 2, 0\)"):
        measure(references[..., :0], references[..., :0])
    for value in (torch.nan, torch.inf):
        broken = references.clone()
        broken[1, 0, 50] = value
        with pytest.raises(AudioError, match="estimates hold samples that are NaN or infinite"):
            measure(references, broken)
        with pytest.raises(AudioError, match="references hold"):
            measure(broken, references)


def test_mixtures_of_another_shape_are_an_error():
    references = torch.ones(3, 2, 100)
    with pytest.raises(AudioError, match=r"\(2, 99\).*\(3, 2, 100\)"):
        Comparison(references, references, torch.ones(2, 99))
    with pytest.raises(AudioError, match="mixture hold"):
        Comparison(references, references, torch.full((2, 100), torch.nan))


# Orders


def test_best_order_finds_the_permutation():
    references = noise(4, 2, 500)
    order = [2, 0, 3, 1]
    estimates = references[order] + 0.5 * noise(4, 2, 500, seed=1)
    found = list(best_permutation(references, estimates))
    assert [order[i] for i in found] == [0, 1, 2, 3]
    torch.testing.assert_close(
        si_sdr(references, estimates[found]), si_sdr(references[order], estimates)[found]
    )


def test_best_order_gives_silent_references_what_is_left():
    references = noise(3, 1, 500)
    estimates = references.flip(0).clone()
    references[1] = 0
    assert best_permutation(references, estimates) == (2, 1, 0)


def test_best_order_may_mind_levels():
    references = torch.stack([torch.ones(1, 100), 2 * torch.ones(1, 100)])
    assert best_permutation(references, references.flip(0), usdr) == (1, 0)
