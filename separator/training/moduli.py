"""Average the moduli of a spectrogram, and find the gradient of that along the way.

    rows of a signal -> frames -> rfft -> |.| -> mean
                                     \\
    gradient <- overlap-add <- irfft <- the unit numbers z / |z|

A loss on spectrograms with a small hop costs more than a small network: their values outnumber the
samples fifty times, and a gradient by automatic differentiation keeps several of them for every
window until it is asked for, then transforms complex numbers where real ones would do. Here a few
rows at a time go forth and back, in the cache on a processor, and only the gradient is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: How many numbers of a spectrogram are held at a time, at least those of one row.
_AT_ONCE = {"cpu": 2**20}
_ELSEWHERE = 2**26


def mean_modulus(signal: Tensor, n_fft: int, hop_length: int, win_length: int) -> Tensor:
    """Return the mean modulus of a signal's spectrogram, as a scalar.

    The spectrogram is that of `torch.stft`: Hann window in the middle of `n_fft` samples, centred
    frames, edges reflected. The gradient of a modulus at zero is zero; there is no second one.

    Shape:
        - signal: `(..., time)`, real

    >>> ones = torch.ones(1, 4096)  # 256 in the lowest bin, 128 in the next
    >>> round(float(257 * mean_modulus(ones, 512, 128, 512)), 2)
    384.0
    """
    rows = signal.reshape(-1, signal.shape[-1])
    # reflecting the edges takes more samples than it adds
    rows = F.pad(rows, (0, max(0, n_fft // 2 + 1 - rows.shape[-1])))
    middle = win_length + (n_fft - win_length) % 2
    before, after = n_fft // 2 - (n_fft - win_length) // 2, n_fft // 2 - (n_fft - middle) // 2
    frames = 1 + rows.shape[-1] // hop_length
    padded = F.pad(rows, (before, after), mode="reflect")
    mean: Callable[..., Tensor] = _MeanModulus.apply
    return mean(padded, n_fft, hop_length, win_length, frames)


class _MeanModulus(torch.autograd.Function):
    """The mean over rows, frames and bins, of rows `(rows, time)` with their edges reflected."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, n_fft: int, hop_length: int, win_length: int, frames: int
    ) -> Tensor:
        window = torch.hann_window(win_length, dtype=rows.dtype, device=rows.device)
        bins = n_fft // 2 + 1
        # The inverse counts the bins between the first and the last twice.
        shares = rows.new_full((bins,), 0.5 * n_fft)
        shares[0] = n_fft
        shares[-1] = n_fft if n_fft % 2 == 0 else 0.5 * n_fft
        at_once = max(1, _AT_ONCE.get(rows.device.type, _ELSEWHERE) // (frames * bins))
        smallest = torch.finfo(rows.dtype).tiny ** 0.5  # whose square is not zero
        total = rows.new_zeros(())
        gradients = []
        for piece in rows.split(at_once):
            cut = piece.unfold(1, win_length, hop_length)[:, :frames]
            spectrum = torch.fft.rfft(cut * window, n_fft)  # (rows, frames, bins)
            moduli = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).sqrt_()
            total += moduli.sum()
            if ctx.needs_input_grad[0]:
                units = spectrum.mul_(shares / moduli.clamp_min_(smallest))
                back = torch.fft.irfft(units, n_fft)[..., :win_length] * window
                used = (frames - 1) * hop_length + win_length
                gradient = torch.ops.aten.unfold_backward(
                    back, (len(piece), used), 1, win_length, hop_length
                )
                gradients.append(F.pad(gradient, (0, rows.shape[1] - used)))
        count = len(rows) * frames * bins
        if gradients:
            ctx.save_for_backward(torch.cat(gradients).div_(count))
        return total / count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradient, None, None, None, None
