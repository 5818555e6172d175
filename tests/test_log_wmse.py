"""Log-WMSE against its definition and the package it comes from."""

import math

import numpy as np
import pytest
import torch
from metric_signals import noise, tones

from separator.evaluation.log_wmse import log_wmse_score
from separator.evaluation.metrics import METRICS, Comparison
from separator.spectral import hearing

pytest_plugins = ["metric_signals"]
BEST_LOG_WMSE = -4 * math.log(1e-8)


def test_log_wmse_equals_the_package(two_stems):
    """log-wmse-audio-quality 0.2.0."""
    references, estimates = two_stems
    mixture = references.sum(0)
    scores = log_wmse_score(references, estimates, mixture)
    np.testing.assert_allclose(scores, [19.1080608, 24.0536976], rtol=0, atol=1e-4)
    scores = log_wmse_score(references, estimates, mixture, sample_rate=48000)
    np.testing.assert_allclose(scores, [19.182106, 23.792953], rtol=0, atol=1e-4)


def test_log_wmse_scores_silence():
    mixture = noise(2, 9000)
    silence = torch.zeros(1, 2, 9000)
    assert log_wmse_score(silence, silence, mixture).item() == pytest.approx(BEST_LOG_WMSE)
    for gain in (0.01, 0.5):
        expected = -4 * math.log(gain**2 + 1e-8)
        score = log_wmse_score(silence, gain * mixture[None], mixture)
        assert score.item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("gain", [1e-4, 1e3])
def test_log_wmse_ignores_the_common_level(two_stems, gain):
    references, estimates = two_stems
    scaled = log_wmse_score(gain * references, gain * estimates, gain * references.sum(0))
    expected = log_wmse_score(references, estimates, references.sum(0))
    torch.testing.assert_close(scaled, expected, rtol=0, atol=1e-4)


def test_log_wmse_does_not_hear_errors_68_db_below():
    mixture = tones((1000, 1.0)).float()[None]
    for decibels, heard in ((-60, True), (-75, False)):  # the peak is 3 dB above the RMS
        error = 10 ** (decibels / 20) * mixture[None]
        score = log_wmse_score(torch.zeros_like(error), error, mixture).item()
        assert (score < BEST_LOG_WMSE - 1) == heard
        assert heard or score > BEST_LOG_WMSE - 1e-3  # but for the onset at the edges


def test_log_wmse_weighs_errors_by_hearing():
    mixture = tones((1000, 1.0)).float()[None]
    errors = torch.stack([tones((f, 0.1)).float()[None] for f in (40, 3000, 18000)])
    low, middle, high = log_wmse_score(torch.zeros_like(errors), errors, mixture).tolist()
    assert middle < low and middle < high


def test_weighting_filter_has_its_design():
    """A shelf of +5 dB and a peak of 2.5 dB between two Butterworth filters."""
    turn = torch.tensor([0.0, math.pi / 2])
    shelf = hearing._high_shelf(turn, 1500, gain_db=5.0, q=1 / math.sqrt(2))
    assert shelf.tolist() == pytest.approx([1, 10 ** (5 / 20)], rel=1e-5)
    middle = torch.tensor([math.pi * 500 / 44100])
    peak = hearing._peak(middle, 500, gain_db=2.5, q=1.0)
    assert peak.item() == pytest.approx(10 ** (2.5 / 20), rel=1e-5)

    response = hearing.ear_response().double()
    assert response.argmax() == 1999
    torch.testing.assert_close(response[1:1999], response[2000:3998].flip(0))  # zero phase
    gains = torch.fft.rfft(response, n=44100).abs()  # by Hz
    passed = gains / 10 ** (5 / 20)  # above the shelf
    assert passed[10000].item() == pytest.approx(0.5, rel=0.01)  # -3 dB, forwards and backwards
    assert gains[0] < 0.01 and gains[22050] < 0.01
    assert gains[120] == pytest.approx(math.sqrt(0.5), rel=0.02)


def test_log_wmse_of_a_silent_mixture():
    references, estimates = noise(2, 1, 100), noise(2, 1, 100, seed=1)
    comparison = Comparison(references, estimates, torch.zeros(1, 100))
    scores = METRICS["log_wmse"](comparison)
    assert scores.isnan().all()
    assert comparison.reasons(scores) == ("the mixture is silent",) * 2


def test_log_wmse_of_a_silent_channel():
    references, estimates = torch.zeros(1, 2, 5000), noise(1, 2, 5000)
    mixture = torch.stack([noise(5000, seed=1), torch.zeros(5000)])
    alone = log_wmse_score(references[:, :1], estimates[:, :1], mixture[:1]).item()
    both = log_wmse_score(references, estimates, mixture).item()
    assert both == pytest.approx((alone + BEST_LOG_WMSE) / 2)
