"""The pictures of a track: waveform and spectrogram."""

import numpy as np
import pytest
from conftest import make_signal

from separator.web.overview import BANDS, COLUMNS, overview

RATE = 44100


def test_the_waveform_shows_where_it_is_loud():
    signal = np.zeros((2, RATE * 4), np.float32)
    signal[:, RATE * 2 :] = 0.5
    pieces = np.array_split(signal, 37, axis=1)
    peaks = overview(pieces, signal.shape[1], RATE).peaks
    assert peaks.shape == (COLUMNS,)
    assert not peaks[: COLUMNS // 2].any()
    assert (peaks[COLUMNS // 2 :] == 128).all()


def test_the_spectrogram_shows_a_tone_at_its_height():
    time_axis = np.arange(RATE * 3) / RATE
    tone = np.sin(2 * np.pi * 1000 * time_axis).astype(np.float32)[None]
    picture = overview([tone], tone.shape[1], RATE).spectrogram
    assert picture.shape == (COLUMNS, BANDS)
    band = BANDS * np.log(1000 / 40) / np.log(16000 / 40)
    loudest = picture[100:-100].argmax(1)
    assert abs(loudest - band).max() < 2
    assert picture[100:-100].max(1).min() > 240  # full scale


def test_pictures_do_not_depend_on_how_the_stream_is_cut():
    signal = make_signal(RATE * 3, RATE)
    whole = overview([signal], signal.shape[1], RATE)
    cut = overview(np.array_split(signal, 53, axis=1), signal.shape[1], RATE)
    assert (whole.peaks == cut.peaks).all()
    assert (whole.spectrogram == cut.spectrogram).all()


@pytest.mark.parametrize("samples", [1, 7, 1201, 50_000])
def test_short_tracks_have_pictures_too(samples):
    view = overview([np.full((1, samples), 0.25, np.float32)], samples, RATE)
    assert (view.peaks == 64).all()
    assert len(view.peaks) == min(samples, COLUMNS)
