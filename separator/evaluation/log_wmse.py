"""Log-WMSE: the error as loud as an ear hears it, against the loudness of the mixture.

Silent references have a score here: it tells how well the mixture was silenced.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import irfft, rfft

from separator.evaluation.checks import check_mixture, check_pair
from separator.spectral.hearing import FFT, INAUDIBLE, MIDDLE, RATE, TAPS, ear_response

_EPS = 1e-8


def log_wmse_score(
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
        AudioError: For shapes that differ or samples that are not finite

    Reference: Jordal, log-wmse-audio-quality 0.2.0, whose filter is after Fenton and Lee (2017).

    >>> mixture = torch.randn(1, 44100)  # a stem is silent, and its estimate is 20 dB too loud
    >>> round(log_wmse_score(torch.zeros(1, 1, 44100), 0.1 * mixture[None], mixture).item(), 2)
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
    response = rfft(ear_response().to(signal.device), n=FFT)
    advance = FFT - (TAPS - 1)
    before = TAPS - 1 - MIDDLE
    for start in range(0, length, advance):
        first = start - before
        piece = signal[..., max(0, first) : first + FFT].float()
        left = max(0, -first)
        block = F.pad(piece, (left, FFT - left - piece.shape[-1]))
        filtered: Tensor = irfft(rfft(block) * response, n=FFT)
        yield filtered[..., TAPS - 1 :][..., : length - start]


def _resampled(signal: Tensor, sample_rate: int) -> Tensor:
    if sample_rate == RATE:
        return signal
    import soxr

    samples = soxr.resample(signal.float().cpu().numpy().T, sample_rate, RATE, quality="HQ")
    return torch.from_numpy(samples.T).to(signal.device)
