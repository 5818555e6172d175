"""Hybrid Transformer Demucs (v4): hybrid Demucs with a Transformer across both domains inside.

    spectrogram -> 4 frequency layers -> tokens -+- self - cross - self - cross - self -+-> decoder
                                                 |           X           X             |
    waveform ----> 4 time layers ------> tokens -+- self - cross - self - cross - self -+-> decoder

A token is one frame, in the spectrogram's branch of one of the 8 frequencies left. In a cross
layer either branch attends to the tokens that the other one had before the layer.

Reference: Rouard, Massa and Défossez, "Hybrid Transformers for music source separation", 2023,
arXiv 2211.08553.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.demucs_layers import LayerScale, TimeConv
from separator.networks.hdemucs import Hybrid, HybridCore, Stage, stages
from separator.networks.layers import attend


class MultiheadAttention(nn.Module):
    """Attention from one sequence to another, or to itself.

    Reference: Vaswani et al., "Attention is all you need", 2017, arXiv 1706.03762.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.scale = (dim // heads) ** -0.5
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """Return what each of `(batch, queries, dim)` finds in `(batch, keys, dim)`."""
        query_weight, pair_weight = self.in_proj_weight.tensor_split([x.shape[-1]])
        query_bias, pair_bias = self.in_proj_bias.tensor_split([x.shape[-1]])
        query = self.split(F.linear(x, query_weight, query_bias), 1)[0]
        key, value = self.split(F.linear(source, pair_weight, pair_bias), 2)
        dropout = self.dropout if self.training else 0.0
        out = attend(query * self.scale, key, value, dropout)
        update: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return update

    def split(self, x: Tensor, parts: int) -> Tensor:
        """Return `(parts, batch, heads, length, dim_head)` from `(batch, length, all)`."""
        heads: Tensor = x.unflatten(-1, (parts, self.heads, -1))
        return heads.permute(2, 0, 3, 1, 4)


class TokenNorm(nn.GroupNorm):
    """Norm over all tokens and features at once, then a gain of each feature."""

    def __init__(self, dim: int) -> None:
        super().__init__(1, dim)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize `(batch, length, dim)`."""
        return super().forward(input.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)


class TransformerLayer(nn.Module):
    """Attention, then a map of each token; both normalised before and scaled after.

    Args:
        cross: attend to the other branch.
    """

    def __init__(
        self, dim: int, *, heads: int, hidden: int, dropout: float, init: float, cross: bool
    ) -> None:
        super().__init__()
        self.cross = cross
        # In this order quantised files, which name no parameters, hold them.
        attention = MultiheadAttention(dim, heads, dropout)
        if cross:
            self.cross_attn = attention
        else:
            self.self_attn = attention
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        if cross:
            self.norm3 = nn.LayerNorm(dim)
        self.norm_out = TokenNorm(dim)
        self.gamma_1 = LayerScale(dim, init)
        self.gamma_2 = LayerScale(dim, init)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Transform the tokens `(batch, length, dim)`; a self layer ignores the others."""
        y = self.norm1(x)
        found = self.cross_attn(y, self.norm2(other)) if self.cross else self.self_attn(y, y)
        x = self.gamma_1(x, self.dropout(found))
        y = self.linear1((self.norm3 if self.cross else self.norm2)(x))
        y = self.linear2(self.dropout(F.gelu(y)))
        out: Tensor = self.norm_out(self.gamma_2(x, self.dropout(y)))
        return out


class CrossTransformer(nn.Module):
    """Layers within each branch and layers across them, in turn.

    Shape:
        - spectrogram: `(batch, dim, freq, frames)`
        - waveform: `(batch, dim, 1, time)`
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int,
        heads: int,
        hidden_scale: float,
        dropout: float,
        max_period: float,
        position_weight: float,
        cross_first: bool,
    ) -> None:
        super().__init__()
        self.max_period = max_period
        self.position_weight = position_weight
        self.norm_in = nn.LayerNorm(dim)
        self.norm_in_t = nn.LayerNorm(dim)

        def stack() -> nn.ModuleList:
            return nn.ModuleList(
                TransformerLayer(
                    dim,
                    heads=heads,
                    hidden=int(hidden_scale * dim),
                    dropout=dropout,
                    init=1e-4,
                    cross=(index + cross_first) % 2 == 1,
                )
                for index in range(layers)
            )

        self.layers = stack()
        self.layers_t = stack()

    def forward(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Transform both branches."""
        dim, freqs, frames = x.shape[1:]
        places = grid_positions(dim, freqs, frames, self.max_period).to(x)
        moments = time_positions(dim, xt.shape[-1], self.max_period).to(x)
        x = self.norm_in(tokens(x)) + self.position_weight * places
        xt = self.norm_in_t(tokens(xt)) + self.position_weight * moments
        for layer, layer_t in zip(self.layers, self.layers_t, strict=True):
            x, xt = layer(x, xt), layer_t(xt, x)
        y: Tensor = x.unflatten(1, (freqs, frames))
        return y.permute(0, 3, 1, 2), xt.transpose(1, 2).unsqueeze(2)


def tokens(x: Tensor) -> Tensor:
    """Return `(batch, freq * time, channels)` from `(batch, channels, freq, time)`."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def time_positions(dim: int, length: int, max_period: float) -> Tensor:
    """Return cosines, then sines, of angular frequencies from 1 to 1 / max_period.

    >>> time_positions(4, 2, 100.0)[1]
    tensor([0.5403, 0.9999, 0.8415, 0.0100])
    """
    rates = max_period ** -torch.linspace(0, 1, dim // 2, device="cpu")
    phase = torch.arange(length, device="cpu")[:, None] * rates
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def grid_positions(dim: int, freqs: int, frames: int, max_period: float) -> Tensor:
    """Return positions of frames, then of frequencies, `(freqs * frames, dim)`.

    In either half sines and cosines alternate.
    """
    half = dim // 2
    rates = max_period ** -(torch.arange(0, half, 2, device="cpu") / half)

    def waves(count: int) -> Tensor:
        phase = torch.arange(count, device="cpu")[:, None] * rates
        return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)

    along_time = waves(frames).expand(freqs, frames, half)
    along_freq = waves(freqs)[:, None].expand(freqs, frames, half)
    return torch.cat([along_time, along_freq], dim=-1).flatten(0, 1)


class HTDemucsCore(HybridCore):
    """A `HybridCore` whose decoders start from what the Transformer makes of the codes.

    Args:
        bottom_channels: channels of the Transformer; 0 for those of the innermost layers.
        transformer: options of `CrossTransformer`; see there.
    """

    def __init__(
        self,
        plan: Sequence[Stage],
        stems: int,
        *,
        bottom_channels: int,
        transformer: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(plan, stems, **options)
        width, width_t = plan[-1].width, plan[-1].width_t
        dim = bottom_channels or width
        if dim % 4 or dim % transformer["heads"] or (not bottom_channels and width != width_t):
            raise ConfigError(
                f"The Transformer of HTDemucs has {dim} channels, between branches of {width} and "
                f"{width_t}; it needs a multiple of 4 and of its {transformer['heads']} heads "
                "('bottom_channels' sets it)."
            )
        self.resampled = bottom_channels > 0
        if self.resampled:
            self.channel_upsampler = TimeConv(width, dim, 1)
            self.channel_downsampler = TimeConv(dim, width, 1)
            self.channel_upsampler_t = TimeConv(width_t, dim, 1)
            self.channel_downsampler_t = TimeConv(dim, width_t, 1)
        self.crosstransformer = CrossTransformer(dim, **transformer)

    def between(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoders start from, given the innermost codes."""
        if not self.resampled:
            x, xt = self.crosstransformer(x, xt)
            return x, xt
        x, xt = self.crosstransformer(self.channel_upsampler(x), self.channel_upsampler_t(xt))
        return self.channel_downsampler(x), self.channel_downsampler_t(xt)


class HTDemucs(Hybrid):
    """Hybrid Transformer Demucs (v4).

    Args:
        segment: seconds of the training examples: when it isn't training, the network lengthens
            shorter mixtures to this with zeros. None leaves them as they are. Longer mixtures
            work, though the network has seen no positions beyond.
        bottom_channels: channels of the Transformer; 0 for those of the innermost layers.
        transformer_layers: number of layers in each branch, self and cross alternating.
        transformer_heads, transformer_hidden_scale, transformer_dropout: of each layer; the
            perceptrons are `transformer_hidden_scale` times as wide as the Transformer.
        transformer_max_period: longest period of the positions, in tokens over 2 pi.
        transformer_position_weight: weight of the positions.
        transformer_cross_first: begin with a cross layer.
        others: see `HDemucs`.

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
        segment: float | None = 7.8,
        n_fft: int = 4096,
        complex_as_channels: bool = True,
        wiener_iterations: int = 0,
        hidden_channels: int = 48,
        hidden_channels_time: int | None = None,
        growth: float = 2.0,
        depth: int = 4,
        kernel_size: int = 8,
        stride: int = 4,
        time_stride: int = 2,
        context: int = 1,
        context_enc: int = 0,
        band_splits: Sequence[float] = (),
        band_split_layers: int = 3,
        freq_embedding: float = 0.2,
        freq_embedding_scale: float = 10.0,
        norm_starts: int = 4,
        norm_groups: int = 4,
        dconv_mode: int = 1,
        dconv_depth: int = 2,
        dconv_comp: float = 8,
        dconv_init: float = 1e-3,
        bottom_channels: int = 0,
        transformer_layers: int = 5,
        transformer_heads: int = 8,
        transformer_hidden_scale: float = 4.0,
        transformer_dropout: float = 0.0,
        transformer_max_period: float = 10_000.0,
        transformer_position_weight: float = 1.0,
        transformer_cross_first: bool = False,
    ) -> None:
        plan = stages(
            channels * (2 if complex_as_channels else 1),
            channels,
            n_fft=n_fft,
            width=hidden_channels,
            width_t=hidden_channels_time or hidden_channels,
            growth=growth,
            depth=depth,
            kernel_size=kernel_size,
            stride=stride,
            time_stride=time_stride,
        )
        core = HTDemucsCore(
            plan,
            len(stems),
            bottom_channels=bottom_channels,
            transformer={
                "layers": transformer_layers,
                "heads": transformer_heads,
                "hidden_scale": transformer_hidden_scale,
                "dropout": transformer_dropout,
                "max_period": transformer_max_period,
                "position_weight": transformer_position_weight,
                "cross_first": transformer_cross_first,
            },
            context=context,
            context_enc=context_enc,
            band_splits=band_splits,
            band_split_layers=band_split_layers,
            freq_embedding=freq_embedding,
            freq_embedding_scale=freq_embedding_scale,
            norm_starts=norm_starts,
            norm_groups=norm_groups,
            dconv_mode=dconv_mode,
            dconv_attn=depth,  # none
            dconv_lstm=depth,
            dconv={"depth": dconv_depth, "compress": dconv_comp, "init": dconv_init},
        )
        super().__init__(
            core,
            stems=stems,
            sample_rate=sample_rate,
            channels=channels,
            n_fft=n_fft,
            complex_as_channels=complex_as_channels,
            wiener_iterations=wiener_iterations,
        )
        self.segment_samples = 0 if segment is None else round(segment * sample_rate)

    @property
    def longest_samples(self) -> int | None:
        """How much it can separate at once: its attention knows no larger distances."""
        return self.segment_samples or None

    def valid_length(self, length: int) -> int:
        """Return how many samples it wants to see for a stretch of `length`."""
        return max(length, self.segment_samples)

    def lengthen(self, mixture: Tensor) -> Tensor:
        """Return the mixture, at least as long as a training example unless it is one."""
        missing = self.segment_samples - mixture.shape[-1]
        return mixture if self.training or missing <= 0 else F.pad(mixture, (0, missing))
