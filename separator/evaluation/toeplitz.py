"""Solve block-Toeplitz least-squares systems in O(n^2) instead of O(n^3) operations.

The normal equations of a multichannel FIR filter hold one p x p block for each pair of delays,
and a block depends on the difference of its delays only:

    T = [ T_0   T_1'  T_2' ...
          T_1   T_0   T_1' ...
          T_2   T_1   T_0  ...
          ...                  ]

Hence T minus itself shifted by one block along the diagonal has rank 2 p: it is U U' - V V' for
two thin matrices. The block Schur algorithm keeps U and V alone. In each step U is the next block
column of the Cholesky factor; shifted down by a block, a hyperbolic rotation of the pair then
clears the top of V. In "mixed" form (the new V from the new U) the rotations are about as stable
as a Cholesky factorization, at a tenth of its work for 512 delays of 8 channels.

A ridge at the size of the rounding errors keeps the factorization alive on singular systems (equal
left and right channels, steep low-passes). Conjugate gradients with the exact T, preconditioned by
the factorization, remove its effect where T has something to say: each step costs two triangular
solves, and three or four do what ten plain refinements do. Stopped that early, they keep the
solution small where T is only noise.

Reference: Kailath and Sayed, "Displacement structure: theory and applications", SIAM Review 37(3),
1995, sections 4 and 7; Bojanczyk, Brent, Van Dooren and de Hoog, "A note on downdating the
Cholesky factorization", SIAM J. Sci. Stat. Comput. 8(3), 1987 (mixed rotations); Hestenes and
Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.fft import irfft, rfft
from torch.linalg import cholesky_ex, solve_triangular

_RIDGE = 0.25  # of the unknowns' number times the machine epsilon times the largest diagonal entry
_TOLERANCE = 1e-12  # stop when a step changes less than this share of the energy: the next is tiny
_MAX_STEPS = 4
_LEAST_CURVATURE = 0.1  # of a direction, below which it is made of rounding errors
_BLOCK = 16  # rows that are factorized at a time
_PANEL = 256  # rows that are solved for at a time: matrix products of that size use caches well


class _Factor(NamedTuple):
    """T = R' R with an upper triangular R."""

    panels: list[Tensor]  # (batch, rows, columns from the diagonal on): what is below it isn't set
    positive: bool  # whether T is


def solve_block_toeplitz(blocks: Tensor, rhs: Tensor) -> Tensor:
    """Solve `T x = rhs` for symmetric positive semi-definite block-Toeplitz matrices T.

    On a singular T, `rhs` must lie in its range (as correlations do); the solution is then one of
    many, and small.

    Shape:
        blocks: `(batch, delays, p, p)`, the first block column `T_0, T_1, ...` of each T
        rhs: `(batch, delays, p, columns)`
        output: as `rhs`

    >>> blocks = torch.tensor([2.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1)  # T = [2 1; 1 2]
    >>> x = solve_block_toeplitz(blocks, 3 * torch.ones(1, 2, 1, 1, dtype=torch.float64))
    >>> [round(value, 9) for value in x.flatten().tolist()]
    [1.0, 1.0]
    """
    spectrum = _circulant_spectrum(blocks)
    factor = _factorize_with_ridge(_group_delays(blocks))
    solution = _substitute(factor, rhs)
    tolerance = _TOLERANCE * _inner(rhs, solution)
    residual = rhs - _multiply(spectrum, solution)
    direction = torch.zeros_like(rhs)
    last = torch.ones_like(tolerance)
    for _ in range(_MAX_STEPS):
        step = _substitute(factor, residual)
        energy = _inner(residual, step)
        direction = step + energy / last * direction
        change = _multiply(spectrum, direction)
        curvature = _inner(direction, change)
        size = torch.where(curvature > _LEAST_CURVATURE * energy, energy / curvature, 1.0)
        solution = solution + size * direction
        if bool((energy <= tolerance).all()):
            break
        residual = residual - size * change
        last = energy.clamp_min(torch.finfo(energy.dtype).tiny)
    return solution


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(1, 2), keepdim=True)


def _group_delays(blocks: Tensor) -> Tensor:
    """Merge neighbouring delays into blocks of up to `_BLOCK` rows, which are faster to work on."""
    delays, size = blocks.shape[1:3]
    most = max(1, _BLOCK // size)
    group = max(count for count in range(1, most + 1) if delays % count == 0)
    two_sided = torch.cat([blocks[:, 1:group].flip(1).mT, blocks], dim=1)  # from delay 1 - group on
    first = torch.arange(group - 1, group - 1 + delays, group)[:, None, None]
    row, column = torch.arange(group)[:, None], torch.arange(group)
    grouped = two_sided[:, first + row - column]  # (batch, blocks, group, group, size, size)
    return grouped.transpose(-3, -2).flatten(-2).flatten(-3, -2)


def _factorize_with_ridge(blocks: Tensor) -> _Factor:
    """Factorize with the smallest of growing ridges on the diagonal that leaves T positive."""
    blocks = blocks.clone()
    diagonal = blocks[:, 0].diagonal(dim1=-2, dim2=-1)  # a view
    unknowns = blocks.shape[1] * blocks.shape[2]
    ridge = _RIDGE * unknowns * torch.finfo(blocks.dtype).eps * diagonal.amax(-1, keepdim=True)
    while True:
        diagonal += ridge
        factor = _factorize(blocks)
        if factor.positive:
            return factor
        ridge = 9 * ridge


def _factorize(blocks: Tensor) -> _Factor:
    batch, count, size = blocks.shape[:3]
    unknowns = count * size
    height = max(1, _PANEL // size) * size
    starts = range(0, unknowns, height)
    panels = [blocks.new_empty(batch, min(height, unknowns - i), unknowns - i) for i in starts]
    identity = torch.eye(size, dtype=blocks.dtype, device=blocks.device).expand(batch, -1, -1)
    first_row = blocks.permute(0, 3, 1, 2).flatten(2)  # (batch, size, unknowns)
    corner, info = cholesky_ex(blocks[:, 0])
    u = solve_triangular(corner, first_row, upper=False)
    v = u[:, :, size:]
    panels[0][:, :size] = u
    infos = [info]
    for start in range(size, unknowns, size):
        u = u[:, :, :-size]
        corner = u[:, :, :size].mT
        ratio = solve_triangular(corner, v[:, :, :size].mT, upper=False)
        left, left_info = cholesky_ex(identity - ratio @ ratio.mT)
        right, right_info = cholesky_ex(identity - ratio.mT @ ratio)
        inverse = solve_triangular(left, identity, upper=False)  # small, and products are fast
        cross = inverse @ ratio @ right
        u = inverse @ torch.baddbmm(u, ratio, v, alpha=-1)
        v = torch.baddbmm(right.mT @ v[:, :, size:], cross.mT, u[:, :, size:], alpha=-1)
        panel, row = divmod(start, height)
        panels[panel][:, row : row + size, row:] = u
        infos += [left_info, right_info]
    return _Factor(panels, not bool(torch.stack(infos).any()))


def _substitute(factor: _Factor, rhs: Tensor) -> Tensor:
    x = rhs.flatten(1, 2).mT.clone(memory_format=torch.contiguous_format)  # (batch, columns, n)
    for panel in factor.panels:
        rows, left = panel.shape[1:]
        square, rest = panel.split((rows, left - rows), dim=2)
        here, after = x[:, :, -left:].split((rows, left - rows), dim=2)  # views
        here.copy_(solve_triangular(square, here, upper=True, left=False))
        after.baddbmm_(here, rest, alpha=-1)
    for panel in reversed(factor.panels):
        rows, left = panel.shape[1:]
        square, rest = panel.split((rows, left - rows), dim=2)
        here, after = x[:, :, -left:].split((rows, left - rows), dim=2)
        here.baddbmm_(after, rest.mT, alpha=-1)
        here.copy_(solve_triangular(square.mT, here, upper=False, left=False))
    return x.mT.reshape(rhs.shape)


def _circulant_spectrum(blocks: Tensor) -> Tensor:
    """Return the spectrum, (batch, bins, p, p), of the circulant matrix that embeds T."""
    gap = torch.zeros_like(blocks[:, :1])
    spectrum: Tensor = rfft(torch.cat([blocks, gap, blocks[:, 1:].flip(1).mT], dim=1), dim=1)
    return spectrum


def _multiply(spectrum: Tensor, x: Tensor) -> Tensor:
    delays = x.shape[1]
    product: Tensor = irfft(spectrum @ rfft(x, n=2 * delays, dim=1), n=2 * delays, dim=1)
    return product[:, :delays]
