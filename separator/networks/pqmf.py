"""Pseudo quadrature mirror filters: split a signal into equal sub-bands, each at a lower rate.

The sub-bands together have as many samples as the signal, and their synthesis restores it, but for
an error of -64 dB with four sub-bands (-49 with two, -54 with eight). A checkpoint may bring other
filters.

Reference: Nguyen, "Near-perfect-reconstruction pseudo-QMF banks", 1994; Lin and Vaidyanathan, "A
Kaiser window approach for the design of prototype filters of cosine modulated filterbanks", 1998.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Filter(nn.Module):
    """Fixed coefficients of a convolution, under the key that a convolution's weight has."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.register_buffer("weight", weight)


class PQMF(nn.Module):
    """Analysis of signals into sub-bands, and their synthesis.

    Shape:
        - signal: `(batch, channels, time)`, `time` divisible by the number of sub-bands
        - sub-bands: `(batch, channels * subbands, time / subbands + extra)`; the few extra samples
          hold what the filters spread over the end

    >>> pqmf = PQMF(4)
    >>> signal = torch.randn(1, 2, 1000)
    >>> subbands = pqmf.analysis(signal)
    >>> tuple(subbands.shape)
    (1, 8, 266)
    >>> error = pqmf.synthesis(subbands) - signal
    >>> bool(20 * torch.log10(error.norm() / signal.norm()) < -60)
    True
    """

    def __init__(self, subbands: int, taps_per_band: int = 16) -> None:
        super().__init__()
        self.subbands = subbands
        self.taps = subbands * taps_per_band
        bank = cosine_bank(subbands, self.taps)
        polyphase = bank.flip(-1).view(subbands, taps_per_band, subbands)
        self.ana_conv_filter = Filter(bank.unsqueeze(1))
        self.syn_conv_filter = Filter(polyphase.flip(-1).permute(2, 0, 1).contiguous())

    def analysis(self, signal: Tensor) -> Tensor:
        """Return the sub-bands of every channel, low to high."""
        batch, channels, _ = signal.shape
        padded = F.pad(
            signal.reshape(batch * channels, 1, -1), (self.taps - self.subbands, self.taps)
        )
        bands = F.conv1d(padded, self.ana_conv_filter.weight, stride=self.subbands)
        return bands.view(batch, channels * self.subbands, -1)

    def synthesis(self, bands: Tensor) -> Tensor:
        """Return the signals whose sub-bands these are."""
        batch, _, frames = bands.shape
        extended = F.pad(bands, (0, self.taps // self.subbands - 1))
        phases = F.conv1d(
            extended.reshape(-1, self.subbands, extended.shape[-1]), self.syn_conv_filter.weight
        )
        signal: Tensor = phases.transpose(1, 2).reshape(batch, -1, frames * self.subbands)
        return signal[..., : -self.taps]


def cosine_bank(subbands: int, taps: int) -> Tensor:
    """Return `(subbands, taps)` filters whose shifts by `subbands` samples are nearly orthonormal.

    A low-pass with a Kaiser window, its cut-off chosen for the best reconstruction with sixteen
    taps per sub-band, is modulated by cosines.
    """
    time = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    cutoff = 0.141739366 * 4 / subbands
    window = torch.kaiser_window(taps, periodic=False, beta=9.0, dtype=torch.float64)
    low_pass = cutoff * torch.sinc(cutoff * time) * window
    band = torch.arange(subbands, dtype=torch.float64).unsqueeze(1)
    phase = math.pi / 4 * (-1) ** band
    modulation = torch.cos((2 * band + 1) * math.pi / (2 * subbands) * time + phase)
    bank: Tensor = 2 * math.sqrt(subbands) * low_pass * modulation
    return bank.float()
