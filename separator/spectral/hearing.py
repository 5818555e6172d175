"""The sensitivity of hearing as a filter, by which errors are weighed."""

from __future__ import annotations

from functools import lru_cache
from math import cos, pi, sin, sqrt, tan

import torch
from torch import Tensor
from torch.fft import fftshift, irfft

RATE = 44100  # Hz, at which the weighting filter is defined
TAPS, MIDDLE = 4000, 1999  # of its impulse response
FFT = 2**15
INAUDIBLE = 10 ** (-68 / 20)  # of the mixture's RMS


@lru_cache(maxsize=1)
def ear_response() -> Tensor:
    """Return the zero-phase weighting filter, `(4000,)` with its middle at 1999.

    It samples the magnitude of four filters in a row. Like the original it does so at multiples
    of pi / 4097, while the inverse transform takes them for multiples of pi / 4096.
    """
    half = torch.arange(4097, dtype=torch.float64) * pi / 4097 / 2
    tangent = half.tan()
    magnitude = (
        _high_shelf(half, 1500, gain_db=5.0, q=1 / sqrt(2))
        * _peak(half, 500, gain_db=2.5, q=1.5 / sqrt(2))
        * (tangent**4 / (tangent**4 + _tan(120) ** 4)).sqrt()  # Butterworth, order 2
        / (1 + (tangent / _tan(10000)) ** 2)  # Butterworth of order 1, forwards and backwards
    )
    response: Tensor = fftshift(irfft(magnitude, n=8192))
    return response[4096 - MIDDLE :][:TAPS].float()


def _tan(frequency: float) -> float:
    return tan(pi * frequency / RATE)


def _high_shelf(half: Tensor, frequency: float, *, gain_db: float, q: float) -> Tensor:
    a, turn = 10 ** (gain_db / 40), 2 * pi * frequency / RATE
    c, s = cos(turn), 2 * sqrt(a) * sin(turn) / (2 * q)
    up, down = (a + 1) + (a - 1) * c, (a + 1) - (a - 1) * c
    above = a * (up + s), -2 * a * ((a - 1) + (a + 1) * c), a * (up - s)
    below = down + s, 2 * ((a - 1) - (a + 1) * c), down - s
    return _biquad(half, above, below)


def _peak(half: Tensor, frequency: float, *, gain_db: float, q: float) -> Tensor:
    a, turn = 10 ** (gain_db / 40), 2 * pi * frequency / RATE
    c, alpha = -2 * cos(turn), sin(turn) / (2 * q)
    return _biquad(half, (1 + alpha * a, c, 1 - alpha * a), (1 + alpha / a, c, 1 - alpha / a))


def _biquad(half: Tensor, above: tuple[float, ...], below: tuple[float, ...]) -> Tensor:
    """Return the magnitude of a filter of the audio equalizer cookbook at half-angles."""

    def polynomial(b: tuple[float, ...]) -> Tensor:
        turns = torch.polar(torch.ones_like(half), -2 * half)
        return (b[0] + turns * (b[1] + turns * b[2])).abs()

    return polynomial(above) / polynomial(below)
