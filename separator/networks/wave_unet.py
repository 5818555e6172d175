"""Wave-U-Net: a U-Net on the waveform whose stems sum to the mixture.

    mixture -> (conv, halve) x depth -> conv -> (interpolate, skip, conv) x depth -> 1x1, tanh -+
                                                                                                |
                   last stem = mixture - the others, all other stems  <-------------------------+

No convolution pads its input, so that every output is computed from real signal: an output of
`n` samples takes `n + context` of input. Only at the ends of a recording there are zeros.

Reference: Stoller, Ewert and Dixon, "Wave-U-Net: a multi-scale neural network for end-to-end audio
source separation", 2018, arXiv 1806.03185.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.demucs_layers import center
from separator.networks.layers import hide_prefix
from separator.spectral.masks import with_residual


class Interpolate(nn.Module):
    """Sample between every two: their mean, or one with weights learned per channel.

    Reference: section 3.2.2 of the paper.
    """

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1)) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, channels, 2 * time - 1)`."""
        share = 0.5 if self.weight is None else self.weight.sigmoid()
        between = share * x[..., :-1] + (1 - share) * x[..., 1:]
        pairs = torch.stack([x[..., :-1], between], dim=-1).flatten(2)
        return torch.cat([pairs, x[..., -1:]], dim=-1)


class WaveUNetCore(nn.Module):
    """The U-Net, without padding.

    Shape:
        - input: `(batch, channels, time)`, a time of `WaveUNet.sizes`
        - output: `(batch, outputs, time - context)`
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        depth: int,
        width: int,
        kernel_down: int,
        kernel_up: int,
        learned_upsampling: bool,
    ) -> None:
        super().__init__()
        widths = [width * (index + 1) for index in range(depth + 1)]
        pairs = list(zip([channels, *widths[:-1]], widths, strict=True))
        self.down = nn.ModuleList(nn.Conv1d(i, o, kernel_down) for i, o in pairs)
        self.between = nn.ModuleList(
            Interpolate(inner, learned_upsampling) for _, inner in pairs[:0:-1]
        )
        self.up = nn.ModuleList(
            nn.Conv1d(outer + inner, outer, kernel_up) for outer, inner in pairs[:0:-1]
        )
        self.heads = nn.Conv1d(width + channels, outputs, 1)

    def forward(self, mixture: Tensor) -> Tensor:
        """Return the outputs before their activation."""
        *outer, innermost = self.down
        x, skips = mixture, []
        for conv in outer:
            skips.append(F.leaky_relu(conv(x), 0.2))
            x = skips[-1][..., ::2]
        x = F.leaky_relu(innermost(x), 0.2)
        for interpolate, conv in zip(self.between, self.up, strict=True):
            x = interpolate(x)
            x = F.leaky_relu(conv(torch.cat([center(skips.pop(), x.shape[-1]), x], dim=1)), 0.2)
        heads: Tensor = self.heads(torch.cat([center(mixture, x.shape[-1]), x], dim=1))
        return heads


class WaveUNet(nn.Module):
    """Wave-U-Net with context and an additive output layer (the paper's M4; M5 learns upsampling).

    Args:
        stems: names of the outputs, two or more; the last one is what the others leave.
        depth: number of layers of the encoder, and of the decoder.
        width: by how many channels a layer is wider than the one outside it.
        kernel_down, kernel_up: odd lengths of the convolutions.
        learned_upsampling: learn a weight per channel for interpolation.
        bounded: squash all but the last stem by tanh.

    Attributes:
        context: samples that the input is longer than the output, half of them on either side.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`; they sum to the mixture

    Raises:
        ConfigError: There are fewer than two stems, or a kernel has an even length.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        sample_rate: int = 22_050,
        channels: int = 2,
        depth: int = 12,
        width: int = 24,
        kernel_down: int = 15,
        kernel_up: int = 5,
        learned_upsampling: bool = False,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        if len(stems) < 2:
            raise ConfigError(
                "The stems of Wave-U-Net sum to the mixture, so there must be two or more; got "
                f"{len(stems)}."
            )
        if kernel_down % 2 == 0 or kernel_up % 2 == 0:
            raise ConfigError(
                f"The kernels of Wave-U-Net must be odd; got {kernel_down} and {kernel_up}."
            )
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.depth = depth
        self.kernel_down = kernel_down
        self.kernel_up = kernel_up
        self.bounded = bounded
        outer, inner = self.sizes(1)
        self.context = outer - inner
        self.core = WaveUNetCore(
            channels,
            channels * (len(self.stems) - 1),
            depth=depth,
            width=width,
            kernel_down=kernel_down,
            kernel_up=kernel_up,
            learned_upsampling=learned_upsampling,
        )
        hide_prefix(self, "core")

    def sizes(self, length: int) -> tuple[int, int]:
        """Return the shortest input, and its output, of at least `length` samples.

        >>> WaveUNet(stems=["vocals", "rest"], width=1).sizes(16_384)
        (147443, 16389)
        """
        inner = length  # becomes the output of the innermost layer
        for _ in range(self.depth):
            inner = -(-(inner + self.kernel_up) // 2)
        outer = inner + self.kernel_down - 1
        for _ in range(self.depth):
            inner = 2 * inner - self.kernel_up
            outer = 2 * outer + self.kernel_down - 2
        return outer, inner

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        length = mixture.shape[-1]
        total, _ = self.sizes(length)
        before = self.context // 2
        padded = F.pad(mixture.float(), (before, total - length - before))
        heads = self.core(padded.to(self.core.heads.weight.dtype)).float()[..., :length]
        others = (heads.tanh() if self.bounded else heads).unflatten(1, (-1, self.channels))
        estimates = with_residual(others, mixture.float())
        return estimates if stems is None else estimates[:, list(stems)]
