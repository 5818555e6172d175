"""Conv-TasNet: masks on a learned transform of the waveform, from dilated convolutions.

    mixture -> encoder -> features -+-> norm -> 1x1 -> blocks -> sum of skips -> 1x1 -> masks -+
                                    +------------------------------------------------------ x -+
                                                                       stems <- decoder <------+

Encoder and decoder are convolutions with half-overlapping windows. Parameter names are those of
torchaudio's `ConvTasNet`, which has one channel; the variant for music codes all channels together.

Reference:
    Luo and Mesgarani, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech
    separation", 2019, arXiv 1809.07454;
    Défossez et al., "Music source separation in the waveform domain", 2019, arXiv 1911.13254,
    section 4 (stereo music).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import hide_prefix
from separator.networks.states import State, numbered


class ConvBlock(nn.Module):
    """A depthwise dilated convolution between pointwise ones, with a residual and a skip output.

    Args:
        last: leave out the residual output, which nobody reads.
    """

    def __init__(self, dim: int, hidden: int, kernel_size: int, dilation: int, last: bool) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv_layers = nn.Sequential(
            nn.Conv1d(dim, hidden, 1),
            nn.PReLU(),
            nn.GroupNorm(1, hidden, eps=1e-8),
            nn.Conv1d(hidden, hidden, kernel_size, 1, padding, dilation, groups=hidden),
            nn.PReLU(),
            nn.GroupNorm(1, hidden, eps=1e-8),
        )
        self.res_out = None if last else nn.Conv1d(hidden, dim, 1)
        self.skip_out = nn.Conv1d(hidden, dim, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the transformed `(batch, dim, frames)` and the skip output, shaped alike."""
        y = self.conv_layers(x)
        return x if self.res_out is None else x + self.res_out(y), self.skip_out(y)


class MaskGenerator(nn.Module):
    """Masks of the stems, from the features of the mixture.

    Shape:
        - features: `(batch, features, frames)`
        - masks: `(batch, stems, features, frames)`
    """

    def __init__(
        self,
        features: int,
        stems: int,
        *,
        dim: int,
        hidden: int,
        kernel_size: int,
        layers: int,
        stacks: int,
        activation: Literal["relu", "sigmoid"],
    ) -> None:
        super().__init__()
        self.features = features
        self.activation = activation
        self.input_norm = nn.GroupNorm(1, features, eps=1e-8)
        self.input_conv = nn.Conv1d(features, dim, 1)
        depth = stacks * layers
        self.conv_layers = nn.ModuleList(
            ConvBlock(dim, hidden, kernel_size, 2 ** (index % layers), last=index == depth - 1)
            for index in range(depth)
        )
        self.output_prelu = nn.PReLU()
        self.output_conv = nn.Conv1d(dim, stems * features, 1)

    def forward(self, features: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the masks of the chosen stems (all by default)."""
        x = self.input_conv(self.input_norm(features))
        total = torch.zeros_like(x)
        for block in self.conv_layers:
            x, skip = block(x)
            total = total + skip
        weight, bias = self.heads(stems)
        masks = F.conv1d(self.output_prelu(total), weight, bias)
        masks = masks.relu() if self.activation == "relu" else masks.sigmoid()
        separate: Tensor = masks.unflatten(1, (-1, self.features))
        return separate

    def heads(self, stems: Sequence[int] | None) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of the last convolution for the chosen stems."""
        weight, bias = self.output_conv.weight, self.output_conv.bias
        if stems is None or bias is None:
            return weight, bias
        chosen = list(stems)
        heads = weight.unflatten(0, (-1, self.features))[chosen].flatten(0, 1)
        return heads, bias.unflatten(0, (-1, self.features))[chosen].flatten()


class ConvTasNetCore(nn.Module):
    """Encoder, masks and decoder; the length must be one that `ConvTasNet` pads to.

    Shape:
        - input: `(batch, channels, time)`
        - output: `(batch, stems, channels, time)`
    """

    def __init__(
        self, channels: int, features: int, kernel_size: int, mask_generator: MaskGenerator
    ) -> None:
        super().__init__()
        stride = kernel_size // 2
        self.encoder = nn.Conv1d(channels, features, kernel_size, stride, stride, bias=False)
        self.mask_generator = mask_generator
        self.decoder = nn.ConvTranspose1d(
            features, channels, kernel_size, stride, stride, bias=False
        )

    def forward(self, x: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the chosen stems (all by default)."""
        features = self.encoder(x)
        masked = self.mask_generator(features, stems) * features.unsqueeze(1)
        estimates: Tensor = self.decoder(masked.flatten(0, 1)).unflatten(0, masked.shape[:2])
        return estimates


class ConvTasNet(nn.Module):
    """Conv-TasNet, without causal constraints.

    The defaults are those of the paper's best model with ReLU masks, as torchaudio's pipelines
    use them at 8 kHz. Défossez et al. took `channels=2, features=256, kernel_size=20, dim=256,
    layers=10, stacks=4` for music at 44.1 kHz (in blocks without the skip outputs).

    Args:
        stems: names of the outputs, in the order of the masks.
        features: size of the learned transform (N in the paper).
        kernel_size: samples of its windows, two or more (L).
        dim: channels between the blocks (B and Sc).
        hidden: channels inside a block (H).
        mask_kernel_size: samples of a block's convolution, an odd number (P).
        layers: blocks of a stack, whose dilations double from 1 (X).
        stacks: how often they repeat (R).
        activation: activation of the masks.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: A kernel has an impossible size, or the activation is unknown.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        sample_rate: int = 8000,
        channels: int = 1,
        features: int = 512,
        kernel_size: int = 16,
        dim: int = 128,
        hidden: int = 512,
        mask_kernel_size: int = 3,
        layers: int = 8,
        stacks: int = 3,
        activation: Literal["relu", "sigmoid"] = "relu",
    ) -> None:
        super().__init__()
        if kernel_size < 2 or mask_kernel_size % 2 == 0:
            raise ConfigError(
                "Conv-TasNet needs a kernel_size of at least 2 and an odd mask_kernel_size; got "
                f"{kernel_size} and {mask_kernel_size}."
            )
        if activation not in ("relu", "sigmoid"):
            raise ConfigError(f"'activation' must be relu or sigmoid; got '{activation}'.")
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.kernel_size = kernel_size
        masks = MaskGenerator(
            features,
            len(self.stems),
            dim=dim,
            hidden=hidden,
            kernel_size=mask_kernel_size,
            layers=layers,
            stacks=stacks,
            activation=activation,
        )
        self.core = ConvTasNetCore(channels, features, kernel_size, masks)
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        length = mixture.shape[-1]
        missing = -(length - self.kernel_size % 2) % (self.kernel_size // 2)
        dtype = next(self.core.parameters()).dtype
        estimates: Tensor = self.core(F.pad(mixture.to(dtype), (0, missing)), stems)
        return estimates.float()[..., :length]


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine, of a network with the paper's three stacks of eight.

    How many blocks a stack has leaves no trace, only how many there are in all.

    Raises:
        ValueError: Another number of blocks.
    """
    features, channels, kernel_size = state["encoder.weight"].shape
    hidden, _, mask_kernel_size = state["mask_generator.conv_layers.0.conv_layers.3.weight"].shape
    blocks = numbered(state, "mask_generator.conv_layers.")
    if blocks != 24:
        raise ValueError(f"{blocks} blocks, and nothing tells how they are stacked")
    return {
        "stem_count": len(state["mask_generator.output_conv.bias"]) // features,
        "channels": channels,
        "features": features,
        "kernel_size": kernel_size,
        "dim": len(state["mask_generator.input_conv.bias"]),
        "hidden": hidden,
        "mask_kernel_size": mask_kernel_size,
        "layers": 8,
        "stacks": 3,
    }
