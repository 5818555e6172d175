import numpy as np
import pytest
from conftest import make_signal

from separator.audio.resample import Resampler, resampled, resampled_length

RATES = [(48000, 44100), (44100, 48000), (8000, 44100), (192000, 44100), (44100, 11025)]


def resample(signal, rates, *, pieces=7, samples=None):
    return np.concatenate(list(resampled(np.array_split(signal, pieces, 1), *rates, samples)), 1)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("samples", [1, 2, 997, 4096, 50_001])
def test_there_and_back_gives_the_same_number_of_samples(rates, samples):
    signal = make_signal(samples)
    there = resample(signal, rates)
    assert there.shape == (2, resampled_length(samples, *rates))
    back = resample(there, rates[::-1], samples=samples)
    assert back.shape == signal.shape


@pytest.mark.parametrize("rates", RATES)
def test_an_impulse_stays_where_it_is(rates):
    second = np.zeros((1, rates[0]), np.float32)
    second[0, rates[0] // 2] = 1
    assert np.abs(resample(second, rates)).argmax() == rates[1] // 2


@pytest.mark.parametrize("rates", [(48000, 44100), (44100, 48000), (96000, 44100)])
def test_a_tone_keeps_level_and_phase_below_24_bits(rates):
    def tone(rate):
        return 0.5 * np.sin(2 * np.pi * 997 * np.arange(rate) / rate)[None].astype(np.float32)

    inner = slice(rates[1] // 10, -rates[1] // 10)
    error = resample(tone(rates[0]), rates)[:, inner] - tone(rates[1])[:, inner]
    assert np.abs(error).max() < 2**-22  # float32 arithmetic near 0.5


def test_what_the_lower_rate_cannot_hold_is_gone():
    time = np.arange(48000) / 48000
    ultrasound = np.sin(2 * np.pi * 23_500 * time)[None].astype(np.float32)
    assert np.abs(resample(ultrasound, (48000, 44100))[:, 4000:-4000]).max() < 1e-5


def test_blocks_do_not_matter():
    signal = make_signal(30_000)
    whole = resample(signal, (48000, 44100), pieces=1)
    np.testing.assert_array_equal(resample(signal, (48000, 44100), pieces=23), whole)


def test_the_end_is_interpolated_not_cut():
    constant = np.full((1, 48000), 0.5, np.float32)
    back = resample(resample(constant, (48000, 44100)), (44100, 48000), samples=48000)
    # the filter sees silence after the end, so it rings there, but no sample is missing
    assert np.abs(back[:, -3:]).min() > 0.1


def test_equal_rates_pass_untouched():
    block = make_signal(100)
    assert Resampler(44100, 44100, 2).process(block) is block
    assert resample(block, (44100, 44100), samples=90).shape == (2, 90)
    assert resample(block, (44100, 44100), samples=110).shape == (2, 110)
