"""uSDR of pieces, by which training and the page measure, is that of the whole song."""

from __future__ import annotations

import math

import pytest
import torch

from separator.evaluation.ratios import usdr
from separator.usdr import RunningUSDR


def running(references: torch.Tensor, estimates: torch.Tensor, size: int) -> torch.Tensor:
    score = RunningUSDR()
    for pieces in zip(references.split(size, -1), estimates.split(size, -1), strict=True):
        score.add(*pieces)
    return score.decibels()


def test_pieces_sum_to_the_whole() -> None:
    references, estimates = torch.randn(2, 3, 2, 1001, generator=torch.Generator().manual_seed(0))
    whole = usdr(references, estimates)
    torch.testing.assert_close(running(references, estimates, 77), whole, rtol=1e-12, atol=0)


def test_perfect_and_silent_stems() -> None:
    stem = torch.ones(1, 2, 50)
    # the energy is 100, and the constant stands for the error
    assert running(stem, stem, 10).item() == pytest.approx(10 * math.log10(100 / 1e-7))
    assert running(torch.zeros_like(stem), stem, 10).isnan().all()
    assert running(stem, 0.9 * stem, 10).item() == pytest.approx(20, abs=1e-5)
