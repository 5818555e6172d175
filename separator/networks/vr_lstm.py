"""VR of 5.1 (CascadedNet): five U-Nets with an LSTM each, on half the bins twice, then on all.

    magnitudes ─┬─> lower half  ──> U-Net ──> l1 ──> U-Net ──> l2 ─┐
                ├─> higher half ──> U-Net ──> h1 ──> U-Net ──> h2 ─┤
                └──────────────────────────────────────────────────┴─> U-Net ──> sigmoid ──> mask

Each network of a half sees its part of the magnitudes again, the last one all that has been found.
The networks of Ultimate Vocal Remover since version 5.1 of its "VR architecture".

Reference: tsurumeso, vocal-remover 5.1, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

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

MARGIN = 64
DILATIONS = ((4, 2), (8, 4), (12, 6))
SLOPE = 0.01
#: Widths of the scales, as multiples of the first one's.
WIDTHS = (1, 2, 4, 6, 8)


class Encoder(nn.Module):
    """A convolution that halves the resolution, and another one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(conv(inputs, outputs, stride=2), slope=SLOPE)
        self.conv2 = ConvBlock(conv(outputs, outputs), slope=SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`."""
        result: Tensor = self.conv2(self.conv1(x))
        return result


class Decoder(nn.Module):
    """Upsampling to twice the resolution, with the skip appended, and a convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(conv(inputs, outputs))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the input of the previous scale."""
        result: Tensor = self.conv1(doubled(x, skip))
        return result


class Pyramid(nn.Module):
    """Branches that see the average, the point, and what lies farther and farther around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Average(width, width)
        self.conv2 = ConvBlock(pointwise(width, width))
        for number, dilation in enumerate(DILATIONS, start=3):
            self.add_module(f"conv{number}", ConvBlock(conv(width, width, dilation=dilation)))
        self.bottleneck = ConvBlock(pointwise(5 * width, width))
        self.dropout = nn.Dropout2d(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`."""
        parts = [self.get_submodule(f"conv{number}")(x) for number in range(1, 6)]
        result: Tensor = self.dropout(self.bottleneck(torch.cat(parts, dim=1)))
        return result


class Memory(nn.Module):
    """An LSTM along the frames of one channel: `(batch, channels, freq, frames)` to one of them."""

    def __init__(self, inputs: int, freq: int, hidden: int) -> None:
        super().__init__()
        self.conv = ConvBlock(pointwise(inputs, 1))
        self.lstm = nn.LSTM(freq, hidden // 2, bidirectional=True)
        self.dense = nn.Sequential(nn.Linear(hidden, freq), nn.BatchNorm1d(freq), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Transform."""
        hidden, _ = self.lstm(self.conv(x)[:, 0].permute(2, 0, 1))  # (frames, batch, hidden)
        dense: Tensor = self.dense(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        return dense.permute(1, 2, 0).unsqueeze(1)


class LstmUNet(nn.Module):
    """Encoders, a pyramid, decoders, and an LSTM before the last of them.

    Args:
        inputs: channels of the input.
        width: channels of the output.
        freq: bins of the input.
        hidden: features of the LSTM, both directions together.
    """

    def __init__(self, inputs: int, width: int, freq: int, hidden: int) -> None:
        super().__init__()
        widths = [width * multiple for multiple in WIDTHS]
        self.enc1 = ConvBlock(conv(inputs, width))
        for scale, (before, after) in enumerate(pairwise(widths), start=2):
            self.add_module(f"enc{scale}", Encoder(before, after))
        self.aspp = Pyramid(widths[-1])
        for scale, (outer, inner) in enumerate(pairwise(widths), start=1):
            extra = 1 if scale == 1 else 0
            self.add_module(f"dec{scale}", Decoder(outer + inner + extra, outer))
        self.lstm_dec2 = Memory(widths[1], freq // 2, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, inputs, freq, frames)` to `(batch, width, freq, frames)`."""
        skips = []
        for scale in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"enc{scale}")(x)
            skips.append(x)
        x = self.aspp(skips.pop())
        for scale in range(len(WIDTHS) - 1, 0, -1):
            if scale == 1:
                x = torch.cat([x, self.lstm_dec2(x)], dim=1)
            x = self.get_submodule(f"dec{scale}")(x, skips.pop())
        return x


class VrLstmCore(nn.Module):
    """Masks of windows of magnitudes, `(windows, channels, bins, frames)`."""

    def __init__(self, channels: int, width: int, *, bins: int, lstm_width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        freq, less = bins // 2, lstm_width // 2
        self.stg1_low_band_net = nn.Sequential(
            LstmUNet(channels, half, freq, lstm_width), ConvBlock(pointwise(half, quarter))
        )
        self.stg1_high_band_net = LstmUNet(channels, quarter, freq, less)
        self.stg2_low_band_net = nn.Sequential(
            LstmUNet(channels + quarter, width, freq, lstm_width), ConvBlock(pointwise(width, half))
        )
        self.stg2_high_band_net = LstmUNet(channels + quarter, half, freq, less)
        self.stg3_full_band_net = LstmUNet(channels + quarter + half, width, bins, lstm_width)
        self.out = pointwise(width, channels)
        self.aux_out = Unused(quarter + half, channels)

    def forward(self, magnitude: Tensor) -> Tensor:
        """Return the masks, in [0, 1]."""
        x = magnitude.to(self.out.weight.dtype).contiguous(memory_format=torch.channels_last)
        low, high = x.chunk(2, dim=2)
        low1, high1 = self.stg1_low_band_net(low), self.stg1_high_band_net(high)
        low2 = self.stg2_low_band_net(torch.cat([low, low1], dim=1))
        high2 = self.stg2_high_band_net(torch.cat([high, high1], dim=1))
        halves = torch.cat([low, low1, low2], dim=1), torch.cat([high, high1, high2], dim=1)
        mask: Tensor = self.out(self.stg3_full_band_net(torch.cat(halves, dim=2)))
        return mask.float().sigmoid()


class VrLstmNet(VrNet):
    """The cascade between multi-band transforms.

    Args:
        stems: the name of what the mask lets through, and that of the rest.
        front_end: the arguments of `separator.networks.multiband.MultiBand`.
        width: channels of the last U-Net at its highest resolution.
        lstm_width: features of its LSTM, both directions together.
        window_frames: frames that the cascade sees at once; the outer 64 are thrown away.
        aggressiveness: see `separator.networks.vr_aspp.VrAsppNet`.
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
        width: int = 32,
        lstm_width: int = 128,
        window_frames: int = 512,
        aggressiveness: float = 0.1,
        mirror: bool = False,
        sample_rate: int = 44_100,
        channels: int = 2,
    ) -> None:
        bands = MultiBand(channels=channels, **front_end)
        super().__init__(
            stems,
            bands,
            VrLstmCore(channels, width, bins=bands.bins, lstm_width=lstm_width),
            halvings=len(WIDTHS) - 1,
            margin=MARGIN,
            window_frames=window_frames,
            aggressiveness=aggressiveness,
            mirror=mirror,
            sample_rate=sample_rate,
            channels=channels,
        )


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine; of the bands only the `bins` leave a trace."""
    lstm = "stg3_full_band_net.lstm_dec2"
    channels, width = state["out.weight"].shape[:2]
    return {
        "stem_count": 2,
        "channels": channels,
        "width": width,
        "lstm_width": 2 * state[f"{lstm}.lstm.weight_hh_l0"].shape[1],
        "bins": 2 * len(state[f"{lstm}.dense.0.weight"]),
    }
