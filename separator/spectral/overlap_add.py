"""Weighted overlap-add: a sum of segments that hands out what no later segment can change."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def triangle(samples: int) -> Tensor:
    """Return symmetric triangular weights `(samples,)` in (0, 1], positive everywhere.

    >>> triangle(5)
    tensor([0.3333, 0.6667, 1.0000, 0.6667, 0.3333])
    """
    ramp = torch.arange(1, samples + 1, dtype=torch.float32, device="cpu")
    return torch.minimum(ramp, ramp.flip(0)) / math.ceil(samples / 2)


class OverlapAdd:
    """Sum of weighted segments that hands out what no later segment can change."""

    def __init__(self) -> None:
        self._start = 0
        self._sum: Tensor | None = None  # (..., time)
        self._total = torch.zeros(0, device="cpu")  # (time,): sum of the weights

    def add(self, start: int, estimate: Tensor, weights: Tensor) -> Tensor:
        """Add a segment that starts at sample `start`; return what lies before it, now final.

        Starts never go back. Shape: estimate `(..., time)`, weights `(time,)`, result
        `(..., ready)`.
        """
        if self._sum is None:
            self._begin(estimate)
        ready = self.take(start)
        weights = weights.to(estimate)
        self.add_sum(estimate * weights, weights)
        return ready

    def add_sum(self, estimates: Tensor, weights: Tensor) -> None:
        """Add a sum of weighted segments, and of their weights, where `take` has ended."""
        if self._sum is None:
            self._begin(estimates)
        assert self._sum is not None
        size = estimates.shape[-1]
        missing = max(0, size - self._sum.shape[-1])
        self._sum = F.pad(self._sum, (0, missing))
        self._total = F.pad(self._total, (0, missing))
        self._sum[..., :size] += estimates
        self._total[:size] += weights

    def take(self, end: int) -> Tensor:
        """Return what lies before sample `end` and hasn't been taken: the caller knows it final."""
        assert self._sum is not None
        samples = end - self._start
        ready = self._sum[..., :samples] / self._total[:samples]
        self._sum, self._total = self._sum[..., samples:], self._total[samples:]
        self._start += samples
        return ready.cpu()

    def finish(self) -> Tensor | None:
        """Return all that is left; None where nothing was added."""
        return None if self._sum is None else self.take(self._start + self._sum.shape[-1])

    def _begin(self, like: Tensor) -> None:
        self._sum = like.new_zeros(*like.shape[:-1], 0)
        self._total = like.new_zeros(0)
