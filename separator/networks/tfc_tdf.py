"""TFC-TDF v3, the network of MDX23C: a U-Net that convolves in time and frequency, and mixes bins.

    mixture -> STFT, lowest bins -> sub-bands as channels -> U-Net -> times the input -> inverse

A block is two 3x3 convolutions (TFC), between them a bottleneck perceptron over all frequencies
of one frame and channel (TDF). The network predicts the stems' spectrograms themselves, real and
imaginary parts as channels. Hidden states are `(batch, channels, frames, freq)` with the channels
last in memory, as convolutions like them.

Parameter names and numbers are those of the public checkpoints (KUIELab's sdx23 and
Music-Source-Separation-Training).

Reference:
    Kim et al., "Sound demixing challenge 2023 music demixing track technical report: TFC-TDF-UNet
    v3", 2023, arXiv 2306.09382;
    Choi et al., "Investigating U-Nets with various intermediate blocks for spectrogram-based
    singing voice separation", 2020, arXiv 1912.02591 (the blocks).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import Heads, hide_prefix
from separator.networks.states import State, numbered
from separator.spectral.masks import as_channels, from_channels
from separator.spectral.stft import STFT

Layer = Callable[[int], nn.Module]


class InstanceNorm(nn.Module):
    """Norm of each channel of each example, as nn.InstanceNorm2d's.

    With the channels last in memory torch's own copies, and its group norm of as many groups as
    channels is imprecise: it subtracts the squared mean from the mean square. The batch norm of
    one example is the same, precise and fast.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, frames, freq)`."""
        examples = [
            torch.batch_norm(
                example,
                self.weight,
                self.bias,
                running_mean=None,
                running_var=None,
                training=True,
                momentum=0.0,
                eps=self.eps,
                cudnn_enabled=True,
            )
            for example in x.split(1)
        ]
        return torch.cat(examples) if len(examples) > 1 else examples[0]


def norm_layer(name: str | None) -> Layer:
    """Return what builds the normalisation of a number of channels.

    Raises:
        ConfigError: The name is none of those that checkpoints use.
    """
    if name is None:
        return lambda channels: nn.Identity()
    if name == "BatchNorm":
        return nn.BatchNorm2d
    if name == "InstanceNorm":
        return InstanceNorm
    if match := re.fullmatch(r"GroupNorm([1-9]\d*)", name):
        return lambda channels: nn.GroupNorm(int(match[1]), channels)
    raise ConfigError(
        f"Unknown norm '{name}' for TFC-TDF; known: BatchNorm, InstanceNorm, GroupNorm with the "
        "number of groups (GroupNorm8), or nothing."
    )


def activation_layer(name: str) -> nn.Module:
    """Return the activation of this name: gelu, relu, or elu with its alpha (elu1.0).

    Raises:
        ConfigError: The name is none of these.
    """
    if name == "gelu":
        return nn.GELU()
    if name == "relu":
        return nn.ReLU()
    if match := re.fullmatch(r"elu(\d+\.?\d*)", name):
        return nn.ELU(float(match[1]))
    raise ConfigError(f"Unknown activation '{name}' for TFC-TDF; known: gelu, relu, elu1.0.")


class FreqLinear(nn.Linear):
    """Map of the frequencies of each frame and channel that moves no channel in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, frames, freq)`."""
        # a weight that wants gradients makes torch copy x, even where none are computed
        weight = self.weight if torch.is_grad_enabled() else self.weight.detach()
        mapped: Tensor = weight @ x.permute(0, 2, 3, 1)
        mapped = mapped if self.bias is None else mapped + self.bias[:, None]
        return mapped.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Convolution, mixed frequencies, convolution; the input is added through a 1x1 convolution."""

    def __init__(
        self, inputs: int, channels: int, freq: int, *, factor: int, norm: Layer, act: nn.Module
    ) -> None:
        super().__init__()
        hidden = freq // factor
        self.tfc1 = nn.Sequential(
            norm(inputs), act, nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        )
        self.tdf = nn.Sequential(
            norm(channels),
            act,
            FreqLinear(freq, hidden, bias=False),
            norm(channels),
            act,
            FreqLinear(hidden, freq, bias=False),
        )
        self.tfc2 = nn.Sequential(
            norm(channels), act, nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        )
        self.shortcut = nn.Conv2d(inputs, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, frames, freq)`."""
        hidden = self.tfc1(x)
        update, shortcut = self.tfc2(hidden + self.tdf(hidden)), self.shortcut(x)
        total: Tensor = update + shortcut
        return total


class Blocks(nn.Sequential):
    """A run of blocks at one scale."""

    def __init__(self, inputs: int, channels: int, freq: int, *, count: int, **kind: Any) -> None:
        super().__init__()
        widths = [inputs] + [channels] * (count - 1)
        self.blocks = nn.Sequential(*(Block(width, channels, freq, **kind) for width in widths))


class Rescale(nn.Sequential):
    """Norm, activation, and a convolution without overlap that changes the resolution."""

    def __init__(self, norm: nn.Module, act: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Sequential(norm, act, conv)


class EncoderBlock(nn.Module):
    """Blocks, then half the resolution."""

    def __init__(self, blocks: Blocks, downscale: Rescale) -> None:
        super().__init__()
        self.tfc_tdf = blocks
        self.downscale = downscale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the next scale and the skip to the decoder."""
        skip = self.tfc_tdf(x)
        return self.downscale(skip), skip


class DecoderBlock(nn.Module):
    """Twice the resolution, the skip appended, then blocks."""

    def __init__(self, upscale: Rescale, blocks: Blocks) -> None:
        super().__init__()
        self.upscale = upscale
        self.tfc_tdf = blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the input of the previous scale."""
        merged: Tensor = self.tfc_tdf(torch.cat([self.upscale(x), skip], dim=1))
        return merged


class TfcTdfCore(nn.Module):
    """Spectrograms of the stems from that of the mixture, both as real channels.

    Shape:
        - input: `(batch, inputs, freq, frames)`, with `freq` divisible by `subbands` and, then,
          both axes by `scale ** scales`
        - output: `(batch, stems * inputs, freq, frames)`
    """

    def __init__(
        self,
        inputs: int,
        freq: int,
        *,
        stems: int,
        subbands: int,
        scales: int,
        scale: tuple[int, int],
        width: int,
        growth: int,
        **options: Any,
    ) -> None:
        super().__init__()
        self.subbands = subbands
        norm, act = options["norm"], options["act"]
        parts = inputs * subbands
        self.parts = parts
        self.first_conv = nn.Conv2d(parts, width, 1, bias=False)
        freqs = [freq // subbands // scale[1] ** level for level in range(scales + 1)]
        widths = [width + growth * level for level in range(scales + 1)]
        self.encoder_blocks = nn.ModuleList()
        self.bottleneck_block = Blocks(widths[-1], widths[-1], freqs[-1], **options)
        self.decoder_blocks = nn.ModuleList()
        for (c, wider), f in zip(pairwise(widths), freqs[:-1], strict=True):
            down = nn.Conv2d(c, wider, scale, scale, bias=False)
            up = nn.ConvTranspose2d(wider, c, scale, scale, bias=False)
            self.encoder_blocks.append(
                EncoderBlock(Blocks(c, c, f, **options), Rescale(norm(c), act, down))
            )
            self.decoder_blocks.insert(
                0, DecoderBlock(Rescale(norm(wider), act, up), Blocks(2 * c, c, f, **options))
            )
        self.final_conv = nn.Sequential(
            nn.Conv2d(width + parts, width, 1, bias=False),
            act,
            Heads(width, stems * parts, 1, bias=False),
        )

    def forward(self, x: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the spectrograms of the chosen stems (all by default)."""
        batch, _, freq, frames = x.shape
        x = x.to(self.first_conv.weight.dtype)
        x = x.reshape(batch, self.parts, freq // self.subbands, frames).transpose(2, 3)
        mixture = x.contiguous(memory_format=torch.channels_last)
        x = first = self.first_conv(mixture)  # (batch, width, frames, freq / subbands)
        skips = []
        for block in self.encoder_blocks:
            x, skip = block(x)
            skips.append(skip)
        x = self.bottleneck_block(x)
        for block in self.decoder_blocks:
            x = block(x, skips.pop())
        mix, act, heads = self.final_conv.children()
        x = act(mix(torch.cat([mixture, x * first], dim=1)))
        outputs = None
        if stems is not None:
            outputs = [stem * self.parts + part for stem in stems for part in range(self.parts)]
        parts: Tensor = heads(x, outputs)
        return parts.transpose(2, 3).reshape(batch, -1, freq, frames)


class MappedSpectrogram(nn.Module):
    """What surrounds a core that maps the mixture's spectrogram to the stems', bins to bins.

    Only the lowest `bins` reach the core, `(batch, 2 * channels, bins, frames)` to as many
    channels per stem; the estimates are silent above. Frames are multiples of `frame_multiple`.
    """

    core: nn.Module

    def __init__(
        self,
        stems: Sequence[str],
        *,
        sample_rate: int,
        channels: int,
        stft: STFT,
        bins: int,
        frame_multiple: int,
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.stft = stft
        self.bins = bins
        self.frame_multiple = frame_multiple

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        length = mixture.shape[-1]
        spectrogram = self.stft(F.pad(mixture, (0, self.padded(length) - length)))
        parts = self.core(as_channels(spectrogram[:, :, : self.bins]), stems)
        parts = F.pad(parts, (0, 0, 0, self.stft.bins - self.bins))
        return self.stft.inverse(from_channels(parts, self.channels), length)

    def padded(self, length: int) -> int:
        """Return the next length whose frames the core can halve at every scale."""
        hop = self.stft.hop_length
        frames = 1 + math.ceil(max(length, self.stft.bins) / hop)
        return (math.ceil(frames / self.frame_multiple) * self.frame_multiple - 1) * hop


class TfcTdf(MappedSpectrogram):
    """TFC-TDF U-Net, third version.

    Args:
        stems: names of the outputs, in the order of the last layer's channels.
        bins: how many of the lowest bins are kept; the estimates are silent above.
        subbands: the bins are cut in so many sub-bands, which become channels.
        scales: how often the U-Net halves the resolution; by `scale` (frames, freq).
        width: channels at the highest resolution; each scale has `growth` more.
        blocks_per_scale: blocks at each scale, on both sides.
        bottleneck_factor: by how much the perceptron over frequency narrows.
        norm: "BatchNorm", "InstanceNorm", "GroupNorm8" (any number) or None.
        activation: "gelu", "relu" or "elu1.0" (any alpha).

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: Bins that can't be divided as asked, or an unknown norm or activation.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        n_fft: int = 8192,
        hop_length: int = 1024,
        bins: int = 4096,
        sample_rate: int = 44_100,
        channels: int = 2,
        subbands: int = 4,
        scales: int = 5,
        scale: Sequence[int] = (2, 2),
        blocks_per_scale: int = 2,
        width: int = 128,
        growth: int = 128,
        bottleneck_factor: int = 4,
        norm: str | None = "InstanceNorm",
        activation: str = "gelu",
    ) -> None:
        frame_scale, bin_scale = scale
        super().__init__(
            stems,
            sample_rate=sample_rate,
            channels=channels,
            stft=STFT(n_fft, hop_length),
            bins=bins,
            frame_multiple=int(frame_scale**scales),
        )
        if bins > self.stft.bins or bins % (subbands * bin_scale**scales):
            raise ConfigError(
                f"TFC-TDF keeps {bins} bins; that must be at most {self.stft.bins} and a multiple "
                f"of {subbands} subbands times {bin_scale} ** {scales} scales."
            )
        self.core = TfcTdfCore(
            2 * channels,
            bins,
            stems=len(self.stems),
            subbands=subbands,
            scales=scales,
            scale=(frame_scale, bin_scale),
            width=width,
            growth=growth,
            count=blocks_per_scale,
            factor=bottleneck_factor,
            norm=norm_layer(norm),
            act=activation_layer(activation),
        )
        hide_prefix(self, "core")


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine, for two channels; groups of a GroupNorm leave no trace."""
    channels = 2
    width, parts = state["first_conv.weight"].shape[:2]
    down = state["encoder_blocks.0.downscale.conv.2.weight"]
    block = "encoder_blocks.0.tfc_tdf.blocks"
    hidden, freq = state[f"{block}.0.tdf.2.weight"].shape
    subbands = parts // (2 * channels)
    norm = None if f"{block}.0.tfc1.0.weight" not in state else "InstanceNorm"
    return {
        "stem_count": len(state["final_conv.2.weight"]) // parts,
        "channels": channels,
        "bins": freq * subbands,
        "subbands": subbands,
        "scales": numbered(state, "encoder_blocks."),
        "scale": list(down.shape[2:]),
        "blocks_per_scale": numbered(state, f"{block}."),
        "width": width,
        "growth": len(down) - width,
        "bottleneck_factor": freq // hidden,
        "norm": "BatchNorm" if f"{block}.0.tfc1.0.running_mean" in state else norm,
    }
