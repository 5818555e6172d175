"""Metrics of spectra against closed forms and the programs they come from."""

import math

import numpy as np
import pytest
import torch
from metric_signals import compare, noise
from torch import Tensor

from separator.evaluation import checks, spectral
from separator.evaluation import log_wmse as log_wmse_module
from separator.evaluation.metrics import METRICS
from separator.evaluation.spectral import bleedless_fullness, l1_freq, mr_stft

pytest_plugins = ["metric_signals"]


def test_l1_freq_of_scaled_constant_is_known():
    references = torch.ones(1, 2, 20000)  # all in the lowest of 1025 bins: 2048, then 0.9 * 2048
    score = l1_freq(references, 0.9 * references).item()
    assert score == pytest.approx(100 / (1 + 10 * 0.1 * 2048 / 1025), rel=1e-5)
    assert l1_freq(references, references).item() == 100


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
def test_multi_resolution_stft_of_scaled_noise_is_known(gain):
    references = 100 * noise(2, 2, 20000)  # far above the floor
    expected = abs(1 - gain) + abs(math.log(gain))
    scores = mr_stft(references, gain * references)
    assert scores.tolist() == pytest.approx([expected] * 2, rel=1e-4)


def test_multi_resolution_stft_of_silence_is_finite():
    scores = mr_stft(noise(1, 1, 9000), torch.zeros(1, 1, 9000))
    assert 1 < scores.item() < 20  # spectral convergence is one


def test_bleedless_and_fullness_of_scaled_stems_are_known():
    references = noise(2, 2, 30000)
    percent = 100 / (1 + 20 * math.log10(2))
    for gain, bleedless, fullness in ((2.0, percent, 100), (0.5, 100, percent), (1.0, 100, 100)):
        scores = bleedless_fullness(references, gain * references)
        assert scores.bleedless.tolist() == pytest.approx([bleedless] * 2, rel=1e-5)
        assert scores.fullness.tolist() == pytest.approx([fullness] * 2, rel=1e-5)


def test_bleedless_and_fullness_follow_their_definition(two_stems):
    """Without chunks, in terms of librosa."""
    import librosa

    def mel(signal: Tensor) -> np.ndarray:
        magnitude = np.abs(librosa.stft(signal.numpy(), n_fft=4096, hop_length=1024))
        filters = librosa.filters.mel(sr=44100, n_fft=4096, n_mels=512)
        return librosa.amplitude_to_db(filters @ magnitude, ref=1.0, amin=1e-10, top_db=80)

    scores = torch.stack(bleedless_fullness(*two_stems), dim=1)
    differences = [mel(e) - mel(r) for r, e in zip(*two_stems, strict=True)]
    expected = [(100 / (1 + d[d > 0].mean()), 100 / (1 - d[d < 0].mean())) for d in differences]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_spectra_equal_those_of_the_programs_they_come_from(two_stems):
    """MSST at ccc011a, and auraloss 0.4.0 with the same resolutions."""
    np.testing.assert_allclose(l1_freq(*two_stems), [49.702903, 45.474718], rtol=1e-5)
    np.testing.assert_allclose(mr_stft(*two_stems), [0.2156392, 0.2201624], rtol=1e-5)
    bleedless, fullness = bleedless_fullness(*two_stems)
    np.testing.assert_allclose(bleedless, [4.6272135, 4.974291], rtol=1e-4)
    np.testing.assert_allclose(fullness, [50.897102, 51.550518], rtol=1e-4)


def test_pieces_make_no_difference(two_stems, monkeypatch):
    names = [name for name in METRICS if name[0] != "c"]  # BSSEval's pieces are tested elsewhere
    whole = {name: METRICS[name](compare(*two_stems)) for name in names}
    monkeypatch.setattr(checks, "_CHUNK", 777)
    monkeypatch.setattr(spectral, "_CHUNK", 5 * 4096)
    monkeypatch.setattr(log_wmse_module, "FFT", 2**13)
    for name in names:
        pieces = METRICS[name](compare(*two_stems))
        torch.testing.assert_close(pieces, whole[name], rtol=1e-5, atol=1e-5)
