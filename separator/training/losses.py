"""Distances between estimates and targets, `(batch, stems, channels, time)` each."""

import torch
from torch import Tensor


def spectrum(audio: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Return the complex spectrogram `(signals, freq, frames)` of `(..., time)`."""
    window = torch.hann_window(n_fft, device=audio.device)
    flat = audio.reshape(-1, audio.shape[-1])
    return torch.stft(flat, n_fft, hop_length, window=window, return_complex=True)


def log_l1(estimate: Tensor, target: Tensor, *, n_fft: int = 2048, floor: float = 1e-3) -> Tensor:
    """Return the mean log of each stem's absolute error, in time and in the complex spectrum.

    The log gives quiet stems the weight of loud ones, as a mean of SDRs does; `floor` (in units of
    amplitude) bounds what a stem that is nearly right, or silent, can still gain.

    Reference: after the L1SNR loss of Watcharasupat et al. (2023), arXiv 2309.02539.

    >>> float(log_l1(torch.zeros(1, 1, 2, 4096), torch.ones(1, 1, 2, 4096)).round(decimals=2))
    0.53
    """
    error = estimate - target
    wave = error.abs().mean((2, 3))  # (batch, stems)
    spectral = torch.view_as_real(spectrum(error, n_fft, n_fft // 2)).abs()
    scale = (2 / n_fft) ** 0.5
    spectral = scale * spectral.mean((1, 2, 3)).view(*error.shape[:3]).mean(2)
    return (torch.log(wave + floor) + torch.log(spectral + floor)).mean()
