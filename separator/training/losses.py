"""Distances between estimates and targets, `(batch, stems, channels, time)` each."""

import torch
from torch import Tensor


def negative_sdr(estimate: Tensor, target: Tensor, *, floor: float = 0.03) -> Tensor:
    """Return minus the SDR in dB of each stem over the whole batch, as the mean over the stems.

    The batch counts as one song: what leaks into a silent passage weighs as much as any other
    error of that energy. (Were every passage a song of its own, leaks into silence would cost so
    much that a stem which often rests is best left out.) `floor`, an RMS amplitude, is added to
    target and error, so that a batch in which a stem is silent throughout has a score too.

    Reference: Le Roux et al. (2019), SDR - half-baked or well done?, arXiv 1811.02508, and the soft
    threshold of Wisdom et al. (2020), arXiv 2006.12701, equation 2.

    >>> target = torch.ones(1, 1, 2, 100)
    >>> float(negative_sdr(0.9 * target, target, floor=0.0).round(decimals=3))
    -20.0
    """
    error = (estimate - target).square().mean((0, 2, 3)) + floor**2  # (stems,)
    power = target.square().mean((0, 2, 3)) + floor**2
    return 10.0 * torch.log10(error / power).mean()
