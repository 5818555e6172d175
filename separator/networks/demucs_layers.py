"""Blocks of the Demucs family: convolutions along one axis, and compressed residual branches.

All activations are `(batch, channels, freq, time)`; a waveform has one frequency. They are kept
channels-last in memory (PyTorch's `channels_last`): convolutions on processors are fastest so,
and the same memory reads as sequences of feature vectors `(batch * freq, time, channels)`, which
is what the residual branches, recurrent layers and attention want. No step has to copy.

Parameter names are those of the published checkpoints.

Reference:
    Défossez et al., "Music source separation in the waveform domain", 2019, arXiv 1911.13254;
    Défossez, "Hybrid spectrogram and waveform source separation", 2021, arXiv 2111.03600.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import by_sequences


class TimeConv(nn.Conv1d):
    """Convolution of `(batch, channels, freq, time)` along time, each frequency alike.

    A convolution first brings its weights into the order that its kernel wants. On a processor,
    deep layers with large weights on few samples are faster as one product with the weights as
    they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return `(batch, out_channels, freq, new time)`."""
        large = self.weight.numel() > input.numel() and self.dilation == (1,)
        if large and input.device.type == "cpu":
            return self.product(input)
        stride, dilation = (1, *self.stride), (1, *self.dilation)
        padding = (0, int(self.padding[0]))
        return F.conv2d(input, self.weight.unsqueeze(2), self.bias, stride, padding, dilation)

    def product(self, x: Tensor) -> Tensor:
        """Return the same, as a product of windows and weights."""
        padding = int(self.padding[0])
        samples = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding))
        windows = samples.unfold(2, self.kernel_size[0], self.stride[0]).flatten(3)
        return F.linear(windows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def chosen(
    conv: nn.ConvTranspose1d | nn.ConvTranspose2d, outputs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the weight `(inputs, outputs, freq, time)` and the bias of some outputs, or of all."""
    weight = conv.weight.unsqueeze(2) if conv.weight.ndim == 3 else conv.weight
    bias = weight.new_zeros(weight.shape[1]) if conv.bias is None else conv.bias
    return (weight, bias) if outputs is None else (weight[:, outputs], bias[outputs])


def transposed(
    conv: nn.ConvTranspose1d | nn.ConvTranspose2d, x: Tensor, outputs: Tensor | None = None
) -> Tensor:
    """Apply a transposed convolution, along time if it has one axis, for the chosen outputs."""
    weight, bias = chosen(conv, outputs)
    stride = conv.stride if len(conv.stride) == 2 else (1, *conv.stride)
    return F.conv_transpose2d(x, weight, bias, stride)


class TimeConvTranspose(nn.ConvTranspose1d):
    """Convolution along time with a stride below one; see `TimeConv`."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return `(batch, out_channels, freq, new time)`."""
        return transposed(self, input)


def standardize(
    x: Tensor, dim: tuple[int, ...], like: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return `x` without its mean and by its deviation over `dim`, the mean and the deviation.

    Both are those of `like`, if given. A single sample has deviation zero.
    """
    like = x if like is None else like
    correction = min(1, like[0].numel() - 1)
    mean = like.mean(dim, keepdim=True)
    deviation = like.std(dim, correction=correction, keepdim=True)
    return (x - mean) / (1e-5 + deviation), mean, deviation


def center(x: Tensor, length: int) -> Tensor:
    """Return the middle `length` samples of `(..., time)`; an odd rest goes on the right.

    >>> center(torch.arange(6), 3).tolist()
    [1, 2, 3]
    """
    return x.narrow(-1, (x.shape[-1] - length) // 2, length)


def output_channels(
    stems: Sequence[int] | None, per_stem: int, device: torch.device
) -> Tensor | None:
    """Return the indices of the output channels that belong to the stems; None for all.

    >>> output_channels([2, 0], 2, torch.device("cpu")).tolist()
    [4, 5, 0, 1]
    """
    if stems is None:
        return None
    first = torch.tensor(stems, dtype=torch.long, device=device) * per_stem
    return (first[:, None] + torch.arange(per_stem, device=device)).flatten()


def rescale(module: nn.Module, reference: float = 0.1) -> None:
    """Bring the deviation `s` of every convolution's first weights to `sqrt(s * reference)`."""
    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.Conv2d, nn.ConvTranspose2d)
    with torch.no_grad():
        for conv in (part for part in module.modules() if isinstance(part, kinds)):
            scale = (reference / conv.weight.std()).sqrt()
            for parameter in conv.parameters():
                parameter.mul_(scale)


class LayerScale(nn.Module):
    """Learned gain per channel, small at first, for the output of a residual branch.

    Reference: Touvron et al., "Going deeper with image transformers", 2021, arXiv 2103.17239.
    """

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), float(init)))

    def forward(self, x: Tensor, update: Tensor) -> Tensor:
        """Return `x + scale * update`, both `(..., channels)`."""
        return torch.addcmul(x, update, self.scale)


class BLSTM(nn.Module):
    """Bidirectional LSTM as wide as its input, on overlapping windows of long sequences.

    A window is `max_steps` long and starts half a window after the one before; of each the
    middle half is kept, except at the ends of the sequence.
    """

    def __init__(
        self, dim: int, layers: int = 1, max_steps: int | None = None, skip: bool = False
    ) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.skip = skip
        self.lstm = nn.LSTM(dim, dim, layers, bidirectional=True)
        self.linear = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, dim, 1, time)`."""
        y = x.squeeze(2).transpose(1, 2)  # (batch, time, dim)
        if self.max_steps is None or y.shape[1] <= self.max_steps:
            y = self.recur(y)
        else:
            y = self.windowed(y, self.max_steps)
        y = y.transpose(1, 2).unsqueeze(2)
        return x + y if self.skip else y

    def windowed(self, x: Tensor, width: int) -> Tensor:
        """Transform `(batch, time, dim)` window by window."""
        batch, time, _ = x.shape
        stride = width // 2
        edge = stride // 2
        count = -(-time // stride)
        x = F.pad(x, (0, 0, 0, (count - 1) * stride + width - time))
        windows = x.unfold(1, width, stride).transpose(2, 3)  # (batch, count, width, dim)
        y = self.recur(windows.flatten(0, 1)).unflatten(0, (batch, count))
        middles = y[:, :, edge:-edge].flatten(1, 2)
        return torch.cat([y[:, 0, :edge], middles, y[:, -1, -edge:]], dim=1)[:, :time]

    def recur(self, x: Tensor) -> Tensor:
        """Transform `(sequences, steps, dim)`."""
        y: Tensor = self.linear(self.lstm(x.transpose(0, 1))[0])
        return y.transpose(0, 1)


class LocalAttention(nn.Module):
    """Attention to other moments, the less the further away, at each query's own decay.

    The score of a key `t` for a query `s` is `q_s k_t / sqrt(dim) - slope_s |t - s|`; a moment
    never attends to itself.

    Reference: arXiv 2111.03600, section 3.2.
    """

    def __init__(self, channels: int, heads: int = 4, decays: int = 4) -> None:
        super().__init__()
        if channels % heads:
            raise ConfigError(
                f"Local attention needs a multiple of {heads} channels; got {channels}."
            )
        self.heads = heads
        self.content = TimeConv(channels, channels, 1)
        self.query = TimeConv(channels, channels, 1)
        self.key = TimeConv(channels, channels, 1)
        self.query_decay = TimeConv(channels, heads * decays, 1)
        self.proj = TimeConv(channels, channels, 1)
        with torch.no_grad():  # the widest window at first
            self.query_decay.weight.mul_(0.01)
            nn.init.constant_(cast(Tensor, self.query_decay.bias), -2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, 1, time)`."""
        query, key, content = (
            self.split(part(x)) for part in (self.query, self.key, self.content)
        )  # (batch, heads, time, dim)
        attended = F.scaled_dot_product_attention(query, key, content, attn_mask=self.scores(x))
        merged = attended.transpose(2, 3).flatten(1, 2).unsqueeze(2)
        update: Tensor = self.proj(merged)
        return x + update

    def split(self, x: Tensor) -> Tensor:
        """Return `(batch, heads, time, dim)` from `(batch, heads * dim, 1, time)`."""
        heads: Tensor = x.squeeze(2).unflatten(1, (self.heads, -1))
        return heads.transpose(2, 3)

    def scores(self, x: Tensor) -> Tensor:
        """Return what distance adds to the scores, `(batch, heads, queries, keys)`."""
        decay = self.split(self.query_decay(x)).float().sigmoid()  # (batch, heads, time, decays)
        count = decay.shape[-1]
        rates = torch.arange(1, count + 1, device=x.device) / (2 * count**0.5)
        slope = decay @ rates  # (batch, heads, queries)
        time = torch.arange(x.shape[-1], device=x.device, dtype=torch.float32)
        distance = (time - time[:, None]).abs()
        scores: Tensor = slope.unsqueeze(-1) * -distance
        scores.diagonal(dim1=-2, dim2=-1).fill_(-100.0)
        return scores.to(x.dtype)


class DConv(nn.Module):
    """Residual branches on few channels: dilated convolutions, perhaps an LSTM and attention.

    Every frequency is a sequence of its own. Branch `d` is

        conv (dilation 2^d) -> norm -> activation -> [LSTM -> attention] -> 1x1 -> norm -> GLU

    Args:
        channels: number in input and output.
        compress: by what a branch has fewer channels.
        depth: number of branches, one after the other.
        init: first gain of the branches.
    """

    def __init__(
        self,
        channels: int,
        *,
        compress: float = 4,
        depth: int = 2,
        init: float = 1e-4,
        attention: bool = False,
        lstm: bool = False,
        gelu: bool = True,
    ) -> None:
        super().__init__()
        hidden = int(channels / compress)
        if hidden < 1:
            raise ConfigError(
                f"A residual branch on {channels} channels has none left when 'dconv_comp' divides "
                f"them by {compress}."
            )
        self.layers = nn.ModuleList()
        for dilation in (2**d for d in range(depth)):
            parts: list[nn.Module] = [
                TimeConv(channels, hidden, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(1, hidden),
                nn.GELU() if gelu else nn.ReLU(),
            ]
            if lstm:
                parts.append(BLSTM(hidden, layers=2, max_steps=200, skip=True))
            if attention:
                parts.append(LocalAttention(hidden))
            parts += [
                TimeConv(hidden, 2 * channels, 1),
                nn.GroupNorm(1, 2 * channels),
                nn.GLU(dim=1),
                LayerScale(channels, init),
            ]
            self.layers.append(nn.Sequential(*parts))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, time)`."""
        batch, _, freq, _ = x.shape
        sequences = x.permute(0, 2, 3, 1).flatten(0, 1)  # (batch * freq, time, channels)
        y: Tensor = by_sequences(self.branches, sequences).unflatten(0, (batch, freq))
        return y.permute(0, 3, 1, 2)

    def branches(self, x: Tensor) -> Tensor:
        """Transform `(sequences, time, channels)`."""
        for layer in self.layers:
            *branch, scale = layer.children()
            y = x.transpose(1, 2).unsqueeze(2)  # (sequences, channels, 1, time)
            for part in branch:
                y = part(y)
            x = scale(x, y.squeeze(2).transpose(1, 2))
        return x


class ScaledEmbedding(nn.Module):
    """Learned vector per frequency; `scale` makes it learn faster than other parameters."""

    def __init__(self, count: int, dim: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.embedding = nn.Embedding(count, dim)
        with torch.no_grad():  # neighbours start alike: a random walk, its growth divided out
            walk = self.embedding.weight.cumsum(0)
            steps = torch.arange(1, count + 1, dtype=walk.dtype)
            self.embedding.weight.copy_(walk / steps.sqrt()[:, None] / scale)

    def forward(self) -> Tensor:
        """Return all vectors, `(count, dim)`."""
        return self.embedding.weight * self.scale
