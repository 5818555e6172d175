"""Mel filters: their closed form, and those that the public models were made with."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from separator.spectral.mel import mel_filters


def test_filters_are_triangles_of_unit_area() -> None:
    filters = mel_filters(40, n_fft=32768, sample_rate=44100)
    width = 44100 / 32768
    np.testing.assert_allclose(filters.sum(axis=1) * width, 1, rtol=1e-3)
    assert (filters.argmax(axis=1)[1:] > filters.argmax(axis=1)[:-1]).all()


def test_the_scale_is_linear_up_to_1_khz_and_logarithmic_above() -> None:
    # 44 filters up to 8 kHz are one mel apart: 45 = 15 + 27 log(8) / log(6.4), nearly
    peaks = mel_filters(44, n_fft=65536, sample_rate=16000).argmax(axis=1) * 16000 / 65536
    steps, ratios = np.diff(peaks[:14]), peaks[16:] / peaks[15:-1]
    np.testing.assert_allclose(steps, steps[0], atol=0.5)
    np.testing.assert_allclose(ratios, 6.4 ** (1 / 27), rtol=0.01)


@pytest.mark.parametrize("sample_rate", [1500, 8000, 22050, 44100, 96000])
@pytest.mark.parametrize(("n_fft", "count"), [(512, 24), (2048, 60), (2048, 80), (4096, 512)])
def test_filters_are_those_of_librosa(sample_rate: int, n_fft: int, count: int) -> None:
    mel = pytest.importorskip("librosa.filters").mel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty filters
        theirs = mel(sr=sample_rate, n_fft=n_fft, n_mels=count)
    ours = mel_filters(count, n_fft=n_fft, sample_rate=sample_rate)
    np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=0)
    assert ((ours > 0) == (theirs > 0)).all()
