"""Ratios of energies in the time domain: how loud a stem is against the error of its estimate.

Sums run over all channels and samples of a song, in float64 and in pieces, so that a long song
needs no more memory than its signals. Silent references score NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from separator.evaluation.checks import check_mixture, check_pair, chunks, without_silent
from separator.usdr import RunningUSDR


def usdr(references: Tensor, estimates: Tensor) -> Tensor:
    """Return the utterance SDR of whole songs in dB, as the MDX and SDX challenges rank by.

    Its definition, and what it is for silent references, is told in `separator.usdr`.

    Shape:
        references, estimates: `(stems, channels, time)`
        result: `(stems,)` in float64; NaN where the reference is silent

    Raises:
        AudioError: For shapes that differ or samples that are not finite

    >>> s = torch.ones(1, 2, 1000)
    >>> round(usdr(s, 0.9 * s).item(), 3)
    20.0
    """
    check_pair(references, estimates)
    running = RunningUSDR()
    for pieces in chunks(references, estimates):
        running.add(*pieces)
    return running.decibels()


def sdr_improvement(references: Tensor, estimates: Tensor, mixture: Tensor) -> Tensor:
    """Return by how many dB estimates have a higher uSDR than the mixture in their place.

    Shape:
        references, estimates: `(stems, channels, time)`
        mixture: `(channels, time)`
        result: `(stems,)` in float64; NaN where the reference is silent

    Raises:
        AudioError: For shapes that differ or samples that are not finite
    """
    check_mixture(mixture, references)
    return usdr(references, estimates) - usdr(references, mixture.expand_as(references))


def si_sdr(references: Tensor, estimates: Tensor) -> Tensor:
    """Return the scale-invariant SDR of whole songs in dB.

        10 log10 sum (a s)^2 / sum (a s - e)^2     with  a = sum s e / sum s^2

    One gain serves all channels, so that a wrong balance counts as an error. Means are not
    removed. A perfect estimate, at any gain, is infinite up to rounding; a silent one is NaN.

    Shape:
        references, estimates: `(stems, channels, time)`
        result: `(stems,)` in float64; NaN where the reference or the estimate is silent

    Raises:
        AudioError: For shapes that differ or samples that are not finite

    Reference: Le Roux et al., "SDR - half-baked or well done?", 2018, arXiv 1811.02508, eq. 3.
    """
    check_pair(references, estimates)
    signal, product = _zeros(references), _zeros(references)
    for s, e in chunks(references, estimates):
        signal += s.square().sum((-2, -1))
        product += (s * e).sum((-2, -1))
    gain = product / signal
    error = _zeros(references)
    for s, e in chunks(references, estimates):  # again: the difference of large sums would round
        error += (gain[:, None, None] * s - e).square().sum((-2, -1))
    return without_silent(_decibels(gain.square() * signal, error), references)


def frame_median(frames: Tensor) -> Tensor:
    """Return the median over frames of ratios in dB: of BSSEval's SDR, it is called cSDR.

    Frames that are NaN or infinite do not count, as in the files that museval writes. Without any
    other frame the result is NaN.

    Shape: `(stems, frames)` -> `(stems,)`

    Reference: Stoter, Liutkus and Ito, "The 2018 signal separation evaluation campaign", 2018,
    arXiv 1804.06267.

    >>> frame_median(torch.tensor([[1.0, torch.nan, 4.0, 2.0, 3.0, torch.inf]])).tolist()
    [2.5]
    """
    finite = frames.double().masked_fill(~frames.isfinite(), torch.nan)
    return finite.nanquantile(0.5, dim=-1)  # the mean of the two middle ones, unlike nanmedian


def _zeros(references: Tensor) -> Tensor:
    return torch.zeros(len(references), dtype=torch.float64, device=references.device)


def _decibels(signal: Tensor, error: Tensor) -> Tensor:
    return 10 * torch.log10(signal / error)
