"""SCNet: compress the frequency axis sparsely, model it with dual-path recurrence, expand it.

    mixture -> STFT -> [split into bands, compress each] x 3 -> dual-path LSTMs
                                  | skips                            |
    estimates <- inverse <- [fuse with the skip, expand each band] x 3

Low frequencies keep all their bins, high ones share few. Hidden states are `(batch, channels,
freq, frames)` with the channels last in memory: convolutions are fastest so, and the recurrent
layers read the same memory as sequences of feature vectors.

Parameter names and numbers are those of the authors' checkpoints (Music-Source-Separation-Training
shares them). The STFT has a rectangular window. That program's masked variant has a Hann window,
tells the encoder each bin's place, and turns what the decoder gives into masks of the mixture.

Reference: Tong et al., "SCNet: sparse compression network for music source separation", 2024,
arXiv 2401.13276.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import hide_prefix
from separator.networks.states import State, numbered
from separator.spectral.masks import apply_mask, as_channels, from_channels
from separator.spectral.stft import STFT, Window

MASK = "mask_layer.0.bias"


class Band(NamedTuple):
    """A range of bins, and the convolution that compresses it."""

    bins: int
    kernel: int
    stride: int

    @property
    def padding(self) -> int:
        """Zeros that the band needs, half of them on either side."""
        return self.kernel - 1 if self.stride == 1 else -self.bins % self.stride

    @property
    def compressed(self) -> int:
        """Number of bins after compression."""
        return (self.bins + self.padding - self.kernel) // self.stride + 1


def split_bins(
    bins: int, ratios: Sequence[float], kernels: Sequence[int], strides: Sequence[int]
) -> list[Band]:
    """Share the bins among bands by the given ratios; the last band takes what is left.

    Raises:
        ConfigError: The lists aren't equally long, or a band is too narrow for its kernel.

    >>> [band.bins for band in split_bins(2049, (0.175, 0.392, 0.433), (3, 4, 16), (1, 4, 16))]
    [359, 803, 887]
    """
    if not len(ratios) == len(kernels) == len(strides) > 0:
        raise ConfigError(
            "SCNet needs as many band_ratios as band_kernels and band_strides; got "
            f"{len(ratios)}, {len(kernels)} and {len(strides)}."
        )
    edges = [0, *(math.ceil(bins * ratio) for ratio in accumulate(ratios[:-1])), bins]
    widths = [stop - start for start, stop in pairwise(edges)]
    bands = [Band(*band) for band in zip(widths, kernels, strides, strict=True)]
    if any(band.bins < 1 or band.compressed < 1 or band.kernel < band.stride for band in bands):
        raise ConfigError(
            f"SCNet can't split {bins} bins by the ratios {tuple(ratios)} with kernels "
            f"{tuple(kernels)} and strides {tuple(strides)}: every band needs at least as many "
            "bins as its kernel, and no kernel may be shorter than its stride."
        )
    return bands


class ConvolutionModule(nn.Module):
    """Gated convolutions along time that refine each frequency on its own."""

    def __init__(self, channels: int, *, depth: int, compress: int, kernel: int) -> None:
        super().__init__()
        hidden = channels // compress
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, channels),
                nn.Conv1d(channels, 2 * hidden, kernel, padding=kernel // 2),
                nn.GLU(1),
                nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden),
                nn.GroupNorm(1, hidden),
                nn.SiLU(),
                nn.Conv1d(hidden, channels, 1),
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`."""
        by_bin = x.transpose(1, 2)
        rows = by_bin.flatten(0, 1)  # (batch * freq, channels, frames)
        for layer in self.layers:
            rows = rows + layer(rows)
        return F.gelu(rows).view(by_bin.shape).transpose(1, 2)


class CompressBand(nn.Conv2d):
    """Convolution that shortens one band of the frequency axis."""

    def __init__(self, inputs: int, outputs: int, band: Band) -> None:
        super().__init__(inputs, outputs, (band.kernel, 1), (band.stride, 1))
        self.zeros = (0, 0, band.padding // 2, band.padding - band.padding // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, bins, frames)`."""
        return super().forward(F.pad(x, self.zeros))


class Compress(nn.Module):
    """Convolutions that shorten each band, one a band."""

    def __init__(self, inputs: int, outputs: int, bands: Sequence[Band]) -> None:
        super().__init__()
        self.sizes = [band.bins for band in bands]
        self.convs = nn.ModuleList(CompressBand(inputs, outputs, band) for band in bands)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the compressed bands of `(batch, channels, freq, frames)`."""
        pieces = x.split_with_sizes(self.sizes, dim=2)
        return [conv(piece) for conv, piece in zip(self.convs, pieces, strict=True)]


class ExpandBand(nn.ConvTranspose2d):
    """Transposed convolution that lengthens one band of the frequency axis again."""

    def __init__(self, inputs: int, outputs: int, band: Band) -> None:
        super().__init__(inputs, outputs, (band.kernel, 1), (band.stride, 1))
        self.bins = band.bins

    def forward(self, x: Tensor, outputs: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Return the output channels with the given indices (all by default)."""
        chosen = slice(None) if outputs is None else outputs
        bias = None if self.bias is None else self.bias[chosen]
        full = F.conv_transpose2d(x, self.weight[:, chosen], bias, self.stride)
        start = (full.shape[2] - self.bins) // 2
        return full[:, :, start : start + self.bins]


class Expand(nn.Module):
    """Transposed convolutions that lengthen each band again, one a band."""

    def __init__(self, inputs: int, outputs: int, bands: Sequence[Band]) -> None:
        super().__init__()
        self.sizes = [band.compressed for band in bands]
        self.convtrs = nn.ModuleList(ExpandBand(inputs, outputs, band) for band in bands)

    def forward(self, x: Tensor, outputs: Tensor | None = None) -> Tensor:
        """Return all bins of the output channels with the given indices (all by default)."""
        pieces = zip(self.convtrs, x.split_with_sizes(self.sizes, dim=2), strict=True)
        return torch.cat([conv(piece, outputs) for conv, piece in pieces], dim=2)


class EncoderBlock(nn.Module):
    """Bands shortened, refined separately, then mixed."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bands: Sequence[Band],
        *,
        conv_depths: Sequence[int],
        compress: int,
        conv_kernel: int,
    ) -> None:
        super().__init__()
        self.SDlayer = Compress(inputs, outputs, bands)
        self.conv_modules = nn.ModuleList(
            ConvolutionModule(outputs, depth=depth, compress=compress, kernel=conv_kernel)
            for depth in conv_depths
        )
        self.globalconv = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input of the next block and the skip to the decoder."""
        bands = zip(self.conv_modules, self.SDlayer(x), strict=True)
        skip = channels_last(torch.cat([refine(band) for refine, band in bands], dim=2))
        return self.globalconv(skip), skip


class Fusion(nn.Module):
    """Sum with the skip, and convolutions of two copies of it, one of which gates the other.

    A convolution of two equal copies is one with the sum of both halves of the weight.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Fuse two tensors `(batch, channels, freq, frames)`."""
        value, copy = self.conv.weight.chunk(2, dim=1)
        return F.glu(F.conv2d(x + skip, value + copy, self.conv.bias, padding=1), dim=1)


class DualPath(nn.Module):
    """LSTM along frequency, then one along time, both bidirectional and residual."""

    def __init__(self, channels: int, expand: int) -> None:
        super().__init__()
        hidden = channels * expand
        self.lstm_layers = nn.ModuleList(
            nn.LSTM(channels, hidden, bidirectional=True) for _ in range(2)
        )
        self.linear_layers = nn.ModuleList(nn.Linear(2 * hidden, channels) for _ in range(2))
        self.norm_layers = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`."""
        for path, order in enumerate([(2, 0, 3, 1), (3, 0, 2, 1)]):
            sequences = self.norm_layers[path](x).permute(order)  # (steps, batch, rest, channels)
            hidden = self.lstm_layers[path](sequences.flatten(1, 2))[0]
            update = self.linear_layers[path](hidden).view(sequences.shape)
            x = x + update.permute([order.index(axis) for axis in range(4)])
        return x


class SeparationNet(nn.Module):
    """Dual-path blocks on frames and on the spectrum along time, in turn."""

    def __init__(self, channels: int, *, expand: int, layers: int) -> None:
        super().__init__()
        self.dp_modules = nn.ModuleList(
            DualPath(channels * (1 + layer % 2), expand) for layer in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`; the number of frames must be even."""
        for layer, block in enumerate(self.dp_modules):
            x = block(x)
            x = from_time_spectrum(x) if layer % 2 else to_time_spectrum(x)
        return x


def mask_head(channels: int, hidden: int) -> nn.Sequential:
    """Return layers that make masks, real and imaginary parts within +-1."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(hidden, channels, 1),
        nn.Tanh(),
    )


def channels_last(x: Tensor) -> Tensor:
    """Return `(batch, channels, freq, frames)` with its channels last in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def to_time_spectrum(x: Tensor) -> Tensor:
    """Return real, then imaginary parts of the Fourier transform along time as channels."""
    spectrum = torch.fft.rfft(x.float(), norm="ortho")
    return channels_last(torch.cat([spectrum.real, spectrum.imag], dim=1)).to(x.dtype)


def from_time_spectrum(x: Tensor) -> Tensor:
    """Invert `to_time_spectrum`."""
    spectrum = torch.complex(*x.float().chunk(2, dim=1))
    return channels_last(torch.fft.irfft(spectrum, norm="ortho")).to(x.dtype)


class SCNetCore(nn.Module):
    """Spectrograms of the stems (or masks) from that of the mixture, as real channels.

    Shape:
        - input: `(batch, dims[0], freq, frames)`, an even number of frames
        - output: `(batch, stems * dims[0], freq, frames)`
    """

    def __init__(
        self,
        bins: int,
        *,
        stems: int,
        dims: Sequence[int],
        band_ratios: Sequence[float],
        band_kernels: Sequence[int],
        band_strides: Sequence[int],
        conv_depths: Sequence[int],
        compress: int,
        conv_kernel: int,
        layers: int,
        expand: int,
        mask_hidden: int,
    ) -> None:
        super().__init__()
        self.dims = tuple(dims)
        if mask_hidden:
            self.pos_embed_f = nn.Parameter(0.02 * torch.randn(1, dims[0], bins, 1))
            self.mask_layer = mask_head(stems * dims[0], mask_hidden)
        self.masked = mask_hidden > 0
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level, (outer, inner) in enumerate(pairwise(dims)):
            bands = split_bins(bins, band_ratios, band_kernels, band_strides)
            block = EncoderBlock(
                outer,
                inner,
                bands,
                conv_depths=conv_depths,
                compress=compress,
                conv_kernel=conv_kernel,
            )
            self.encoder.append(block)
            outputs = outer if level else outer * stems
            self.decoder.insert(0, nn.ModuleList([Fusion(inner), Expand(inner, outputs, bands)]))
            bins = sum(band.compressed for band in bands)
        self.separation_net = SeparationNet(dims[-1], expand=expand, layers=layers)

    def forward(self, x: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the spectrograms, or masks, of the chosen stems (all by default)."""
        x = x.to(next(self.parameters()).dtype)
        x = channels_last(x + self.pos_embed_f if self.masked else x)
        skips = []
        for block in self.encoder:
            x, skip = block(x)
            skips.append(skip)
        x = self.separation_net(x)
        heads = None
        if stems is not None:
            each = torch.arange(self.dims[0], device=x.device)
            heads = torch.cat([stem * self.dims[0] + each for stem in stems])
        for block in self.decoder:
            fusion, expand = block.children()
            x = fusion(x, skips.pop())
            x = expand(x, None if skips or self.masked else heads)
        if not self.masked:
            return x
        masks: Tensor = self.mask_layer(x)
        return masks if heads is None else masks[:, heads]


class SCNet(nn.Module):
    """Sparse compression network.

    Args:
        stems: names of the outputs, in the order of the last layer's channels.
        dims: channels of the input (real and imaginary parts) and after each encoder block.
        band_ratios: shares of the bins that the bands get, low to high.
        band_kernels, band_strides: how each band is compressed, per block.
        conv_depths: gated convolution layers per band.
        compress: factor between the channels and those inside the gated convolutions.
        dual_path_layers: number of dual-path blocks; even.
        expand: factor between the channels and the LSTM's.
        mask_hidden: channels inside the layers of the masked variant that make masks; 0 for the
            other one, which predicts the spectrograms themselves.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: Bands that don't fit the bins, an odd number of dual-path blocks, or
            `dims[0]` other than two per channel.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        dims: Sequence[int] = (4, 32, 64, 128),
        sample_rate: int = 44_100,
        channels: int = 2,
        n_fft: int = 4096,
        hop_length: int = 1024,
        win_length: int | None = None,
        normalized: bool = True,
        band_ratios: Sequence[float] = (0.175, 0.392, 0.433),
        band_kernels: Sequence[int] = (3, 4, 16),
        band_strides: Sequence[int] = (1, 4, 16),
        conv_depths: Sequence[int] = (3, 2, 1),
        compress: int = 4,
        conv_kernel: int = 3,
        dual_path_layers: int = 6,
        expand: int = 1,
        mask_hidden: int = 0,
    ) -> None:
        super().__init__()
        if dual_path_layers % 2 or dims[0] != 2 * channels:
            raise ConfigError(
                "SCNet needs an even number of dual_path_layers and dims[0] of two per channel; "
                f"got {dual_path_layers} layers and {dims[0]} for {channels} channel(s)."
            )
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        window: Window = "hann" if mask_hidden else None
        self.stft = STFT(n_fft, hop_length, win_length, window=window, normalized=normalized)
        self.core = SCNetCore(
            self.stft.bins,
            stems=len(self.stems),
            dims=dims,
            band_ratios=band_ratios,
            band_kernels=band_kernels,
            band_strides=band_strides,
            conv_depths=conv_depths,
            compress=compress,
            conv_kernel=conv_kernel,
            layers=dual_path_layers,
            expand=expand,
            mask_hidden=mask_hidden,
        )
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        length = mixture.shape[-1]
        spectrogram = self.stft(F.pad(mixture, (0, self.padded(length) - length)))
        parts = from_channels(self.core(as_channels(spectrogram), stems), self.channels)
        if self.core.masked:
            parts = apply_mask(parts, spectrogram)
        return self.stft.inverse(parts, length)

    def padded(self, length: int) -> int:
        """Return the next number of hops, and an odd one: the frames, one more, are even."""
        hop = self.stft.hop_length
        hops = max(length // hop + 1, math.ceil(self.stft.bins / hop))
        return (hops + 1 - hops % 2) * hop


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine; the shares of the bands and the STFT leave no trace.

    A kernel of 3 is taken to step by 1 and any other by its length, as in all known models.
    """
    levels = numbered(state, "encoder.")
    bands = range(numbered(state, "encoder.0.SDlayer.convs."))
    inputs = state["encoder.0.SDlayer.convs.0.weight"].shape[1]
    dims = [inputs, *(len(state[f"encoder.{level}.globalconv.bias"]) for level in range(levels))]
    kernels = [state[f"encoder.0.SDlayer.convs.{band}.weight"].shape[2] for band in bands]
    module = "encoder.0.conv_modules"
    return {
        "stem_count": len(state[f"decoder.{levels - 1}.1.convtrs.0.bias"]) // inputs,
        "dims": dims,
        "channels": inputs // 2,
        "band_kernels": kernels,
        "band_strides": [1 if kernel == 3 else kernel for kernel in kernels],
        "conv_depths": [numbered(state, f"{module}.{band}.layers.") for band in bands],
        "compress": dims[1] // state[f"{module}.0.layers.0.6.weight"].shape[1],
        "conv_kernel": state[f"{module}.0.layers.0.1.weight"].shape[2],
        "dual_path_layers": numbered(state, "separation_net.dp_modules."),
        "expand": state["separation_net.dp_modules.0.lstm_layers.0.weight_hh_l0"].shape[1]
        // dims[-1],
    } | ({"mask_hidden": len(state[MASK])} if MASK in state else {})
