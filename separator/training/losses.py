"""Distances between estimates and targets, `(batch, stems, channels, time)` each."""

import torch
from torch import Tensor


def negative_sdr(estimate: Tensor, target: Tensor, *, floor: float = 0.01) -> Tensor:
    """Return the mean over batch and stems of minus the SDR in dB, softened at low levels.

    Every stem counts alike, loud or quiet. `floor` (an RMS amplitude) is added to target and error:
    an error far below it gains nothing more, and a silent stem costs only what leaks into it.

    Reference: Le Roux et al. (2019), SDR - half-baked or well done?, arXiv 1811.02508, and the soft
    threshold of Wisdom et al. (2020), arXiv 2006.12701, equation 2.

    >>> target = torch.ones(1, 1, 2, 100)
    >>> float(negative_sdr(0.9 * target, target, floor=0.0).round(decimals=3))
    -20.0
    """
    error = (estimate - target).square().mean((2, 3)) + floor**2  # (batch, stems)
    power = target.square().mean((2, 3)) + floor**2
    return 10.0 * torch.log10(error / power).mean()
