"""From what a network predicts to the spectrograms of the stems.

Networks only predict; the functions here apply. They differ in what they can express:

    kind                        can change       an oracle reconstructs the stem
    magnitude ratio             magnitude <= 1   no: the phase stays the mixture's
    bounded complex             both, |m| < 1    no: stems louder than the mixture exist
    unbounded complex           both             wherever the mixture isn't zero
    decoupled, with a residual  both             everywhere but in the mixture's phase at zero
    complex as channels         everything       yes: it predicts the stem itself
    multi-channel Wiener        both, by place   (refines the estimates of all stems together)

Mixtures are complex `(batch, channels, freq, frames)`; masks, magnitudes and results have the
stems after the batch: `(batch, stems, channels, freq, frames)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from separator.errors import ConfigError


def as_channels(spectrogram: Tensor) -> Tensor:
    """Return real and imaginary parts as channels: `(batch, 2 * channels, freq, frames)`.

    >>> as_channels(torch.full((1, 2, 3, 4), 1 + 2j))[0, :, 0, 0].tolist()
    [1.0, 2.0, 1.0, 2.0]
    """
    return torch.view_as_real(spectrogram).permute(0, 1, 4, 2, 3).flatten(1, 2)


def from_channels(parts: Tensor, channels: int) -> Tensor:
    """Return the complex spectrograms in `(batch, stems * channels * 2, freq, frames)`."""
    batch, _, freq, frames = parts.shape
    pairs = parts.float().reshape(batch, -1, channels, 2, freq, frames).movedim(3, -1)
    return torch.view_as_complex(pairs.contiguous())


def apply_mask(mask: Tensor, mixture: Tensor) -> Tensor:
    """Multiply the mixture by real or complex masks, one per stem."""
    return mixture.unsqueeze(1) * mask


def ratio_mask(magnitudes: Tensor, power: float = 1.0) -> Tensor:
    """Return masks in [0, 1] that sum to one: each stem's share of all magnitudes ** power.

    Where all magnitudes are zero the stems share equally. A `power` of 2 is the single-channel
    Wiener filter.

    Reference: Liutkus and Badeau, "Generalized Wiener filtering with fractional power
    spectrograms", 2015.

    >>> ratio_mask(torch.tensor([3.0, 1.0, 0.0]).view(1, 3, 1, 1, 1)).flatten().tolist()
    [0.75, 0.25, 0.0]
    """
    loudest = magnitudes.amax(1, keepdim=True)
    shares = torch.where(loudest > 0, magnitudes / loudest, 1.0) ** power  # no overflow
    return shares / shares.sum(1, keepdim=True)


def power_share(magnitudes: Tensor, power: float = 2.0, eps: float = 1e-10) -> Tensor:
    """Return masks that sum to one: shares of all magnitudes ** power, equal ones in silence.

        (m^power + eps / stems) / (sum of m^power + eps)

    Unlike those of `ratio_mask` they depend on level, as Spleeter's do: what is far below
    sqrt(eps) counts as silence.

    >>> power_share(torch.tensor([2.0, 2.0, 0.0]).view(1, 3, 1, 1, 1)).flatten().round(decimals=6)
    tensor([0.5000, 0.5000, 0.0000])
    """
    powers = magnitudes**power
    return (powers + eps / powers.shape[1]) / (powers.sum(1, keepdim=True) + eps)


def mixture_phase(magnitudes: Tensor, mixture: Tensor) -> Tensor:
    """Give each stem's magnitude the phase of the mixture; zero where the mixture is zero."""
    return magnitudes * torch.sgn(mixture).unsqueeze(1)


def complex_mask(parts: Tensor, bound: float | None = None) -> Tensor:
    """Return a complex mask from its real and imaginary parts, `(..., 2)`.

    With a `bound`, magnitudes are squashed to at most `bound` by tanh while phases stay. A mask
    bounded by 1 can't make a bin louder, though sources that cancel in the mixture need that.

    Reference: Choi et al., "Phase-aware speech enhancement with deep complex U-Net", 2019, arXiv
    1903.03107, equations 5 to 7.
    """
    mask = torch.view_as_complex(parts.float().contiguous())
    if bound is None:
        return mask
    return bound * torch.tanh(mask.abs() / bound) * torch.sgn(mask)


def decoupled(parts: Tensor, mixture: Tensor) -> Tensor:
    """Estimate magnitude and phase apart, with a residual that lets magnitudes grow beyond 1.

        |S| = relu(sigmoid(m) |X| + q),   angle(S) = angle(X) + angle(tanh(re) + i tanh(im))

    Shape:
        - parts: `(batch, stems, channels, freq, frames, 4)`: m, re, im and q
        - mixture: `(batch, channels, freq, frames)`, complex

    Reference: Kong et al., "Decoupling magnitude and phase estimation with deep ResUNet for music
    source separation", 2021, arXiv 2109.05418, equations 10 to 15.
    """
    mask, real, imaginary, residual = parts.float().unbind(-1)
    mixture = mixture.unsqueeze(1)
    magnitude = torch.relu(mixture.abs() * mask.sigmoid() + residual)
    turn = torch.sgn(torch.complex(real.tanh(), imaginary.tanh()))
    return magnitude * torch.sgn(mixture) * turn


def with_residual(estimates: Tensor, mixture: Tensor) -> Tensor:
    """Append one stem, what the estimates leave of the mixture: spectrograms or waveforms."""
    return torch.cat([estimates, mixture.unsqueeze(1) - estimates.sum(1, keepdim=True)], dim=1)


def wiener(
    estimates: Tensor,
    mixture: Tensor,
    *,
    iterations: int = 1,
    segment_frames: int | None = 300,
    eps: float = 1e-10,
) -> Tensor:
    """Refine the estimates of all stems by the multi-channel Wiener filter.

    Each stem is a local Gaussian with a power per bin and frame and a covariance between the
    channels per bin; an iteration fits both to the estimates and filters the mixture with them.
    Noise of power sqrt(eps) per bin is filtered out, far below music in an STFT without scaling.
    Segments of frames are filtered on their own, so sources may move and memory stays flat; a
    stream that cuts at multiples of `segment_frames` gives the same result as the whole track.

    Shape:
        - estimates: `(batch, stems, channels, freq, frames)`, complex; at least two stems
        - mixture: `(batch, channels, freq, frames)`, complex

    Raises:
        ConfigError: Fewer than two stems, or a negative number of iterations.

    Reference: Nugraha, Liutkus and Vincent, "Multichannel audio source separation with deep neural
    networks", 2016, as in the packages norbert and open-unmix.
    """
    if iterations < 0:
        raise ConfigError(f"A Wiener filter takes 0 or more iterations; got {iterations}.")
    if estimates.shape[1] < 2:
        raise ConfigError(
            "A multi-channel Wiener filter weighs stems against each other; got "
            f"{estimates.shape[1]} stem. Separate another one or add the residual."
        )
    if not iterations:
        return estimates
    length = segment_frames or mixture.shape[-1]
    segments = [
        _refine(
            estimates[..., start : start + length],
            mixture[..., start : start + length],
            iterations,
            eps,
        )
        for start in range(0, mixture.shape[-1], length)
    ]
    return torch.cat(segments, dim=-1)


def _refine(estimates: Tensor, mixture: Tensor, iterations: int, eps: float) -> Tensor:
    """Iterate on one segment, scaled down so that `eps` means the same at any level.

    In double precision: channels that are almost alike (mono that went through a stereo codec)
    make covariances whose determinants single precision can't tell from zero.
    """
    device = "cpu" if mixture.device.type == "mps" else mixture.device  # that has no doubles
    peak = mixture.abs().amax((1, 2, 3), keepdim=True)
    scale = (peak / 10).clamp_min(1)
    y = (estimates / scale.unsqueeze(1)).to(device, torch.complex128)
    x = (mixture / scale).to(device, torch.complex128)
    for _ in range(iterations):
        y = _filter(y, x, eps)
    return y.to(estimates.device, estimates.dtype) * scale.unsqueeze(1)


def _filter(y: Tensor, x: Tensor, eps: float) -> Tensor:
    """Fit the Gaussians to the estimates `y` and return the expected stems given the mixture.

    v = mean over channels |y|^2,   R = sum_t y y^H / sum_t v,   y <- v R (sum_s v R)^-1 x
    """
    power = y.abs().square().mean(2)  # (batch, stems, freq, frames)
    covariance = torch.einsum("bscft,bsdft->bsfcd", y, y.conj())
    covariance = covariance / (eps + power.sum(-1))[..., None, None]
    model = torch.einsum("bsft,bsfcd->bcdft", power.to(y.dtype), covariance)
    noise = eps**0.5 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    white = _solve(model + noise[..., None, None], x)  # (batch, channels, freq, frames)
    located: Tensor = torch.einsum("bsfcd,bdft->bscft", covariance, white)
    return located * power.unsqueeze(2)


def _solve(matrix: Tensor, x: Tensor) -> Tensor:
    """Solve `matrix z = x` per bin: `(batch, channels, channels, ...)`, `(batch, channels, ...)`.

    Mono and stereo have closed forms, far faster than a general solver on many tiny systems.
    """
    channels = x.shape[1]
    if channels == 1:
        return x / matrix[:, 0]
    if channels == 2:
        a, b, c, d = matrix.flatten(1, 2).unbind(1)
        left, right = x.unbind(1)
        return torch.stack([d * left - b * right, a * right - c * left], 1) / (
            (a * d - b * c).unsqueeze(1)
        )
    solution: Tensor = torch.linalg.solve(matrix.permute(0, 3, 4, 1, 2), x.permute(0, 2, 3, 1))
    return solution.permute(0, 3, 1, 2)
