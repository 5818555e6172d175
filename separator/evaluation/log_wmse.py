"""Log-WMSE: the error as loud as an ear hears it, against the loudness of the mixture.

Silent references have a score here: it tells how well the mixture was silenced.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import cos, pi, sin, sqrt, tan

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import fftshift, irfft, rfft

from separator.evaluation.checks import check_mixture, check_pair

_RATE = 44100  # Hz, at which the weighting filter is defined
_TAPS, MIDDLE = 4000, 1999  # of its impulse response
_FFT = 2**15
INAUDIBLE = 10 ** (-68 / 20)  # of the mixture's RMS
_EPS = 1e-8


def log_wmse(
    references: Tensor, estimates: Tensor, mixture: Tensor, sample_rate: int = 44100
) -> Tensor:
    """Return the log-WMSE: -4 ln(mean square of the weighted error + 1e-8), mean over channels.

    The error of each channel is filtered by the sensitivity of hearing and divided by the RMS of
    the mixture, filtered likewise; samples 68 dB below that count as zero. The best score is
    73.7. Other rates than 44100 Hz are resampled to it.

    Shape:
        references, estimates: `(stems, channels, time)`
        mixture: `(channels, time)`
        result: `(stems,)` in float64; NaN for a silent mixture. If only some of its channels are
            silent, these have the best score.

    Raises:
        AudioError: for shapes that differ or samples that are not finite

    Reference: Jordal, log-wmse-audio-quality 0.2.0, whose filter is after Fenton and Lee (2017).

    >>> mixture = torch.randn(1, 44100)  # a stem is silent, and its estimate is 20 dB too loud
    >>> round(log_wmse(torch.zeros(1, 1, 44100), 0.1 * mixture[None], mixture).item(), 2)
    18.42
    """
    check_pair(references, estimates)
    check_mixture(mixture, references)
    mixture = _resampled(mixture.detach(), sample_rate)
    loudness = _mean_square(mixture, gate=0.0).sqrt()
    if not bool(loudness.any()):
        return loudness.new_full((len(references),), torch.nan)
    scores = []
    for reference, estimate in zip(references.detach(), estimates.detach(), strict=True):
        error = _resampled(estimate - reference, sample_rate)
        square = _mean_square(error, gate=INAUDIBLE * loudness) / loudness.square()
        square = square.masked_fill(loudness == 0, 0.0)
        scores.append(-4 * (square + _EPS).log().mean())
    return torch.stack(scores)


def _mean_square(signal: Tensor, gate: Tensor | float) -> Tensor:
    """Return the mean square `(channels,)` of the weighted samples that are not below the gate."""
    gate = torch.as_tensor(gate, dtype=torch.float64, device=signal.device).expand(len(signal))
    total = torch.zeros(len(signal), dtype=torch.float64, device=signal.device)
    for samples in _weighted(signal):
        audible = samples.abs() >= gate[:, None]
        total += (samples.double().square() * audible).sum(-1)
    return total / signal.shape[-1]


def _weighted(signal: Tensor) -> Iterator[Tensor]:
    """Yield the filtered signal `(channels, time)` block by block: overlap-save."""
    length = signal.shape[-1]
    response = rfft(impulse_response().to(signal.device), n=_FFT)
    advance = _FFT - (_TAPS - 1)
    before = _TAPS - 1 - MIDDLE
    for start in range(0, length, advance):
        first = start - before
        piece = signal[..., max(0, first) : first + _FFT].float()
        left = max(0, -first)
        block = F.pad(piece, (left, _FFT - left - piece.shape[-1]))
        filtered: Tensor = irfft(rfft(block) * response, n=_FFT)
        yield filtered[..., _TAPS - 1 :][..., : length - start]


def _resampled(signal: Tensor, sample_rate: int) -> Tensor:
    if sample_rate == _RATE:
        return signal
    import soxr

    samples = soxr.resample(signal.float().cpu().numpy().T, sample_rate, _RATE, quality="HQ")
    return torch.from_numpy(samples.T).to(signal.device)


@lru_cache(maxsize=1)
def impulse_response() -> Tensor:
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
    return response[4096 - MIDDLE :][:_TAPS].float()


def _tan(frequency: float) -> float:
    return tan(pi * frequency / _RATE)


def _high_shelf(half: Tensor, frequency: float, *, gain_db: float, q: float) -> Tensor:
    a, turn = 10 ** (gain_db / 40), 2 * pi * frequency / _RATE
    c, s = cos(turn), 2 * sqrt(a) * sin(turn) / (2 * q)
    up, down = (a + 1) + (a - 1) * c, (a + 1) - (a - 1) * c
    above = a * (up + s), -2 * a * ((a - 1) + (a + 1) * c), a * (up - s)
    below = down + s, 2 * ((a - 1) - (a + 1) * c), down - s
    return _biquad(half, above, below)


def _peak(half: Tensor, frequency: float, *, gain_db: float, q: float) -> Tensor:
    a, turn = 10 ** (gain_db / 40), 2 * pi * frequency / _RATE
    c, alpha = -2 * cos(turn), sin(turn) / (2 * q)
    return _biquad(half, (1 + alpha * a, c, 1 - alpha * a), (1 + alpha / a, c, 1 - alpha / a))


def _biquad(half: Tensor, above: tuple[float, ...], below: tuple[float, ...]) -> Tensor:
    """Return the magnitude of a filter of the audio equalizer cookbook at half-angles."""

    def polynomial(b: tuple[float, ...]) -> Tensor:
        turns = torch.polar(torch.ones_like(half), -2 * half)
        return (b[0] + turns * (b[1] + turns * b[2])).abs()

    return polynomial(above) / polynomial(below)
