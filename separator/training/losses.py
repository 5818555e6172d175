"""Distances between estimates and targets, `(batch, stems, channels, time)` each.

The functions are the definitions. `LossOptions` is what a recipe says of them, a weighted sum:

    loss:
      l1: 1.0                                        # only a weight
      multi_resolution_stft: {weight: 1.0, hop_length: 147}
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, model_validator
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from typing_extensions import Self

from separator.schema import Strict

Distance = Callable[[Tensor, Tensor], Tensor]
Norm = Literal["l1", "mse", "rmse"]

WINDOWS = (4096, 2048, 1024, 512, 256)  # samples, BS-RoFormer's


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

    Reference: Kim et al. (2023), Sound demixing challenge 2023 - TFC-TDF-UNet v3, arXiv 2306.09382,
    section 3; segments there for wrong labels, samples for bleeding.
    """
    error = (estimate - target).square().transpose(0, 1)  # (stems, batch, channels, time)
    error = error.mean((2, 3)) if unit == "segment" else error.flatten(1)
    limit = torch.quantile(error.detach(), quantile, dim=1, keepdim=True)
    return (error * (error <= limit)).mean()


def l1_snr(estimate: Tensor, target: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Return 10 log10 of the error's mean magnitude over the target's, as the mean over stems.

        10 log10((mean |estimate - target| + eps) / (mean |target| + eps))

    Means run over everything behind `(batch, stems)`. Complex signals are allowed.

    Reference: Watcharasupat et al. (2023), A generalized bandsplit neural network for cinematic
    audio source separation, arXiv 2309.02539, equation 11, normalized like the authors' code.

    >>> target = torch.ones(1, 1, 2, 100)
    >>> float(l1_snr(0.9 * target, target, eps=0.0).round(decimals=3))
    -10.0
    """
    error = (estimate - target).abs().flatten(2).mean(2) + eps  # (batch, stems)
    level = target.abs().flatten(2).mean(2) + eps
    return 10.0 * torch.log10(error / level).mean()


def l1_snr_time_and_frequency(
    estimate: Tensor,
    target: Tensor,
    *,
    n_fft: int = 2048,
    hop_length: int = 512,
    eps: float = 1e-3,
) -> Tensor:
    """Add the L1SNR of the waveforms and of the real and imaginary parts of their spectrograms.

    The spectrograms are divided by the square root of `n_fft`, so that `eps` means the same.

    Reference: as for `l1_snr`, equation 12.
    """
    a = spectrogram(estimate, n_fft, hop_length) * n_fft**-0.5
    b = spectrogram(target, n_fft, hop_length) * n_fft**-0.5
    parts = [(estimate, target), (a.real, b.real), (a.imag, b.imag)]
    return torch.stack([l1_snr(one, two, eps=eps) for one, two in parts]).sum()


def spectrogram(
    signal: Tensor, n_fft: int, hop_length: int, win_length: int | None = None
) -> Tensor:
    """Return complex spectrograms `(..., freq, frames)` of `(..., time)`, Hann window, centred.

    A loss never goes back to the waveform, so a hop may be longer than half a window here, unlike
    in `separator.stft`. Double precision stays, half precision becomes single.
    """
    win_length = win_length or n_fft
    with torch.autocast(signal.device.type, enabled=False):
        flat = signal.flatten(0, -2)
        flat = flat if flat.dtype == torch.float64 else flat.float()
        # reflecting the edges takes more samples than it adds
        flat = F.pad(flat, (0, max(0, n_fft // 2 + 1 - flat.shape[-1])))
        window = _window(win_length, flat.dtype, flat.device)
        result = torch.stft(flat, n_fft, hop_length, win_length, window, return_complex=True)
    return result.view(*signal.shape[:-1], *result.shape[-2:])


@functools.cache
def _window(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Keep windows on their device: making one anew would wait for a copy at every step."""
    return torch.hann_window(length, dtype=dtype, device=device)


def spectral(
    estimate: Tensor,
    target: Tensor,
    *,
    norm: Norm = "l1",
    part: Literal["complex", "magnitude"] = "complex",
    n_fft: int = 2048,
    hop_length: int = 512,
) -> Tensor:
    """Return the distance of the spectrograms, as complex numbers or as magnitudes.

    `l1` adds the mean absolute errors of real and imaginary part (BSRNN, arXiv 2209.15174),
    `mse` is the mean of the squared moduli, `rmse` the root of that for each stem on its own, as
    the mean over the stems (SCNet, arXiv 2401.13276). Magnitudes: Open-Unmix, with `mse`.
    Spectrograms are divided by the square root of `n_fft`, which makes `mse` comparable with that
    of the waveforms.
    """
    a = spectrogram(estimate, n_fft, hop_length) * n_fft**-0.5
    b = spectrogram(target, n_fft, hop_length) * n_fft**-0.5
    error = a.abs() - b.abs() if part == "magnitude" else torch.view_as_real(a - b)
    axis = error.ndim - 1
    if norm == "l1":
        return error.abs().mean() if part == "magnitude" else error.abs().sum(axis).mean()
    square = error.square() if part == "magnitude" else error.square().sum(axis)
    if norm == "mse":
        return square.mean()
    by_stem = square.transpose(0, 1).flatten(1).mean(1)  # (stems,)
    # the root's slope at zero is infinite; a stem's error below -120 dB needs no more training
    return by_stem.clamp_min(1e-12).sqrt().mean()


def multi_resolution_stft(
    estimate: Tensor,
    target: Tensor,
    *,
    windows: Sequence[int] = WINDOWS,
    hop_length: int = 147,
    n_fft: int = 2048,
) -> Tensor:
    """Add the mean moduli of the complex spectrograms' differences at several resolutions.

    Windows shorter than `n_fft` samples are padded with zeros to it. Nothing is normalized: a long
    window weighs more.

    Reference: Lu et al. (2023), Music source separation with band-split RoPE transformer, arXiv
    2309.02612, section 3.4, with the transform sizes of the public implementation.
    """
    error = estimate - target  # the transform is linear: one is enough
    distances = [
        spectrogram(error, max(n_fft, window), hop_length, window).abs().mean()
        for window in windows
    ]
    return torch.stack(distances).sum()


def binary_mask_cross_entropy(
    estimate: Tensor,
    target: Tensor,
    *,
    n_fft: int = 2048,
    hop_length: int = 512,
    eps: float = 1e-3,
) -> Tensor:
    """Return the cross entropy in nats between shares of magnitude and ideal binary masks.

    A stem's ideal mask is one where its target is louder than the other stems' targets together,
    as in Wang (2005), On ideal binary mask as the computational goal of auditory scene analysis.
    The probability is the stem's share of the estimates' magnitudes. `eps`, a magnitude (of
    spectrograms divided by the square root of `n_fft`), is added to each stem, so that silence
    is undecided: log 2 for two stems.
    """
    loud = spectrogram(target, n_fft, hop_length).abs() * n_fft**-0.5
    ideal = (loud > loud.sum(1, keepdim=True) - loud).to(loud.dtype)
    magnitude = spectrogram(estimate, n_fft, hop_length).abs() * n_fft**-0.5 + eps
    share = magnitude / magnitude.sum(1, keepdim=True)
    with torch.autocast(share.device.type, enabled=False):
        return F.binary_cross_entropy(share, ideal)


def best_order(distance: Distance, estimates: Tensor, targets: Tensor) -> Tensor:
    """Return which estimate belongs to each target: `(batch, stems)`, a permutation per item.

    The sum of the stems' distances is minimal over all permutations (Hungarian algorithm), which
    makes any distance that is a mean over stems permutation-invariant:

        distance(reordered(estimates, best_order(distance, estimates, targets)), targets)

    Reference: Kolbaek et al. (2017), Multi-talker speech separation with utterance-level
    permutation invariant training, arXiv 1703.06284.
    """
    stems = range(estimates.shape[1])
    order = []
    with torch.no_grad():
        for e, t in zip(estimates.split(1), targets.split(1), strict=True):
            rows = [
                torch.stack([distance(e[:, i : i + 1], t[:, j : j + 1]) for i in stems])
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


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Count = Annotated[int, Field(gt=0)]


class Term(Strict):
    """Hold what every part of the sum has: its weight."""

    weight: Annotated[float, Field(gt=0)] = 1.0


class Spectral(Term):
    """Choose a distance of spectrograms, see `spectral`."""

    norm: Norm = "l1"
    part: Literal["complex", "magnitude"] = "complex"
    n_fft: Count = 2048
    hop_length: Count = 512


class MultiResolutionSTFT(Term):
    """Choose the windows, see `multi_resolution_stft`."""

    windows: Annotated[tuple[Count, ...], BeforeValidator(_as_tuple), Field(min_length=1)] = WINDOWS
    hop_length: Count = 147
    n_fft: Count = 2048


class L1SNR(Term):
    """Choose the transform of `l1_snr_time_and_frequency`."""

    n_fft: Count = 2048
    hop_length: Count = 512
    eps: Annotated[float, Field(gt=0)] = 1e-3


class MaskedMSE(Term):
    """Choose what is left out, see `masked_mse`."""

    quantile: Annotated[float, Field(gt=0, le=1)] = 0.95
    unit: Literal["segment", "sample"] = "segment"


class BinaryMask(Term):
    """Choose the transform of `binary_mask_cross_entropy`."""

    n_fft: Count = 2048
    hop_length: Count = 512
    eps: Annotated[float, Field(gt=0)] = 1e-3


class NegativeSDR(Term):
    """Choose the floor, see `negative_sdr`."""

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
    "negative_sdr": negative_sdr,
}


class LossOptions(Strict):
    """Weigh the terms of a loss; what is absent isn't computed.

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
    negative_sdr: Annotated[NegativeSDR | None, BeforeValidator(_as_weight)] = None
    unordered: bool = False

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.chosen:
            raise ValueError(f"a loss needs at least one of {', '.join(TERMS)}")
        if self.unordered and self.binary_mask:
            raise ValueError("'binary_mask' compares all stems at once and needs them in order")
        return self

    @property
    def chosen(self) -> dict[str, Term]:
        """The terms that the recipe names."""
        return {name: term for name in TERMS if (term := getattr(self, name)) is not None}

    def terms(self, estimates: Tensor, targets: Tensor, mixture: Tensor) -> dict[str, Tensor]:
        """Return each weighted term, a scalar; their sum is the loss.

        Shape:
            - estimates, targets: `(batch, stems, channels, time)`
            - mixture: `(batch, channels, time)`, what the network was given
        """
        if self.unordered:
            estimates = reordered(estimates, best_order(self._total, estimates, targets))
        return self._terms(estimates, targets)

    def _terms(self, estimates: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {
            name: term.weight * TERMS[name](estimates, targets, **_parameters(term))
            for name, term in self.chosen.items()
        }

    def _total(self, estimates: Tensor, targets: Tensor) -> Tensor:
        return torch.stack(list(self._terms(estimates, targets).values())).sum()


def _parameters(term: Term) -> dict[str, Any]:
    return term.model_dump(exclude={"weight"})
