"""VR before 5.1 (CascadedASPPNet): U-Nets with atrous pyramids, on halves, then on all bins.

    magnitudes ─┬─> lower half  ──> U-Net ─┐
                ├─> higher half ──> U-Net ─┴─> a
                ├─> a ──> bridge ──> U-Net ──> b
                └─> a, b ──> bridge ──> U-Net ──> sigmoid ──> mask

The networks of Ultimate Vocal Remover before version 5.1 of its "VR architecture".

Reference: tsurumeso, vocal-remover 4.0, 2020; Chen et al., "Rethinking atrous convolution for
semantic image segmentation", 2017, arXiv 1706.05587 (atrous spatial pyramid pooling).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.multiband import MultiBand
from separator.networks.states import State
from separator.networks.vr import (
    Average,
    ConvBlock,
    Unused,
    VrNet,
    conv,
    doubled,
    pointwise,
)

MARGIN = 128
DILATIONS = (4, 8, 16)
SLOPE = 0.01


class Encoder(nn.Module):
    """A convolution, whose result is the skip, and one that halves the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(conv(inputs, outputs), slope=SLOPE)
        self.conv2 = ConvBlock(conv(outputs, outputs, stride=2), slope=SLOPE)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the next scale and the skip."""
        skip = self.conv1(x)
        return self.conv2(skip), skip


class Decoder(nn.Module):
    """Upsampling to twice the resolution, with the skip appended, and a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvBlock(conv(inputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the input of the previous scale."""
        result: Tensor = self.conv(doubled(x, skip))
        return result


class Pyramid(nn.Module):
    """Branches that see the average, the point, and what lies 4, 8 and 16 points around it.

    A sixth and a seventh branch see 16 points around it, too. Today's Ultimate Vocal Remover keeps
    these two as one module, so that the parameters of the seventh replace those of the sixth; here
    each has the parameters that it was trained with.
    """

    def __init__(self, width: int, outputs: int, *, branches: int) -> None:
        super().__init__()
        self.conv1 = Average(width, width)
        self.conv2 = ConvBlock(pointwise(width, width))
        dilations = [*DILATIONS, *[DILATIONS[-1]] * (branches - 5)]
        for number, dilation in enumerate(dilations, start=3):
            self.add_module(f"conv{number}", atrous(width, dilation))
        self.bottleneck = nn.Sequential(
            ConvBlock(pointwise(width * branches, outputs)), nn.Dropout2d(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`."""
        *branches, bottleneck = self.children()
        result: Tensor = bottleneck(torch.cat([branch(x) for branch in branches], dim=1))
        return result


def atrous(width: int, dilation: int) -> ConvBlock:
    """Return a block of a convolution with gaps on each channel, and one across the channels."""
    depthwise = nn.Conv2d(
        width, width, 3, padding=dilation, dilation=dilation, groups=width, bias=False
    )
    return ConvBlock(depthwise, pointwise(width, width))


class AsppUNet(nn.Module):
    """Encoders, a pyramid, decoders."""

    def __init__(self, inputs: int, width: int, *, scales: int, branches: int) -> None:
        super().__init__()
        self.scales = scales
        widths = [width * 2**scale for scale in range(scales + 1)]
        for scale, (before, after) in enumerate(pairwise([inputs, *widths[:-1]]), start=1):
            self.add_module(f"enc{scale}", Encoder(before, after))
        self.aspp = Pyramid(widths[-2], widths[-1], branches=branches)
        for scale, (outer, inner) in enumerate(pairwise(widths), start=1):
            self.add_module(f"dec{scale}", Decoder(outer + inner, outer))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, inputs, freq, frames)` to `(batch, width, freq, frames)`."""
        skips = []
        for scale in range(1, self.scales + 1):
            x, skip = self.get_submodule(f"enc{scale}")(x)
            skips.append(skip)
        x = self.aspp(x)
        for scale in range(self.scales, 0, -1):
            x = self.get_submodule(f"dec{scale}")(x, skips.pop())
        return x


class VrAsppCore(nn.Module):
    """Masks of windows of magnitudes, `(windows, channels, bins, frames)`."""

    def __init__(self, channels: int, width: int, *, scales: int, branches: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        shape = {"scales": scales, "branches": branches}
        self.stg1_low_band_net = AsppUNet(channels, half, **shape)
        self.stg1_high_band_net = AsppUNet(channels, half, **shape)
        self.stg2_bridge = ConvBlock(pointwise(channels + half, quarter))
        self.stg2_full_band_net = AsppUNet(quarter, half, **shape)
        self.stg3_bridge = ConvBlock(pointwise(channels + width, half))
        self.stg3_full_band_net = AsppUNet(half, width, **shape)
        self.out = pointwise(width, channels)
        self.aux1_out = Unused(half, channels)
        self.aux2_out = Unused(half, channels)

    def forward(self, magnitude: Tensor) -> Tensor:
        """Return the masks, in [0, 1]."""
        x = magnitude.to(self.out.weight.dtype).contiguous(memory_format=torch.channels_last)
        low, high = x.chunk(2, dim=2)
        first = torch.cat([self.stg1_low_band_net(low), self.stg1_high_band_net(high)], dim=2)
        second = self.stg2_full_band_net(self.stg2_bridge(torch.cat([x, first], dim=1)))
        third = self.stg3_bridge(torch.cat([x, first, second], dim=1))
        mask: Tensor = self.out(self.stg3_full_band_net(third))
        return mask.float().sigmoid()


class VrAsppNet(VrNet):
    """The cascade between multi-band transforms.

    Args:
        stems: the name of what the mask lets through, and that of the rest.
        front_end: the arguments of `separator.networks.multiband.MultiBand`.
        width: channels of the last U-Net at its highest resolution.
        scales: how often each U-Net halves the resolution.
        branches: number in the pyramids, 5 to 7.
        window_frames: frames that the cascade sees at once; the outer 128 are thrown away.
        aggressiveness: masks are raised to the power 1 + a / 3 in the bins of the lowest band and
            to 1 + a in all others. What Ultimate Vocal Remover calls an aggression of 5 is 0.1
            where the first stem accompanies, and 0.9 where it is a voice or an instrument.
        mirror: fill the highest frequencies, which the bands leave out, with mirrored ones.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`; together they are the mixture less what the
          bands leave out

    Raises:
        ConfigError: There aren't two stems, or sizes don't fit.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        front_end: Mapping[str, Any],
        width: int = 64,
        scales: int = 4,
        branches: int = 5,
        window_frames: int = 512,
        aggressiveness: float = 0.1,
        mirror: bool = False,
        sample_rate: int = 44_100,
        channels: int = 2,
    ) -> None:
        if not 5 <= branches <= 7:
            raise ConfigError(f"A pyramid has 5, 6 or 7 branches; got {branches}.")
        super().__init__(
            stems,
            MultiBand(channels=channels, **front_end),
            VrAsppCore(channels, width, scales=scales, branches=branches),
            halvings=scales,
            margin=MARGIN,
            window_frames=window_frames,
            aggressiveness=aggressiveness,
            mirror=mirror,
            sample_rate=sample_rate,
            channels=channels,
        )


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine; the bands leave no trace."""
    unet = "stg3_full_band_net"
    channels, width = state["out.weight"].shape[:2]
    return {
        "stem_count": 2,
        "channels": channels,
        "width": width,
        "scales": max(s for s in (4, 5) if f"{unet}.enc{s}.conv1.conv.0.weight" in state),
        "branches": max(b for b in (5, 6, 7) if f"{unet}.aspp.conv{b}.conv.0.weight" in state),
    }
