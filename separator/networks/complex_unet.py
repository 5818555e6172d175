"""A U-Net that learns masks for many instruments at once: complex ones, or of the magnitude only.

    mixture -> STFT -> real and imaginary parts -> U-Net -> one mask per stem -> inverse

A complex mask turns the phase of the mixture, a magnitude mask keeps it, so that overlapping
instruments leave each other's phase in the estimates. The three kinds are one network but for
the number of outputs; `separator.spectral.masks` says what each can express.

Reference:
    Jansson et al., "Learned complex masks for multi-instrument source separation", 2021, arXiv
    2103.12864;
    Jansson et al., "Singing voice separation with deep U-Net convolutional networks", 2017 (the
    U-Net).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import Heads, hide_prefix
from separator.spectral.masks import apply_mask, as_channels, complex_mask
from separator.spectral.stft import STFT

Kind = Literal["complex", "bounded", "magnitude"]
#: How many numbers make the mask of one bin.
PARTS: dict[str, int] = {"complex": 2, "bounded": 2, "magnitude": 1}


class ComplexUNetCore(nn.Module):
    """Parts of the masks, from the spectrogram as real channels.

    Each scale halves both axes by 5x5 convolutions; the way back sees the same scales.

    Shape:
        - input: `(batch, inputs, freq, frames)`, both axes divisible by `2 ** scales`
        - output: `(batch, outputs, freq, frames)`
    """

    def __init__(
        self, inputs: int, outputs: int, *, scales: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        widths = [width * 2**scale for scale in range(scales)]
        self.input_norm = nn.BatchNorm2d(inputs)
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 5, 2, 2, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            )
            for before, after in pairwise([inputs, *widths])
        )
        incoming = [widths[-1], *(2 * outer for outer in widths[-2::-1])]
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(before, after, 5, 2, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Dropout(dropout if index < 3 else 0.0),
            )
            for index, (before, after) in enumerate(
                zip(incoming, [*widths[-2::-1], width], strict=True)
            )
        )
        self.heads = Heads(width + inputs, outputs, 1)

    def forward(self, x: Tensor, outputs: Sequence[int] | None = None) -> Tensor:
        """Return the chosen outputs (indices; all by default)."""
        x = self.input_norm(x.to(self.heads.weight.dtype))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up in self.up[:-1]:
            skip = skips.pop()
            x = torch.cat([up(x), skip], dim=1)
        x = torch.cat([self.up[-1](x), skips.pop()], dim=1)
        parts: Tensor = self.heads(x, outputs)
        return parts


class ComplexUNet(nn.Module):
    """U-Net with learned masks.

    Args:
        stems: names of the outputs, in the order of the last layer's channels.
        mask: "complex", free in magnitude and phase; "bounded", complex with magnitudes below
            `bound`; "magnitude", a gain between 0 and 1.
        bound: largest value of a bounded mask.
        scales: how often the U-Net halves the resolution.
        width: channels at the highest resolution; each scale has twice as many.
        dropout: dropout of the three innermost layers of the way back, in training.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: The kind of mask is unknown, its bound isn't positive, or the bins can't be
            halved at each scale.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        sample_rate: int = 44_100,
        channels: int = 2,
        n_fft: int = 2048,
        hop_length: int = 512,
        mask: Kind = "complex",
        bound: float = 1.0,
        scales: int = 6,
        width: int = 16,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if mask not in PARTS:
            raise ConfigError(f"'mask' must be one of {', '.join(PARTS)}; got '{mask}'.")
        if bound <= 0:
            raise ConfigError(f"The 'bound' of a mask must be positive; got {bound}.")
        if n_fft % 2 ** (scales + 1):
            raise ConfigError(
                f"The U-Net halves n_fft / 2 bins {scales} times; {n_fft} is no multiple of "
                f"{2 ** (scales + 1)}."
            )
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.mask = mask
        self.bound = bound
        self.multiple = 2**scales
        self.parts = channels * PARTS[mask]
        self.stft = STFT(n_fft, hop_length)
        self.core = ComplexUNetCore(
            2 * channels,
            self.parts * len(self.stems),
            scales=scales,
            width=width,
            dropout=dropout,
        )
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        spectrogram = self.stft(mixture)
        frames = spectrogram.shape[-1]
        features = as_channels(spectrogram[:, :, :-1])
        features = F.pad(features, (0, -frames % self.multiple))
        outputs = None
        if stems is not None:
            outputs = [stem * self.parts + part for stem in stems for part in range(self.parts)]
        parts = self.core(features, outputs)[..., :frames]
        parts = torch.cat([parts, parts[:, :, -1:]], dim=2)  # the highest bin's as its neighbour's
        return self.stft.inverse(apply_mask(self.masks(parts), spectrogram), mixture.shape[-1])

    def masks(self, parts: Tensor) -> Tensor:
        """Return the masks `(batch, stems, channels, freq, frames)` of the kind that was asked."""
        parts = parts.float().unflatten(1, (-1, self.channels, PARTS[self.mask]))
        if self.mask == "magnitude":
            return parts.squeeze(3).sigmoid()
        bound = self.bound if self.mask == "bounded" else None
        return complex_mask(parts.movedim(3, -1), bound)
