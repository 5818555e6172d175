"""ResUNet143: a deep residual U-Net that estimates magnitude and phase of the masks apart.

    mixture -> sub-bands -> STFT -> magnitudes -> U-Net of residual blocks -> m, re, im, q
    estimates <- synthesis <- inverse <- relu(sigmoid(m) |X| + q) at the angle of X (re + i im)

Masks may exceed 1 through the residual q. The U-Net sees magnitudes only, standardised per bin,
with the sub-bands as channels. Hidden states are `(batch, channels, frames, freq)` with the
channels last in memory, as convolutions like them.

Parameter names and numbers are those of the authors' checkpoints (`from_bytesep`).

Reference: Kong et al., "Decoupling magnitude and phase estimation with deep ResUNet for music
source separation", 2021, arXiv 2109.05418; Liu et al., "Channel-wise subband input for better
voice and accompaniment separation on high resolution music", 2020, arXiv 2008.05216 (sub-bands).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import Heads, hide_prefix
from separator.networks.pqmf import PQMF
from separator.networks.states import State, numbered
from separator.spectral.masks import decoupled
from separator.spectral.stft import STFT

#: What the network predicts for each bin: m, re, im and q.
PARTS = 4


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after a norm and an activation, and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, momentum=0.01)
        self.bn2 = nn.BatchNorm2d(outputs, momentum=0.01)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, frames, freq)`."""
        update = self.conv1(F.leaky_relu(self.bn1(x), 0.01))
        update = self.conv2(F.leaky_relu(self.bn2(update), 0.01))
        total: Tensor = update + (x if self.shortcut is None else self.shortcut(x))
        return total


class Encoder(nn.Module):
    """Residual blocks, then the mean over patches."""

    def __init__(
        self, inputs: int, outputs: int, *, blocks: int, scale: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.scale = scale
        widths = [inputs] + [outputs] * blocks
        for number, (before, after) in enumerate(pairwise(widths), start=1):
            self.add_module(f"conv_block{number}", ResidualBlock(before, after))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the next scale and the skip to the decoder."""
        for block in self.children():
            x = block(x)
        return F.avg_pool2d(x, self.scale), x


class Decoder(nn.Module):
    """Upsampling, the skip appended, then residual blocks."""

    def __init__(self, inputs: int, outputs: int, *, blocks: int, scale: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(inputs, outputs, scale, scale, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs, momentum=0.01)
        widths = [2 * outputs] + [outputs] * blocks
        for number, (before, after) in enumerate(pairwise(widths), start=2):
            self.add_module(f"conv_block{number}", ResidualBlock(before, after))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the input of the previous scale."""
        conv, norm, *blocks = self.children()
        x = torch.cat([conv(F.relu(norm(x))), skip], dim=1)
        for block in blocks:
            x = block(x)
        return x


class ResUNetCore(nn.Module):
    """Parts of the masks, from the magnitudes of the mixture.

    All scales but the last halve the frames, all the bins; the highest bin is left out.

    Shape:
        - input: `(batch, inputs, freq, frames)`
        - output: `(batch, stems * PARTS * inputs, freq, frames)`, zero in the highest bin
    """

    def __init__(
        self, inputs: int, freq: int, *, stems: int, widths: Sequence[int], blocks: int
    ) -> None:
        super().__init__()
        self.frame_multiple = 2 ** (len(widths) - 1)
        self.outputs = PARTS * inputs
        self.bn0 = nn.BatchNorm2d(freq, momentum=0.01)
        scales = [(2, 2)] * (len(widths) - 1) + [(1, 2)]
        stages = list(zip([inputs, *widths[:-1]], widths, scales, strict=True))
        self.encoders = [f"encoder_block{number + 1}" for number in range(len(stages))]
        for name, (before, after, scale) in zip(self.encoders, stages, strict=True):
            self.add_module(name, Encoder(before, after, blocks=blocks, scale=scale))
        self.middle = [f"conv_block{len(stages) + 1}{letter}" for letter in "abcd"]
        for name in self.middle:
            self.add_module(name, Encoder(widths[-1], widths[-1], blocks=blocks))
        self.decoders = [f"decoder_block{number + 1}" for number in range(len(stages))]
        incoming = [widths[-1], *reversed(widths[1:])]
        for name, before, (_, after, scale) in zip(
            self.decoders, incoming, reversed(stages), strict=True
        ):
            self.add_module(name, Decoder(before, after, blocks=blocks, scale=scale))
        self.after_conv_block1 = Encoder(widths[0], widths[0], blocks=blocks)
        self.after_conv2 = Heads(widths[0], stems * self.outputs, 1)

    def forward(self, magnitude: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the parts of the chosen stems' masks (all by default)."""
        frames = magnitude.shape[-1]
        x = self.bn0(magnitude.to(self.after_conv2.weight.dtype).transpose(1, 2))
        x = F.pad(x.transpose(1, 2)[:, :, :-1], (0, -frames % self.frame_multiple))
        x = x.transpose(2, 3).contiguous(memory_format=torch.channels_last)
        skips = []
        for name in self.encoders:
            x, skip = self.get_submodule(name)(x)
            skips.append(skip)
        for name in self.middle:
            x, _ = self.get_submodule(name)(x)
        for name in self.decoders:
            x = self.get_submodule(name)(x, skips.pop())
        x, _ = self.after_conv_block1(x)
        outputs = None
        if stems is not None:
            outputs = [stem * self.outputs + i for stem in stems for i in range(self.outputs)]
        parts = self.after_conv2(x, outputs)[:, :, :frames]
        return F.pad(parts.transpose(2, 3), (0, 0, 0, 1))


class ResUNet(nn.Module):
    """Deep residual U-Net on sub-bands with decoupled magnitudes and phases.

    Args:
        stems: names of the outputs, in the order of the last layer's channels.
        n_fft, hop_length: of the mixture; each sub-band's STFT has these over `subbands`.
        subbands: number of sub-bands, or 1 to work on the mixture itself.
        widths: channels at each scale.
        blocks: residual blocks per stage.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: Bins that can't be halved at each scale.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        sample_rate: int = 44_100,
        channels: int = 2,
        n_fft: int = 2048,
        hop_length: int = 441,
        subbands: int = 4,
        widths: Sequence[int] = (32, 64, 128, 256, 384, 384),
        blocks: int = 4,
    ) -> None:
        super().__init__()
        if n_fft % (2 * subbands * 2 ** len(widths)):
            raise ConfigError(
                f"ResUNet halves n_fft / 2 / {subbands} bins {len(widths)} times; {n_fft} is no "
                f"multiple of {2 * subbands * 2 ** len(widths)}."
            )
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.subbands = subbands
        self.stft = STFT(n_fft // subbands, hop_length // subbands)
        self.pqmf = PQMF(subbands) if subbands > 1 else None
        self.core = ResUNetCore(
            channels * subbands,
            self.stft.bins,
            stems=len(self.stems),
            widths=widths,
            blocks=blocks,
        )
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        batch, channels, length = mixture.shape
        bands = F.pad(mixture, (0, -length % self.subbands))
        if self.pqmf is not None:
            bands = self.pqmf.analysis(bands)
        spectrogram = self.stft(bands)  # (batch, channels * subbands, freq, frames)
        predicted = self.core(spectrogram.abs().clamp_min(1e-5), stems).float()
        estimates = decoupled(self.arrange(predicted), spectrogram)
        signals = self.stft.inverse(estimates, bands.shape[-1])
        if self.pqmf is not None:
            signals = self.pqmf.synthesis(signals.flatten(0, 1))
        return signals.view(batch, -1, channels, signals.shape[-1])[..., :length]

    def arrange(self, predicted: Tensor) -> Tensor:
        """Return `(batch, stems, channels * subbands, freq, frames, PARTS)`, the residual bounded.

        The network's channels are stem by stem, channel by channel, part by part, band by band.
        """
        batch, _, freq, frames = predicted.shape
        shape = (batch, -1, self.channels, PARTS, self.subbands, freq, frames)
        parts = predicted.view(shape).movedim(3, -1).flatten(2, 3)
        return torch.cat([parts[..., :3], parts[..., 3:].tanh()], dim=-1)


def from_bytesep(state: State) -> dict[str, Tensor]:
    """Return the parameters of the authors' checkpoint less its matrices of Fourier transforms."""
    return {key: value for key, value in state.items() if not key.startswith(("stft.", "istft."))}


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine, for two channels; the hop leaves no trace."""
    channels = 2
    inputs = state["encoder_block1.conv_block1.conv1.weight"].shape[1]
    scales = numbered(state, "encoder_block") - 1
    widths = [
        len(state[f"encoder_block{scale}.conv_block1.conv1.weight"])
        for scale in range(1, scales + 1)
    ]
    return {
        "stem_count": len(state["after_conv2.bias"]) // (PARTS * inputs),
        "channels": channels,
        "subbands": inputs // channels,
        "n_fft": 2 * (len(state["bn0.bias"]) - 1) * (inputs // channels),
        "widths": widths,
        "blocks": numbered(state, "encoder_block1.conv_block") - 1,
    }
