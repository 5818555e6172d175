"""The layers of hybrid Demucs: each shortens or lengthens one axis, and refines.

Both branches use them on `(batch, channels, freq, time)`: a waveform has one frequency, and its
layers work along time. A spectrogram's layers work along frequency until one is left.

Reference: Défossez, "Hybrid spectrogram and waveform source separation", 2021, arXiv 2111.03600.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.networks.demucs_layers import DConv, TimeConv, TimeConvTranspose, chosen, transposed


class Resize(NamedTuple):
    """How a layer changes an axis; its decoder cuts `padding` from either end."""

    axis: Literal["freq", "time"]
    kernel_size: int
    stride: int
    padding: int


class Refine(NamedTuple):
    """What a layer does besides: 0 groups mean no normalisation, None no residual branches.

    `context` neighbours on either side are seen by the gated convolution.
    """

    norm_groups: int
    context: int
    dconv: dict[str, Any] | None


def norm_of(groups: int, channels: int) -> nn.Module:
    """Return a group normalisation, or the identity for no groups."""
    return nn.GroupNorm(groups, channels) if groups else nn.Identity()


def branches_of(refine: Refine, channels: int) -> nn.Module:
    """Return residual branches, or the identity for none."""
    return nn.Identity() if refine.dconv is None else DConv(channels, **refine.dconv)


class Down(nn.Module):
    """One axis shortened by a strided convolution; time is lengthened to a multiple first."""

    def __init__(self, inputs: int, width: int, resize: Resize) -> None:
        super().__init__()
        self.resize = resize
        axis, size, stride, padding = resize
        self.conv: nn.Module
        if axis == "time":
            self.conv = TimeConv(inputs, width, size, stride, padding)
        else:
            self.conv = nn.Conv2d(inputs, width, (size, 1), (stride, 1), (padding, 0))

    def shorten(self, x: Tensor) -> Tensor:
        """Convolve `(batch, inputs, freq, time)`."""
        missing = -x.shape[-1] % self.resize.stride
        if self.resize.axis == "time" and missing:
            x = F.pad(x, (0, missing))
        y: Tensor = self.conv(x)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Return `(batch, width, new freq, new time)`."""
        return self.shorten(x)


class EncoderLayer(Down):
    """One axis shortened, then refined: residual branches and a gated convolution."""

    def __init__(self, inputs: int, width: int, resize: Resize, refine: Refine) -> None:
        super().__init__(inputs, width, resize)
        conv = TimeConv if resize.axis == "time" else nn.Conv2d
        context = refine.context
        self.norm1 = norm_of(refine.norm_groups, width)
        self.rewrite = conv(width, 2 * width, 2 * context + 1, padding=context)
        self.norm2 = norm_of(refine.norm_groups, 2 * width)
        self.dconv = branches_of(refine, width)

    def forward(self, x: Tensor, inject: Tensor | None = None) -> Tensor:
        """Return `(batch, width, new freq, new time)`; `inject` has that shape and is added."""
        y = self.shorten(x)
        if inject is not None:
            y = y + inject
        y = self.dconv(F.gelu(self.norm1(y)))
        return F.glu(self.norm2(self.rewrite(y)), dim=1)


class Up(nn.Module):
    """One axis lengthened by a transposed convolution; the outermost layer has no GELU."""

    def __init__(
        self, width: int, outputs: int, resize: Resize, norm_groups: int, outermost: bool
    ) -> None:
        super().__init__()
        self.resize = resize
        self.outermost = outermost
        axis, size, stride, _ = resize
        self.conv_tr: TimeConvTranspose | nn.ConvTranspose2d
        if axis == "time":
            self.conv_tr = TimeConvTranspose(width, outputs, size, stride)
        else:
            self.conv_tr = nn.ConvTranspose2d(width, outputs, (size, 1), (stride, 1))
        self.norm2 = norm_of(norm_groups, outputs)

    def lengthen(self, y: Tensor, length: int, outputs: Tensor | None = None) -> Tensor:
        """Return `(batch, outputs, new freq, length)`, the chosen outputs only."""
        z = self.norm2(transposed(self.conv_tr, y, outputs))
        padding = self.resize.padding
        if self.resize.axis == "time":
            z = z.narrow(3, padding, length)
        elif padding:
            z = z[:, :, padding:-padding]
        return z if self.outermost else F.gelu(z)

    def forward(self, y: Tensor, length: int) -> Tensor:
        """Return `(batch, outputs, new freq, length)`."""
        return self.lengthen(y, length)


class DecoderLayer(Up):
    """Skip connection added, refined, and one axis lengthened.

    The gated convolution of a spectrogram sees its context along both axes, or, if `context_freq`
    is false, along time only.
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        resize: Resize,
        refine: Refine,
        outermost: bool,
        context_freq: bool = True,
    ) -> None:
        super().__init__(width, outputs, resize, refine.norm_groups, outermost)
        time, freq = refine.context, refine.context if context_freq else 0
        self.rewrite: nn.Module
        if resize.axis == "time":
            self.rewrite = TimeConv(width, 2 * width, 2 * time + 1, padding=time)
        else:
            size = (2 * freq + 1, 2 * time + 1)
            self.rewrite = nn.Conv2d(width, 2 * width, size, padding=(freq, time))
        self.norm1 = norm_of(refine.norm_groups, 2 * width)
        self.dconv = branches_of(refine, width)

    def forward(  # type: ignore[override]
        self, x: Tensor, skip: Tensor, length: int, outputs: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the longer signal, and what it was made from."""
        y = self.dconv(F.glu(self.norm1(self.rewrite(x + skip)), dim=1))
        return self.lengthen(y, length, outputs), y


class BandEncoder(nn.Module):
    """Encoder layer for each frequency band; with equal weights it is one layer.

    `splits` are the upper ends of all bands but the last, as fractions of all frequencies.
    """

    def __init__(
        self, inputs: int, width: int, resize: Resize, refine: Refine, splits: Sequence[float]
    ) -> None:
        super().__init__()
        self.resize = resize
        self.splits = tuple(splits)
        bare = resize._replace(padding=0)
        self.layers = nn.ModuleList(
            EncoderLayer(inputs, width, bare, refine) for _ in range(len(splits) + 1)
        )

    def forward(self, x: Tensor, inject: Tensor | None = None) -> Tensor:
        """Return `(batch, width, freq / stride, time)`."""
        _, size, stride, padding = self.resize
        ends = [round(x.shape[2] * split) + padding for split in self.splits]
        x = F.pad(x, (0, 0, padding, padding))
        edges = [0]  # of the bands, in shortened frequencies
        for end in ends:
            edges.append(edges[-1] + round((end - edges[-1] * stride - size) / stride + 1))
        edges.append((x.shape[2] - size) // stride + 1)
        bands = [
            layer(x[:, :, start * stride : (stop - 1) * stride + size])
            for layer, (start, stop) in zip(self.layers, pairwise(edges), strict=True)
        ]
        return torch.cat(bands, dim=2)


class BandDecoder(nn.Module):
    """Mirror of `BandEncoder`: what transposed convolutions of two bands share is added."""

    def __init__(
        self,
        width: int,
        outputs: int,
        resize: Resize,
        refine: Refine,
        outermost: bool,
        splits: Sequence[float],
    ) -> None:
        super().__init__()
        self.resize = resize
        self.outermost = outermost
        self.splits = tuple(splits)
        bare = resize._replace(padding=0)
        self.layers = nn.ModuleList(
            DecoderLayer(width, outputs, bare, refine, outermost=True, context_freq=False)
            for _ in range(len(splits) + 1)
        )

    def forward(
        self, x: Tensor, skip: Tensor, length: int, outputs: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Return the signal `(batch, outputs, freq * stride, time)`; see `DecoderLayer`."""
        stride, padding = self.resize.stride, self.resize.padding
        freqs = skip.shape[2]
        edges = [0, *(round(freqs * split) for split in self.splits), freqs]
        pieces: list[Tensor] = []
        for layer, (start, stop) in zip(self.layers, pairwise(edges), strict=True):
            assert isinstance(layer, DecoderLayer)
            out, _ = layer(x[:, :, start:stop], skip[:, :, start:stop], length, outputs)
            if pieces:  # the bias counts once
                _, bias = chosen(layer.conv_tr, outputs)
                pieces.append(pieces.pop() + out[:, :, :stride] - bias[:, None, None])
                out = out[:, :, stride:]
            pieces += [out[:, :, :-stride], out[:, :, -stride:]]
        y = torch.cat(pieces, dim=2)[:, :, padding:-padding]
        return (y if self.outermost else F.gelu(y)), None
