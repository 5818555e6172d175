"""Distances of spectrograms, and of what an ear hears; for `separator.training.losses`.

Estimates and targets are `(batch, stems, channels, time)`. Gradients pass through all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from separator.spectral.hearing import INAUDIBLE, MIDDLE, ear_response
from separator.training.data.effects import resample
from separator.training.moduli import mean_modulus

Norm = Literal["l1", "mse", "rmse"]
SpectrumPart = Literal["complex", "magnitude"]

SILENT = 1e-10  # an RMS amplitude that nobody hears
WINDOWS = (4096, 2048, 1024, 512, 256)  # samples, BS-RoFormer's


def spectrogram(
    signal: Tensor, n_fft: int, hop_length: int, win_length: int | None = None
) -> Tensor:
    """Return complex spectrograms `(..., freq, frames)` of `(..., time)`, Hann window, centred.

    A loss never goes back to the waveform, so a hop may be longer than half a window here, unlike
    in `separator.spectral.stft`. Double precision stays, half precision becomes single.
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
    part: SpectrumPart = "complex",
    n_fft: int = 2048,
    hop_length: int = 512,
) -> Tensor:
    """Return the distance of the spectrograms, as complex numbers or as magnitudes.

    `l1` adds the mean absolute errors of real and imaginary part (BSRNN, arXiv 2209.15174),
    `mse` is the mean of the squared moduli, `rmse` the root of that for each stem of each segment
    on its own, as the mean over them (SCNet, arXiv 2401.13276, as in the authors' code).
    Magnitudes: Open-Unmix, with `mse`. Spectrograms are divided by the square root of `n_fft`,
    which makes `mse` comparable with that of the waveforms.
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
    each = square.flatten(2).mean(2)  # (batch, stems)
    # the root's slope at zero is infinite; a stem's error below -120 dB needs no more training
    return each.clamp_min(1e-12).sqrt().mean()


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
    2309.02612, with the transform sizes of the public implementation.
    """
    error = estimate - target  # the transform is linear: one is enough
    error = error if error.dtype == torch.float64 else error.float()
    distances = [mean_modulus(error, max(n_fft, window), hop_length, window) for window in windows]
    return torch.stack(distances).sum()


def binary_mask_cross_entropy(
    estimate: Tensor,
    target: Tensor,
    *,
    mixture: Tensor,
    n_fft: int = 2048,
    hop_length: int = 512,
    eps: float = 1e-3,
) -> Tensor:
    """Return the cross entropy in nats between shares of magnitude and ideal binary masks.

    A stem's ideal mask is one where its target is louder than the rest of the mixture, as in Wang
    (2005), On ideal binary mask as the computational goal of auditory scene analysis. Its
    probability is the estimate's magnitude over the sum of that and the magnitude of what the
    estimate leaves of the mixture. `eps`, a magnitude (of spectrograms divided by the square root
    of `n_fft`), is added to both, so that silence is undecided: log 2.

    Shape:
        - estimate, target: `(batch, stems, channels, time)`
        - mixture: `(batch, channels, time)`
    """
    whole, found, wanted = (
        spectrogram(signal, n_fft, hop_length) * n_fft**-0.5
        for signal in (mixture[:, None], estimate, target)
    )
    ideal = wanted.abs() > (whole - wanted).abs()
    odds = (found.abs() + eps).log() - ((whole - found).abs() + eps).log()
    return F.binary_cross_entropy_with_logits(odds, ideal.to(odds.dtype))


def log_wmse(
    estimate: Tensor, target: Tensor, *, mixture: Tensor, sample_rate: int = 44100
) -> Tensor:
    """Return minus the log-WMSE of each stem, as the mean: 4 ln(weighted error + 1e-8).

    The metric of `separator.evaluation.log_wmse` with a gradient: the error of each channel, as
    loud as an ear hears it, relative to the mixture. Stems that are silent count like others. A
    channel in which the mixture is silent, or 200 dB below full scale, has no error.

    Shape:
        - estimate, target: `(batch, stems, channels, time)`
        - mixture: `(batch, channels, time)`
    """
    loudness = _audible(mixture.detach(), sample_rate).square().mean(-1).sqrt()[:, None]
    error = _audible(estimate - target, sample_rate)  # (batch, stems, channels, time)
    error = error * (error.detach().abs() >= INAUDIBLE * loudness[..., None])
    sounds = loudness > SILENT  # its square divides
    square = error.square().mean(-1) / torch.where(sounds, loudness, 1.0).square()
    return 4.0 * torch.log(torch.where(sounds, square, 0.0) + 1e-8).mean()


def _audible(signal: Tensor, sample_rate: int) -> Tensor:
    """Return `(..., time)` at 44.1 kHz, filtered by the sensitivity of hearing."""
    with torch.autocast(signal.device.type, enabled=False):
        flat = signal if signal.dtype == torch.float64 else signal.float()
        flat = resample(flat, sample_rate / 44100)
        taps = ear_response().to(flat)
        size = next_fast_len(flat.shape[-1] + len(taps), real=True)
        spectrum = torch.fft.rfft(flat, size) * torch.fft.rfft(taps, size)
        filtered: Tensor = torch.fft.irfft(spectrum, size)
    return filtered[..., MIDDLE : MIDDLE + flat.shape[-1]]


def l1_snr(estimate: Tensor, target: Tensor, *, eps: float = 1e-3) -> Tensor:
    """Return 10 log10 of the error's mean magnitude over the target's, as the mean over stems.

        10 log10((mean |estimate - target| + eps) / (mean |target| + eps))

    Means run over everything behind `(batch, stems)`. Complex signals are allowed.

    Reference: Watcharasupat et al. (2023), A generalized bandsplit neural network for cinematic
    audio source separation, arXiv 2309.02539, with means instead of sums like the authors' code.

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

    Reference: as for `l1_snr`.
    """
    a = spectrogram(estimate, n_fft, hop_length) * n_fft**-0.5
    b = spectrogram(target, n_fft, hop_length) * n_fft**-0.5
    parts = [(estimate, target), (a.real, b.real), (a.imag, b.imag)]
    return torch.stack([l1_snr(one, two, eps=eps) for one, two in parts]).sum()
