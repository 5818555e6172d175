"""TFC-TDF v2, the spectrogram stream of KUIELab's MDX-Net: one U-Net per stem.

    mixture -> STFT, lowest bins -> U-Net whose skip connections multiply -> inverse

A block is some 3x3 convolutions (TFC), then a bottleneck perceptron over all frequencies of one
frame and channel (TDF), added. The network predicts the stem's spectrogram itself, real and
imaginary parts as channels. The ONNX models of this family are such networks, too, see
`separator.networks.mdx_onnx`.

Parameter names and numbers are those of the authors' program (github.com/kuielab/mdx-net).

Reference:
    Kim et al., "KUIELab-MDX-Net: a two-stream neural network for music demixing", 2021, arXiv
    2111.12203;
    Choi et al., "Investigating U-Nets with various intermediate blocks for spectrogram-based
    singing voice separation", 2020, arXiv 1912.02591 (the blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import Heads, hide_prefix
from separator.networks.tfc_tdf import FreqLinear, MappedSpectrogram
from separator.spectral.stft import STFT


def normed(layer: nn.Module, channels: int) -> list[nn.Module]:
    """Follow a layer by batch normalisation and ReLU."""
    return [layer, nn.BatchNorm2d(channels), nn.ReLU()]


class Convolutions(nn.Module):
    """Convolutions in time and frequency, several in a row (TFC)."""

    def __init__(self, channels: int, kernel_size: int, count: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.H = nn.ModuleList(
            nn.Sequential(
                *normed(nn.Conv2d(channels, channels, kernel_size, padding=padding), channels)
            )
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, frames, freq)`."""
        for convolve in self.H:
            x = convolve(x)
        return x


class Block(nn.Module):
    """Convolutions, plus what a perceptron makes of each frame's frequencies (TFC-TDF)."""

    def __init__(
        self, channels: int, freq: int, *, kernel_size: int, convs: int, factor: int, bias: bool
    ) -> None:
        super().__init__()
        hidden = freq // factor
        self.tfc = Convolutions(channels, kernel_size, convs)
        self.tdf = nn.Sequential(
            *normed(FreqLinear(freq, hidden, bias=bias), channels),
            *normed(FreqLinear(hidden, freq, bias=bias), channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, frames, freq)`."""
        x = self.tfc(x)
        total: Tensor = x + self.tdf(x)
        return total


class TfcTdfV2Core(nn.Module):
    """Spectrograms of the stems from that of the mixture, both as real channels.

    Shape:
        - input: `(batch, inputs, freq, frames)`, both axes divisible by `2 ** scales`
        - output: `(batch, stems * inputs, freq, frames)`
    """

    def __init__(
        self, inputs: int, freq: int, *, stems: int, scales: int, width: int, **kind: Any
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.first_conv = nn.Sequential(*normed(nn.Conv2d(inputs, width, 1), width))
        self.encoding_blocks = nn.ModuleList()
        self.ds = nn.ModuleList()
        self.bottleneck_block = Block(width * (scales + 1), freq // 2**scales, **kind)
        self.us = nn.ModuleList()
        self.decoding_blocks = nn.ModuleList()
        for scale in range(scales):
            outer, inner = width * (scale + 1), width * (scale + 2)
            self.encoding_blocks.append(Block(outer, freq // 2**scale, **kind))
            self.ds.append(nn.Sequential(*normed(nn.Conv2d(outer, inner, 2, 2), inner)))
            self.us.insert(0, nn.Sequential(*normed(nn.ConvTranspose2d(inner, outer, 2, 2), outer)))
            self.decoding_blocks.insert(0, Block(outer, freq // 2**scale, **kind))
        self.final_conv = nn.Sequential(Heads(width, stems * inputs, 1))

    def forward(self, x: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the spectrograms of the chosen stems (all by default)."""
        (heads,) = self.final_conv.children()
        x = x.to(next(heads.parameters()).dtype).transpose(2, 3)
        x = self.first_conv(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for block, shrink in zip(self.encoding_blocks, self.ds, strict=True):
            x = block(x)
            skips.append(x)
            x = shrink(x)
        x = self.bottleneck_block(x)
        for grow, block in zip(self.us, self.decoding_blocks, strict=True):
            x = block(grow(x) * skips.pop())
        outputs = None
        if stems is not None:
            outputs = [stem * self.inputs + part for stem in stems for part in range(self.inputs)]
        parts: Tensor = heads(x, outputs)
        return parts.transpose(2, 3)


class TfcTdfV2(MappedSpectrogram):
    """TFC-TDF U-Net, second version; the authors have one network for each stem.

    Args:
        stems: names of the outputs, in the order of the last layer's channels.
        n_fft: the authors take 6144 for vocals, 4096 for drums, 16384 for bass, 8192 for others.
        bins: how many of the lowest bins are kept; the estimates are silent above.
        scales: how often the U-Net halves the resolution (4 for drums).
        width: channels at the highest resolution; each scale has as many more.
        convs: convolutions of a block, with an odd `kernel_size`.
        bottleneck_factor: by how much the perceptron over frequency narrows.
        bias: whether that perceptron has biases.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: Bins that can't be halved at each scale, or an even kernel.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        n_fft: int = 6144,
        hop_length: int = 1024,
        bins: int = 2048,
        sample_rate: int = 44_100,
        channels: int = 2,
        scales: int = 5,
        width: int = 32,
        convs: int = 3,
        kernel_size: int = 3,
        bottleneck_factor: int = 8,
        bias: bool = False,
    ) -> None:
        super().__init__(
            stems,
            sample_rate=sample_rate,
            channels=channels,
            stft=STFT(n_fft, hop_length),
            bins=bins,
            frame_multiple=2**scales,
        )
        if bins > self.stft.bins or bins % 2**scales:
            raise ConfigError(
                f"TFC-TDF v2 keeps {bins} bins; that must be at most {self.stft.bins} and a "
                f"multiple of 2 ** {scales} scales."
            )
        if kernel_size % 2 == 0:
            raise ConfigError(f"The kernel_size of TFC-TDF v2 must be odd; got {kernel_size}.")
        self.core = TfcTdfV2Core(
            2 * channels,
            bins,
            stems=len(self.stems),
            scales=scales,
            width=width,
            kernel_size=kernel_size,
            convs=convs,
            factor=bottleneck_factor,
            bias=bias,
        )
        hide_prefix(self, "core")
