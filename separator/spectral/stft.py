"""The short-time Fourier transform: the front end of every spectrogram network.

Signals are real `(batch, channels, time)`, spectrograms complex `(batch, channels, freq, frames)`.
Both directions run in float32, under autocast too: half precision in a transform of thousands of
points costs more decibels than a network can win.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError

Window = Literal["hann"] | None
Padding = Literal["reflect", "constant"]


class STFT(nn.Module):
    """Transform of signals to spectrograms and back, exact, whatever their length.

    The defaults are the convention of the public RoFormers: periodic Hann window, frames centred
    on multiples of the hop, reflected edges, no scaling. `window=None` is rectangular;
    `normalized=True` divides by the square root of `n_fft`, as PyTorch does, `"window"` by the root
    of the window's energy, as torchaudio does; `pad_mode="constant"` puts zeros before and behind
    the signal.

    Shape:
        - signal: `(batch, channels, time)`, any `time >= 1`
        - spectrogram: `(batch, channels, n_fft // 2 + 1, 1 + extended(time) // hop_length)`

    >>> stft = STFT(n_fft=512, hop_length=100)
    >>> signal = torch.randn(1, 2, 1013)
    >>> spectrogram = stft(signal)
    >>> tuple(spectrogram.shape)
    (1, 2, 257, 11)
    >>> torch.allclose(stft.inverse(spectrogram, 1013), signal, atol=1e-5)
    True
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        win_length: int | None = None,
        *,
        window: Window = "hann",
        normalized: bool | Literal["window"] = False,
        pad_mode: Padding = "reflect",
    ) -> None:
        super().__init__()
        win_length = win_length or n_fft
        if not (1 <= hop_length <= 3 * win_length / 4 and win_length <= n_fft):
            raise ConfigError(
                "An STFT needs 1 <= hop_length <= 3 / 4 win_length and win_length <= n_fft; "
                f"got {hop_length}, {win_length} and {n_fft}."
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.normalized = normalized is True
        self.pad_mode = pad_mode
        values = torch.hann_window(win_length) if window == "hann" else torch.ones(win_length)
        self.window: Tensor
        self.register_buffer("window", values, persistent=False)
        self.by_window = normalized == "window"

    @property
    def bins(self) -> int:
        """Number of frequency bins."""
        return self.n_fft // 2 + 1

    def forward(self, signal: Tensor) -> Tensor:
        """Return the complex spectrogram of a real signal."""
        batch, channels, time = signal.shape
        with torch.autocast(signal.device.type, enabled=False):
            flat = signal.float().reshape(batch * channels, time)
            flat = F.pad(flat, (0, self.extended(time) - time))
            spectrogram = torch.stft(
                flat,
                self.n_fft,
                self.hop_length,
                self.window.numel(),
                self.window,
                center=True,
                pad_mode=self.pad_mode,
                normalized=self.normalized,
                return_complex=True,
            )
            if self.by_window:
                spectrogram /= self.window.norm()
        return spectrogram.view(batch, channels, *spectrogram.shape[1:])

    def extended(self, time: int) -> int:
        """Return to how many samples the signal is extended by zeros.

        Reflecting an edge takes more samples than it adds. And the last frame must not leave the
        end to the foot of its window, where the inverse divides by almost nothing: frames that
        overlap by less than three quarters get another one behind the end.
        """
        if 4 * self.hop_length > self.window.numel():
            time = -(-time // self.hop_length) * self.hop_length
        return max(time, self.n_fft // 2 + 1)

    def inverse(self, spectrogram: Tensor, length: int) -> Tensor:
        """Return the signal of exactly `length` samples; leading dimensions are free.

        Shape:
            - spectrogram: `(..., freq, frames)`, complex
            - result: `(..., length)`
        """
        with torch.autocast(spectrogram.device.type, enabled=False):
            flat = spectrogram.flatten(0, -3)
            signal = torch.istft(
                flat * self.window.norm() if self.by_window else flat,
                self.n_fft,
                self.hop_length,
                self.window.numel(),
                self.window,
                center=True,
                normalized=self.normalized,
                length=length,
            )
        return signal.view(*spectrogram.shape[:-2], length)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> STFT:
        """Follow the network to another device, but not to another type."""
        window = self.window
        nn.Module._apply(self, fn, recurse)
        self.window = window.to(self.window.device)
        return self
