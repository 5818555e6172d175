"""Signals for the tests of metrics."""

import math

import pytest
import torch
from torch import Tensor

from separator.evaluation.metrics import Comparison


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tones(*pairs: tuple[float, float], length: int = 30001) -> Tensor:
    """Return the sum of sines of (frequency, amplitude), at 44100 Hz, in float64."""
    time = torch.arange(length, dtype=torch.float64) / 44100
    return sum((a * torch.sin(2 * math.pi * f * time + f) for f, a in pairs), torch.zeros(length))


@pytest.fixture
def two_stems() -> tuple[Tensor, Tensor]:
    """Two stems and estimates of them; their scores elsewhere are known."""
    voice = [tones((220, 0.3), (3000, 0.05)), tones((221, 0.2), (9000, 0.02))]
    drums = [tones((60, 0.4), (600, 0.1)), tones((61, 0.3), (12000, 0.04))]
    references = torch.stack([torch.stack(voice), torch.stack(drums)]).float()
    return references, 0.9 * references + 0.03 * references.flip(0)


def compare(references: Tensor, estimates: Tensor, **options) -> Comparison:
    return Comparison(references, estimates, references.sum(0), **options)
