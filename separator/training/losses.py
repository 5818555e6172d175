"""Distances between estimates and targets, `(batch, stems, channels, time)` each.

The functions are the definitions. `LossOptions` is what a recipe says of them, a weighted sum:

    loss:
      l1: 1.0                                        # only a weight
      multi_resolution_stft: {weight: 1.0, hop_length: 147}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, model_validator
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from typing_extensions import Self

from separator.schema import FROM_LIST, Count, Positive, Strict
from separator.training.spectral_losses import (
    WINDOWS,
    Norm,
    SpectrumPart,
    binary_mask_cross_entropy,
    l1_snr_time_and_frequency,
    log_wmse,
    multi_resolution_stft,
    spectral,
)

Distance = Callable[..., Tensor]


def l1(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute error.

    >>> float(l1(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])))
    1.5
    """
    return F.l1_loss(estimate, target)


def mse(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the mean square error.

    >>> float(mse(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])))
    2.5
    """
    return F.mse_loss(estimate, target)


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


def masked_mse(
    estimate: Tensor,
    target: Tensor,
    *,
    quantile: float = 0.95,
    unit: Literal["segment", "sample"] = "segment",
) -> Tensor:
    """Return the mean square error without the worst segments, or samples, of each stem.

    Where an error exceeds the `quantile` of the batch's errors in that stem, it counts as zero: it
    is more likely a wrong label or a bleeding microphone than the network's fault. At 1 this is
    `mse`.

    Reference: Kim, Lee and Jung (2023), Sound demixing challenge 2023 music demixing track
    technical report: TFC-TDF-UNet v3, arXiv 2306.09382; segments are left out there against wrong
    labels, samples against bleeding.
    """
    error = (estimate - target).square().transpose(0, 1)  # (stems, batch, channels, time)
    error = error.mean((2, 3)) if unit == "segment" else error.flatten(1)
    return (error * (error <= _quantile(error.detach(), quantile))).mean()


def _quantile(values: Tensor, quantile: float) -> Tensor:
    """Interpolate along the last axis, like `torch.quantile`, which takes 2^24 values at most."""
    place = quantile * (values.shape[-1] - 1)
    low, high = math.floor(place), math.ceil(place)
    ranked = values.sort(-1).values
    return torch.lerp(ranked[..., low, None], ranked[..., high, None], place - low)


def best_order(distance: Distance, estimates: Tensor, targets: Tensor, *given: Tensor) -> Tensor:
    """Return which estimate belongs to each target: `(batch, stems)`, a permutation per item.

    The sum of the stems' distances is minimal over all permutations (Hungarian algorithm), which
    makes any distance that is a mean over stems permutation-invariant:

        distance(reordered(estimates, best_order(distance, estimates, targets)), targets)

    `given` are more arguments of the distance, split along the batch as well.

    Reference: Kolbaek et al. (2017), Multi-talker speech separation with utterance-level
    permutation invariant training, arXiv 1703.06284.
    """
    stems = range(estimates.shape[1])
    order = []
    with torch.no_grad():
        items = (tensor.split(1) for tensor in (estimates, targets, *given))
        for e, t, *more in zip(*items, strict=True):
            rows = [
                torch.stack([distance(e[:, i : i + 1], t[:, j : j + 1], *more) for i in stems])
                for j in stems
            ]
            order.append(linear_sum_assignment(torch.stack(rows).cpu().numpy())[1])
    return torch.stack([torch.as_tensor(columns) for columns in order]).to(estimates.device)


def reordered(estimates: Tensor, order: Tensor) -> Tensor:
    """Return the estimates with their stems in the `order` (batch, stems) of each item."""
    return estimates[torch.arange(len(order), device=order.device)[:, None], order]


def _as_weight(value: Any) -> Any:
    """Let a number stand for the mapping that holds nothing but a weight."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"weight": value} if number else value


class Term(Strict):
    """Base of every part of the sum: its weight."""

    weight: Positive = 1.0


class Spectral(Term):
    """Choice of a distance of spectrograms, see `spectral`."""

    norm: Norm = "l1"
    part: SpectrumPart = "complex"
    n_fft: Count = 2048
    hop_length: Count = 512


class MultiResolutionSTFT(Term):
    """Choice of windows, see `multi_resolution_stft`."""

    windows: Annotated[tuple[Count, ...], FROM_LIST, Field(min_length=1)] = WINDOWS
    hop_length: Count = 147
    n_fft: Count = 2048


class L1SNR(Term):
    """Choice of the transform of `l1_snr_time_and_frequency`."""

    n_fft: Count = 2048
    hop_length: Count = 512
    eps: Positive = 1e-3


class MaskedMSE(Term):
    """Choice of what is left out, see `masked_mse`."""

    quantile: Annotated[float, Field(gt=0, le=1)] = 0.95
    unit: Literal["segment", "sample"] = "segment"


class BinaryMask(Term):
    """Choice of the transform of `binary_mask_cross_entropy`."""

    n_fft: Count = 2048
    hop_length: Count = 512
    eps: Positive = 1e-3


class NegativeSDR(Term):
    """Choice of the floor, see `negative_sdr`."""

    floor: Annotated[float, Field(ge=0)] = 0.03


#: Each term of a recipe's loss, under the key that names it.
TERMS: dict[str, Callable[..., Tensor]] = {
    "l1": l1,
    "mse": mse,
    "spectral": spectral,
    "multi_resolution_stft": multi_resolution_stft,
    "l1_snr": l1_snr_time_and_frequency,
    "masked_mse": masked_mse,
    "binary_mask": binary_mask_cross_entropy,
    "log_wmse": log_wmse,
    "negative_sdr": negative_sdr,
}


class LossOptions(Strict):
    """Weights of the terms of a loss; what is absent isn't computed.

    Attributes:
        unordered: whether stems come in no fixed order (several singers): each segment is scored
            with the order that suits it best.
    """

    l1: Annotated[Term | None, BeforeValidator(_as_weight)] = None
    mse: Annotated[Term | None, BeforeValidator(_as_weight)] = None
    spectral: Annotated[Spectral | None, BeforeValidator(_as_weight)] = None
    multi_resolution_stft: Annotated[MultiResolutionSTFT | None, BeforeValidator(_as_weight)] = None
    l1_snr: Annotated[L1SNR | None, BeforeValidator(_as_weight)] = None
    masked_mse: Annotated[MaskedMSE | None, BeforeValidator(_as_weight)] = None
    binary_mask: Annotated[BinaryMask | None, BeforeValidator(_as_weight)] = None
    log_wmse: Annotated[Term | None, BeforeValidator(_as_weight)] = None
    negative_sdr: Annotated[NegativeSDR | None, BeforeValidator(_as_weight)] = None
    unordered: bool = False

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.chosen:
            raise ValueError(f"a loss needs at least one of {', '.join(TERMS)}")
        return self

    @property
    def chosen(self) -> dict[str, Term]:
        """The terms that the recipe names."""
        return {name: term for name in TERMS if (term := getattr(self, name)) is not None}

    def terms(
        self, estimates: Tensor, targets: Tensor, mixture: Tensor, sample_rate: int = 44100
    ) -> dict[str, Tensor]:
        """Return each weighted term, a scalar; their sum is the loss.

        Shape:
            - estimates, targets: `(batch, stems, channels, time)`
            - mixture: `(batch, channels, time)`, what the network was given
        """

        def total(e: Tensor, t: Tensor, m: Tensor) -> Tensor:
            return torch.stack(list(self._terms(e, t, m, sample_rate).values())).sum()

        if self.unordered:
            estimates = reordered(estimates, best_order(total, estimates, targets, mixture))
        return self._terms(estimates, targets, mixture, sample_rate)

    def _terms(
        self, estimates: Tensor, targets: Tensor, mixture: Tensor, sample_rate: int
    ) -> dict[str, Tensor]:
        more: dict[str, dict[str, Any]] = {
            "binary_mask": {"mixture": mixture},
            "log_wmse": {"mixture": mixture, "sample_rate": sample_rate},
        }
        results = {}
        for name, term in self.chosen.items():
            parameters = {**term.model_dump(exclude={"weight"}), **more.get(name, {})}
            results[name] = term.weight * TERMS[name](estimates, targets, **parameters)
        return results
