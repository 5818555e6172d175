"""Demucs: a U-Net on the waveform, from the version of 2019 to the time-domain models of 2021.

    mixture -> standardize -> [double rate] -> encoder -> [LSTM] -> decoder -> [halve] -> stems
                                                  |                    ^
                                                  +- skip connections -+

Version 2 has ReLU, an LSTM at the bottom and no residual branches (`dconv_mode=0, gelu=False,
lstm_layers=2`); version 3 has residual branches instead, with LSTMs and local attention in the
inner layers.

Reference: Défossez et al., "Music source separation in the waveform domain", 2019, arXiv
1911.13254. Version 3: Défossez, 2021, arXiv 2111.03600, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.networks.demucs_layers import (
    BLSTM,
    DConv,
    TimeConv,
    TimeConvTranspose,
    center,
    output_channels,
    rescale,
    standardize,
    transposed,
)
from separator.networks.layers import hide_prefix


class DemucsCore(nn.Module):
    """The U-Net; every length must be one that `Demucs.valid_length` returns.

    Shape:
        - input: `(batch, channels, time)`
        - output: `(batch, outputs, time)`
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden_channels: int,
        growth: float,
        depth: int,
        lstm_layers: int,
        kernel_size: int,
        stride: int,
        context: int,
        gelu: bool,
        norm_starts: int,
        norm_groups: int,
        dconv_mode: int,
        dconv_depth: int,
        dconv_comp: float,
        dconv_attn: int,
        dconv_lstm: int,
        dconv_init: float,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        activation = nn.GELU if gelu else nn.ReLU
        width = hidden_channels
        for index in range(depth):
            normed = index >= norm_starts

            def norm(dim: int, normed: bool = normed) -> nn.Module:
                return nn.GroupNorm(norm_groups, dim) if normed else nn.Identity()

            def branches(side: int, width: int = width, index: int = index) -> list[nn.Module]:
                if not dconv_mode & side:
                    return []
                return [
                    DConv(
                        width,
                        compress=dconv_comp,
                        depth=dconv_depth,
                        init=dconv_init,
                        attention=index >= dconv_attn,
                        lstm=index >= dconv_lstm,
                    )
                ]

            encode = [
                TimeConv(inputs, width, kernel_size, stride),
                norm(width),
                activation(),
                *branches(1),
                TimeConv(width, 2 * width, 1),
                norm(2 * width),
                nn.GLU(dim=1),
            ]
            decode = [
                TimeConv(width, 2 * width, 2 * context + 1, padding=context),
                norm(2 * width),
                nn.GLU(dim=1),
                *branches(2),
                TimeConvTranspose(width, inputs if index else outputs, kernel_size, stride),
            ]
            if index:
                decode += [norm(inputs), activation()]
            self.encoder.append(nn.Sequential(*encode))
            self.decoder.insert(0, nn.Sequential(*decode))
            inputs, width = width, int(growth * width)
        self.lstm = BLSTM(inputs, lstm_layers) if lstm_layers else None
        rescale(self)

    def forward(self, x: Tensor, outputs: Tensor | None = None) -> Tensor:
        """Return the chosen outputs (indices; all by default)."""
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        skips = []
        for encode in self.encoder:
            x = encode(x)
            skips.append(x)
        if self.lstm is not None:
            x = self.lstm(x)
        for decode in self.decoder[:-1]:
            x = decode(x + center(skips.pop(), x.shape[-1]))
        *refine, upsample = self.decoder[-1].children()
        assert isinstance(upsample, TimeConvTranspose)
        x = x + center(skips.pop(), x.shape[-1])
        for part in refine:
            x = part(x)
        return transposed(upsample, x, outputs).squeeze(2)


class Demucs(nn.Module):
    """Demucs v2, and the waveform models of v3 (the defaults).

    Args:
        stems: names of the outputs, in the order of the output channels.
        hidden_channels: channels of the outermost layer.
        growth: by what each layer has more channels than the one outside it.
        depth: number of layers of the encoder, and of the decoder.
        lstm_layers: layers of the LSTM at the bottom; 0 leaves it out.
        context: neighbours on either side that the decoder's first convolutions see.
        norm_starts: layer from which on there is group normalisation with `norm_groups`.
        dconv_mode: residual branches in 0 no layer, 1 the encoder, 2 the decoder, 3 both.
        dconv_depth, dconv_comp, dconv_init: see `DConv` (depth, compress, init).
        dconv_attn, dconv_lstm: layer from which on the branches have attention, an LSTM.
        normalize: standardize the mixture, and scale the estimates back.
        resample: work at twice the sample rate.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        sample_rate: int = 44_100,
        channels: int = 2,
        hidden_channels: int = 64,
        growth: float = 2.0,
        depth: int = 6,
        lstm_layers: int = 0,
        kernel_size: int = 8,
        stride: int = 4,
        context: int = 1,
        gelu: bool = True,
        norm_starts: int = 4,
        norm_groups: int = 4,
        dconv_mode: int = 1,
        dconv_depth: int = 2,
        dconv_comp: float = 4,
        dconv_attn: int = 4,
        dconv_lstm: int = 4,
        dconv_init: float = 1e-4,
        normalize: bool = True,
        resample: bool = True,
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.depth = depth
        self.kernel_size = kernel_size
        self.stride = stride
        self.normalize = normalize
        self.resample = Octave() if resample else None
        self.core = DemucsCore(
            channels,
            channels * len(self.stems),
            hidden_channels=hidden_channels,
            growth=growth,
            depth=depth,
            lstm_layers=lstm_layers,
            kernel_size=kernel_size,
            stride=stride,
            context=context,
            gelu=gelu,
            norm_starts=norm_starts,
            norm_groups=norm_groups,
            dconv_mode=dconv_mode,
            dconv_depth=dconv_depth,
            dconv_comp=dconv_comp,
            dconv_attn=dconv_attn,
            dconv_lstm=dconv_lstm,
            dconv_init=dconv_init,
        )
        hide_prefix(self, "core")

    def valid_length(self, length: int) -> int:
        """Return the shortest length >= `length` that the strides divide without a rest."""
        octave = 1 if self.resample is None else 2
        length *= octave
        for _ in range(self.depth):
            length = max(1, math.ceil((length - self.kernel_size) / self.stride) + 1)
        for _ in range(self.depth):
            length = (length - 1) * self.stride + self.kernel_size
        return math.ceil(length / octave)

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        length = mixture.shape[-1]
        x, mean, deviation = mixture, mixture.new_zeros(()), mixture.new_ones(())
        if self.normalize:
            x, mean, deviation = standardize(x, (1, 2), like=mixture.mean(1, keepdim=True))
        missing = self.valid_length(length) - length
        x = F.pad(x, (missing // 2, missing - missing // 2))
        if self.resample is not None:
            x = self.resample.up(x)
        dtype = next(self.core.parameters()).dtype
        y = self.core(x.to(dtype), output_channels(stems, self.channels, x.device)).float()
        if self.resample is not None:
            y = self.resample.down(y)
        estimates: Tensor = center(y * deviation + mean, length).unflatten(1, (-1, self.channels))
        return estimates


class Octave(nn.Module):
    """Sample rate doubled and halved with a windowed sinc.

    The filter keeps 24 zero crossings and cuts off at 0.945 of the lower Nyquist frequency, the
    defaults of the package julius, with which the published models were trained.

    Reference: Smith, "Digital audio resampling home page", 2002.
    """

    zeros = 24
    rolloff = 0.945

    def __init__(self) -> None:
        super().__init__()
        self.radius = math.ceil(self.zeros / self.rolloff)  # in samples of the lower rate
        near = torch.arange(-self.radius, self.radius + 1)
        self.doubling: Tensor
        self.halving: Tensor
        doubling = torch.stack([self.taps(near), self.taps(near - 0.5)])
        self.register_buffer("doubling", doubling, persistent=False)
        halving = self.taps(torch.arange(1 - 2 * self.radius, 2 * self.radius + 1) / 2)
        self.register_buffer("halving", halving, persistent=False)

    def taps(self, time: Tensor) -> Tensor:
        """Return the filter `(1, taps)` at times in samples of the lower rate."""
        t = (time * self.rolloff).clamp(-self.zeros, self.zeros)
        taps = torch.sinc(t) * torch.cos(t * math.pi / self.zeros / 2) ** 2
        return (taps / taps.sum()).unsqueeze(0)  # a constant stays constant

    def up(self, x: Tensor) -> Tensor:
        """Return twice as many samples of `(batch, channels, time)`."""
        padded = F.pad(x.flatten(0, 1), (self.radius, self.radius), mode="replicate")
        phases = F.conv1d(padded.unsqueeze(1), self.doubling)
        y: Tensor = phases.transpose(1, 2).flatten(1).unflatten(0, x.shape[:2])
        return y

    def down(self, x: Tensor) -> Tensor:
        """Return half as many samples of `(batch, channels, time)`, rounded down."""
        padded = F.pad(x.flatten(0, 1), (2 * self.radius - 1, 2 * self.radius), mode="replicate")
        y = F.conv1d(padded.unsqueeze(1), self.halving.unsqueeze(1), stride=2).squeeze(1)
        halved: Tensor = y[:, : x.shape[-1] // 2].unflatten(0, x.shape[:2])
        return halved
