"""Where a token stands in its sequence, told to attention through its queries and keys.

Both ways make a score depend on the distance of two tokens alone. `prepare` returns a function of
queries and keys together, `(2, sequences, heads, length, dim_head)`, after which the dot product
of a query and a key is the score.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Positions = Literal["rotary", "polar"]


class _Frequencies(nn.Module):
    """Angular frequencies, in radians a token."""

    def __init__(self, name: str, count: int, theta: float) -> None:
        super().__init__()
        self.name = name
        self.register_buffer(name, theta ** -(torch.arange(count).float() / count))

    @property
    def values(self) -> Tensor:
        """The frequencies `(count,)`."""
        return self.get_buffer(self.name)

    def angles(self, length: int) -> Tensor:
        """Return the angles `(length, count)` of so many tokens."""
        positions = torch.arange(length, device=self.values.device, dtype=torch.float32)
        return positions[:, None] * self.values

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network to another device, but keep float32: angles grow with positions."""
        exact = self.values
        nn.Module._apply(self, fn, recurse)
        self.register_buffer(self.name, exact.to(self.values.device))
        return self


class RotaryEmbedding(_Frequencies):
    """Rotation of neighbouring features, as a point in the plane, the further the later.

    Reference: Su et al., "RoFormer: enhanced Transformer with rotary position embedding", 2021,
    arXiv 2104.09864, equation 15.
    """

    def __init__(self, dim_head: int, theta: float = 10_000.0) -> None:
        super().__init__("freqs", dim_head // 2, theta)

    def forward(self, length: int) -> Tensor:
        """Return the unit complex numbers `(length, dim_head / 2)` of each position."""
        return unit_numbers(self.angles(length))

    def prepare(self, length: int) -> Callable[[Tensor], Tensor]:
        """Return the function that turns queries and keys."""
        rotation = self(length)
        scale = (2 * rotation.shape[-1]) ** -0.5
        rotations = torch.stack([rotation * scale, rotation])[:, None, None]
        return lambda x: rotate(x, rotations)


class PolarEmbedding(_Frequencies):
    """Features as radii, and position, with a learned offset for keys, as their angle.

    What a feature is and where it stands no longer mix. Each feature becomes two.

    Reference: Gopalakrishnan et al., "Decoupling the 'what' and 'where' with polar coordinate
    positional embeddings", 2025, arXiv 2509.10534.
    """

    def __init__(self, heads: int, dim_head: int, theta: float = 10_000.0) -> None:
        super().__init__("inv_freqs", dim_head, theta)
        self.bias = nn.Parameter(torch.zeros(heads, dim_head))

    def forward(self, length: int) -> Tensor:
        """Return the unit complex numbers `(2, heads, length, dim_head)` for queries and keys."""
        queries = self.angles(length)
        keys = queries + self.bias.float().clamp(-2 * pi, 0)[:, None]
        return unit_numbers(torch.stack([queries.expand_as(keys), keys]))

    def prepare(self, length: int) -> Callable[[Tensor], Tensor]:
        """Return the function that places queries and keys; they get twice as many features."""
        points = torch.view_as_real(self(length))[:, None]
        scale = points.shape[-2] ** -0.5
        scales = torch.tensor([scale, 1.0], device=points.device).view(2, 1, 1, 1, 1, 1)
        points = points * scales  # (2, 1, heads, length, dim_head, 2)
        return lambda x: (F.softplus(x.float())[..., None] * points).flatten(-2).to(x.dtype)


def unit_numbers(angles: Tensor) -> Tensor:
    """Return the complex numbers of radius 1 at these angles."""
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Multiply neighbouring features of `(..., dim)`, as complex numbers, by `(..., dim / 2)`."""
    if torch.is_grad_enabled():  # a product in place would copy the gradient twice
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)
    exact = x.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    torch.view_as_complex(exact.unflatten(-1, (-1, 2))).mul_(rotation)
    return exact.to(x.dtype)
