from itertools import pairwise

import pytest
import torch
from librosa.filters import mel

from separator.errors import ConfigError
from separator.networks.filterbanks import STEPS, partition
from separator.spectral.bands import bin_indices, widths

SIZES = {"n_fft": 2048, "sample_rate": 44100}


@pytest.mark.parametrize("name", ["musical", "mel", "bark", "erb", *STEPS])
@pytest.mark.parametrize("count", [16, 64])
def test_the_weights_of_each_bin_sum_to_one(name, count):
    bands, weights = partition(name, count, **SIZES)
    total = torch.zeros(1025).index_add(0, bin_indices(bands), weights)
    silent = name in ("mel", "bark", "erb")
    torch.testing.assert_close(total[:1024], torch.ones(1024))
    assert total[1024].item() == pytest.approx(0 if silent else 1)
    assert weights.min() >= 0


@pytest.mark.parametrize("name", ["musical", "mel", "bark", "erb"])
def test_overlapping_bands_come_in_order_and_widen(name):
    bands, _ = partition(name, 24, **SIZES)
    assert len(bands) == 24 and bands[0][0] == 0
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(bands))
    assert widths(bands)[12] > 2 * widths(bands)[3]


def test_scales_agree_with_their_definitions():
    """Centres of the filters, in Hz, from published values of the scales."""

    def peak(name, count, band):
        bands, _ = partition(name, count, n_fft=16384, sample_rate=44100)
        start, stop = bands[band]
        return (start + stop) / 2 * 44100 / 16384

    # of 23 triangles up to 3923 mel (22,050 Hz) the sixth is at 981 mel, near 1000 mel = 1 kHz
    assert peak("mel", 23, 5) == pytest.approx(700 * (10 ** (3923 / 4 / 2595) - 1), rel=0.03)
    # of 41 triangles up to 42.4 ERB the 15th is at 15.1 ERB, near 1 kHz = 15.6 ERB
    assert peak("erb", 41, 14) == pytest.approx((10 ** (15.14 / 21.33) - 1) / 0.00437, rel=0.03)


def test_mel_bands_are_the_triangles_that_the_authors_took_from_librosa():
    wanted = torch.from_numpy(mel(sr=44100, n_fft=2048, n_mels=24, htk=True, norm=None))
    wanted[0, 0] = 1
    wanted /= wanted.sum(0).clamp_min(1e-12)
    bands, weights = partition("mel", 24, **SIZES)
    found = torch.zeros_like(wanted)
    for row, (start, stop), piece in zip(found, bands, weights.split(widths(bands)), strict=True):
        row[start:stop] = piece
    torch.testing.assert_close(found[:, :-1], wanted[:, :-1], atol=2e-5, rtol=0)


def test_bark_filters_reach_further_up_than_down():
    bands, _ = partition("bark", 25, n_fft=8192, sample_rate=44100)
    center = 6 * torch.asinh(torch.tensor(22050 / 600)) * 12 / 24  # of the middle band, in Bark
    start, stop = (6 * torch.asinh(torch.tensor(edge * 44100 / 8193 / 600)) for edge in bands[12])
    assert center - start == pytest.approx(1.3, abs=0.03)
    assert stop - center == pytest.approx(2.5, abs=0.03)


def test_bsrnn_bands_are_adjacent_and_end_at_round_frequencies():
    expected = {"vocals": 43, "drums": 60, "bass": 34, "other": 43}
    for stem, count in expected.items():
        bands, _ = partition(stem, 0, **SIZES)
        assert len(bands) == count, stem
        assert [stop for _, stop in bands[:-1]] == [start for start, _ in bands[1:]]
        edges = {edge for band in bands for edge in band}
        assert {round(hertz * 2048 / 44100) for hertz, _ in STEPS[stem]} <= edges
        assert bands[-1][1] == 1025


def test_bands_end_at_the_nyquist_frequency_of_any_rate():
    for rate in (8000, 16000, 48000):
        bands, _ = partition("vocals", 0, n_fft=512, sample_rate=rate)
        assert bands[0][0] == 0 and bands[-1][1] == 257 and min(widths(bands)) > 0


@pytest.mark.parametrize(
    ("name", "count", "n_fft", "word"),
    [("musial", 8, 512, "Did you mean 'musical'"), ("erb", 64, 256, "Use fewer bands")],
)
def test_refuses_what_does_not_fit(name, count, n_fft, word):
    with pytest.raises(ConfigError, match=word):
        partition(name, count, n_fft=n_fft, sample_rate=44100)
