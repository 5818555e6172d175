"""Utterance SDR: how close an estimate comes to its stem over a whole song, in dB.

    10 log10 (sum s^2 + 1e-7) / (sum (s - e)^2 + 1e-7)

The MDX and SDX challenges rank by it. The constant keeps the score of a perfect estimate finite; it
is far below audible energies. The challenges score silent stems too, by the constant alone; here
they are NaN.

Reference: Mitsufuji et al., "Music demixing challenge 2021", arXiv 2108.13559, equation 1; Fabbro
et al., "The sound demixing challenge 2023", arXiv 2308.06979.
"""

from __future__ import annotations

import torch
from torch import Tensor

_DELTA = 1e-7  # what the challenges add to both energies


def usdr_of(signal: Tensor, error: Tensor) -> Tensor:
    """Return the uSDR in dB of energies: of true stems, and of what estimates miss them by.

    >>> usdr_of(torch.tensor([1.0, 0.0]), torch.tensor([0.01, 1.0]))
    tensor([20.0000,     nan])
    """
    score = 10 * torch.log10((signal + _DELTA) / (error + _DELTA))
    return torch.where(signal > 0, score, torch.nan)


class RunningUSDR:
    """Energies of stems and of their estimates' errors, summed while pieces of a song arrive."""

    def __init__(self) -> None:
        self._signal = self._error = torch.zeros((), dtype=torch.float64)

    def add(self, references: Tensor, estimates: Tensor) -> None:
        """Add pieces `(..., channels, time)`; sums are float64."""
        true, found = references.double(), estimates.double()
        self._signal = self._signal + true.square().sum((-2, -1))
        self._error = self._error + (true - found).square().sum((-2, -1))

    def decibels(self) -> Tensor:
        """Return the scores so far, `(...)` in float64; NaN where the stem is silent."""
        return usdr_of(self._signal, self._error)
