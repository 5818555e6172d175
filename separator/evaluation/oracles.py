"""Oracles: what separators of a kind could reach at best, for they know the true stems.

    estimates = ORACLES["irm1"](mixture, references)

A mask is ideal for a bin of the spectrogram and one channel at a time; the Wiener filter weighs
the channels together. What the references leave of the mixture counts as one more stem, so that
masks of a single stem make sense. All work some seconds at a time: a long song needs little more
memory than its stems.

Reference: Stoter, Liutkus and Ito, "The 2018 signal separation evaluation campaign", 2018, arXiv
1804.06267, whose oracles these are, except for the complex mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from separator.evaluation.checks import check_finite, check_mixture
from separator.spectral.frames import through_stft
from separator.spectral.masks import ratio_mask, wiener, with_residual

_N_FFT, _HOP = 4096, 1024
_FRAMES = 300  # during which a source stays where it is
_BLOCK = 2**18  # samples


@dataclass(frozen=True)
class Oracle:
    """A separator that is told the answer, within the limits of its kind.

    Call it with a mixture `(channels, time)` and references `(stems, channels, time)` for
    estimates of the references' shape.
    """

    name: str  # as it stands in tables
    function: Callable[[Tensor, Tensor], Tensor]
    definition: str  # one line

    def __call__(self, mixture: Tensor, references: Tensor) -> Tensor:
        """Return the estimates, in float32.

        Raises:
            AudioError: For shapes that don't belong together or samples that are not finite
        """
        check_mixture(mixture, references)
        check_finite("references", references)
        return self.function(mixture.detach().float(), references.detach().float())


def mixture_as_estimate(mixture: Tensor, references: Tensor) -> Tensor:
    """Return the mixture for every stem: what a separator starts from."""
    return mixture.expand_as(references)


def ideal_binary_mask(mixture: Tensor, references: Tensor, power: float = 1.0) -> Tensor:
    """Keep a bin where the stem has more than half of the mixture's magnitude ** power."""

    def estimate(x: Tensor, y: Tensor) -> Tensor:
        return x * (y.abs() ** power > 0.5 * x.abs() ** power)

    return _through_stft(mixture, references, estimate)


def ideal_ratio_mask(mixture: Tensor, references: Tensor, power: float = 1.0) -> Tensor:
    """Keep the stem's share of the sum of all stems' magnitude ** power.

    >>> references = torch.randn(4, 2, 10000)
    >>> estimates = ideal_ratio_mask(references.sum(0), references)
    >>> torch.allclose(estimates.sum(0), references.sum(0), atol=1e-4)
    True
    """

    def estimate(x: Tensor, y: Tensor) -> Tensor:
        magnitudes = with_residual(y[None], x[None]).abs()
        return x * ratio_mask(magnitudes, power)[0, :-1]

    return _through_stft(mixture, references, estimate)


def ideal_complex_mask(mixture: Tensor, references: Tensor, bound: float = 10.0) -> Tensor:
    """Multiply by stem / mixture, of which only the magnitude is cut, at the bound.

    Reference: Williamson et al., "Complex ratio masking for monaural speech separation", 2016,
    who bound the mask by 10 too, though by a tanh of its parts.
    """

    def estimate(x: Tensor, y: Tensor) -> Tensor:
        allowed = bound * x.abs()
        return y * torch.where(y.abs() > allowed, allowed / y.abs(), 1.0)

    return _through_stft(mixture, references, estimate)


def multichannel_wiener(mixture: Tensor, references: Tensor) -> Tensor:
    """Filter the mixture by the true powers of bins and the true covariances of channels."""

    def estimate(x: Tensor, y: Tensor) -> Tensor:
        stems = with_residual(y[None], x[None])
        return wiener(stems, x[None], segment_frames=None)[0, :-1]

    return _through_stft(mixture, references, estimate)


def _through_stft(
    mixture: Tensor, references: Tensor, estimate: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Estimate the spectrograms of stems, given the mixture's and their own.

    Shape: `(channels, freq, frames)`, `(stems, channels, freq, frames)` -> as the latter
    """

    def blocks() -> Iterator[Tensor]:
        for x, y in zip(mixture.split(_BLOCK, -1), references.split(_BLOCK, -1), strict=True):
            yield torch.cat([x[None], y])

    ready = through_stft(
        blocks(),
        lambda spectra: estimate(spectra[0], spectra[1:]),
        n_fft=_N_FFT,
        hop_length=_HOP,
        frames=_FRAMES,
    )
    return torch.cat(list(ready), dim=-1)


ORACLES: dict[str, Oracle] = {
    "mixture": Oracle("mixture", mixture_as_estimate, "the mixture in the place of each stem"),
    "ibm1": Oracle("IBM1", ideal_binary_mask, "binary mask: |stem| > |mixture| / 2"),
    "ibm2": Oracle(
        "IBM2", partial(ideal_binary_mask, power=2.0), "binary mask: |stem|^2 > |mixture|^2 / 2"
    ),
    "irm1": Oracle("IRM1", ideal_ratio_mask, "ratio mask: share of the magnitudes"),
    "irm2": Oracle("IRM2", partial(ideal_ratio_mask, power=2.0), "ratio mask: share of the powers"),
    "icm": Oracle("ICM", ideal_complex_mask, "complex mask: stem / mixture, at most 10"),
    "mwf": Oracle("MWF", multichannel_wiener, "multi-channel Wiener filter of the true stems"),
}
