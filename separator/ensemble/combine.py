"""Combine several estimates of the same stems; knows no architecture, no card and no file.

`combine` makes one estimate out of several, by one of four algorithms. All of them return an
estimate unchanged where all agree, and none depends on the order of the estimates. They take
signals and complex spectrograms alike, so "in the STFT domain" means: per bin.

    algorithm  of real samples               of complex bins
    mean       sum_m w_m x_m / sum_m w_m     the same; as the STFT is linear, the same signal
    median     the median                    medians of the real and of the imaginary parts
    min        the value nearest to zero     the bin of the smallest magnitude, with its phase
    max        the value farthest from zero  the bin of the largest magnitude, with its phase

Members that err independently are best averaged; a median ignores the one that is far off; `min`
keeps what all members hear (least bleeding), `max` what any of them hears (least lost).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from separator.errors import ConfigError, ModelError
from separator.spectral.masks import ratio_mask
from separator.words import nearest


def combine(
    estimates: Sequence[Tensor] | Tensor,
    algorithm: str = "mean",
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Make one estimate out of several of equal shape, real or complex.

    Args:
        estimates: At least one.
        algorithm: mean, median, min or max.
        weights: One per estimate, none negative, not all zero. Only the mean weighs; the others
            leave out estimates that weigh nothing.

    Raises:
        ConfigError: An unknown algorithm, or weights that aren't allowed.
        ModelError: No estimates, or some of another shape.

    >>> combine([torch.tensor([1.0, -4.0]), torch.tensor([2.0, 0.0])], "mean", [3, 1])
    tensor([ 1.2500, -3.0000])
    >>> combine([torch.tensor([1.0, -4.0]), torch.tensor([2.0, 0.0])], "max")
    tensor([ 2., -4.])
    """
    if algorithm not in ALGORITHMS:
        raise ConfigError(
            f"Unknown algorithm '{algorithm}'; allowed: {', '.join(ALGORITHMS)}."
            f"{nearest(algorithm, ALGORITHMS)}"
        )
    shapes = {tuple(estimate.shape) for estimate in estimates}
    if len(shapes) != 1:
        given = ", ".join(map(str, sorted(shapes))) or "none"
        raise ModelError(f"Estimates that are combined need one shape; got: {given}.")
    weights = check_weights([1.0] * len(estimates) if weights is None else weights)
    if len(weights) != len(estimates):
        raise ConfigError(f"There are {len(estimates)} estimates, but {len(weights)} weights.")
    chosen = [i for i, weight in enumerate(weights) if weight > 0]
    if len(chosen) == 1:
        return estimates[chosen[0]]
    return ALGORITHMS[algorithm](
        torch.stack([estimates[i] for i in chosen]), [weights[i] for i in chosen]
    )


def check_weights(weights: Sequence[float]) -> Sequence[float]:
    """Return weights that a mean can be made with.

    Raises:
        ConfigError: One is negative, or all are zero.
    """
    if any(not weight >= 0 for weight in weights):
        raise ConfigError(f"Weights can't be negative; got {', '.join(map(str, weights))}.")
    if not sum(weights) > 0:
        raise ConfigError("The weights sum to zero; at least one must be positive.")
    return weights


def _mean(estimates: Tensor, weights: Sequence[float]) -> Tensor:
    total = sum(weights)
    shares = [weight / total for weight in weights]
    # The offsets from one estimate, so that equal ones return themselves to the last bit.
    first, *others = estimates.unbind()
    return first + sum(
        share * (other - first) for share, other in zip(shares[1:], others, strict=True)
    )


def _median(estimates: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the marginal median; of an even number, the middle of the two in the middle.

    Sorting complex numbers themselves would order them by their real parts and let any imaginary
    part through.
    """
    if estimates.is_complex():
        parts = torch.view_as_real(estimates)
        return torch.view_as_complex(_median(parts, weights).contiguous())
    ordered = estimates.sort(0).values
    low, high = (len(ordered) - 1) // 2, len(ordered) // 2
    return ordered[low] + (ordered[high] - ordered[low]) / 2


def _min(estimates: Tensor, weights: Sequence[float]) -> Tensor:
    return _of_magnitude(estimates, estimates.abs().amin(0))


def _max(estimates: Tensor, weights: Sequence[float]) -> Tensor:
    return _of_magnitude(estimates, estimates.abs().amax(0))


def _of_magnitude(estimates: Tensor, magnitude: Tensor) -> Tensor:
    """Return the value of that magnitude; of several, the middle, so that no order matters."""
    chosen = (estimates.abs() == magnitude).unsqueeze(-1)
    parts = torch.view_as_real(estimates) if estimates.is_complex() else estimates.unsqueeze(-1)
    low = torch.where(chosen, parts, torch.inf).amin(0)
    high = torch.where(chosen, parts, -torch.inf).amax(0)
    middle = low + (high - low) / 2
    return torch.view_as_complex(middle) if estimates.is_complex() else middle.squeeze(-1)


ALGORITHMS: dict[str, Callable[[Tensor, Sequence[float]], Tensor]] = {
    "mean": _mean,
    "median": _median,
    "min": _min,
    "max": _max,
}


def make_consistent(estimates: Tensor, mixture: Tensor) -> Tensor:
    """Spread what the estimates leave of the mixture over them, each bin by their energies.

        S_j <- S_j + |S_j|^2 / sum_k |S_k|^2 (X - sum_k S_k)

    Afterwards the stems sum to the mixture; a silent stem stays silent unless all are.

    Shape:
        - estimates: `(batch, stems, channels, freq, frames)`, complex
        - mixture: `(batch, channels, freq, frames)`, complex

    Reference: Wisdom et al., "Differentiable consistency constraints for improved deep speech
    enhancement", 2018, arXiv 1811.08521, section 3.2 (weights by energy, here per bin).
    """
    missing = (mixture - estimates.sum(1)).unsqueeze(1)
    return estimates + ratio_mask(estimates.abs(), power=2.0) * missing


def fit_weights(errors: Tensor) -> Tensor:
    """Find the weights of the mean with the least squared error.

        minimize w' R w   where   w >= 0,  sum w = 1

    R holds the inner products of the members' errors, estimate minus target: as the weights sum to
    one, the error of the mean is the mean of the errors. Weights that sum to one keep equal
    estimates what they are, and levels too; free ones would turn every stem down a little.

    Solved exactly by non-negative least squares. Let R = A'A. For u = t w the expression
    |A u|^2 + (sum u - 1)^2 is smallest over t at q / (1 + q) with q = w' R w, which grows with q:
    the best u is a multiple of the best w.

    Shape: `(members, members) -> (members,)`, float64.

    Reference: Lawson and Hanson, "Solving least squares problems", 1974, chapter 23.

    >>> fit_weights(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    from scipy.optimize import nnls

    values, vectors = torch.linalg.eigh(errors.double())
    scale = values.max().clamp_min(torch.finfo(torch.float64).tiny)
    root = (values.clamp_min(0) / scale).sqrt().unsqueeze(1) * vectors.T  # R / scale = root' root
    rows = torch.cat([root, torch.ones(1, len(errors), dtype=torch.float64)])
    wanted = torch.zeros(len(rows), dtype=torch.float64)
    wanted[-1] = 1
    solution, _ = nnls(rows.numpy(), wanted.numpy())
    weights = torch.from_numpy(solution)
    return weights / weights.sum()
