"""The mel scale of the public Mel-Band RoFormers, and of metrics that hear in its bands."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def mel_filters(count: int, *, n_fft: int, sample_rate: int) -> npt.NDArray[np.float32]:
    """Return triangular filters on Slaney's mel scale, each of unit area in Hz.

    The scale is linear up to 1 kHz, 15 mel, and logarithmic above; the filters reach from zero to
    half the sample rate, each from the peak of the one before to that of the one after.

    Shape: `(count, n_fft // 2 + 1)`

    Reference: Slaney, "Auditory toolbox", version 2, Interval technical report 1998-010.
    """
    linear = 200 / 3  # Hz in a mel, below 1 kHz
    step = math.log(6.4) / 27  # logarithm of the ratio of frequencies one mel apart, above
    knee, high = 1000 / linear, sample_rate / 2000  # mel, kHz
    top = knee + math.log(high) / step if high >= 1 else 1000 * high / linear
    mels = np.linspace(0, top, count + 2)
    edges = np.where(mels < knee, linear * mels, 1000 * np.exp(step * (mels - knee)))  # Hz
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    filters = np.maximum(0, np.minimum(rise, fall)).astype(np.float32)
    scaled: npt.NDArray[np.float32] = (filters * area[:, None]).astype(np.float32)
    return scaled
