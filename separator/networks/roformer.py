"""BS-RoFormer and Mel-Band RoFormer: transformers that alternate between time and frequency.

    mixture -> STFT -> bands -> [attention along time -> along bands] x depth -> masks -> inverse

Hidden states are `(bands, batch, frames, dim)`: the bands are split and merged by products
batched over the first dimension, and the sequences along either axis are views.

Parameter names and numbers are those of the public checkpoints (the graph of lucidrains'
BS-RoFormer 0.3 that Music-Source-Separation-Training uses).

Reference:
    Lu et al., "Music source separation with band-split RoPE transformer", 2023, arXiv 2309.02612;
    Wang et al., "Mel-Band RoFormer for music source separation", 2023, arXiv 2310.01809.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import starmap
from typing import ClassVar

import torch
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import RMSNorm, Transformer, hide_prefix
from separator.networks.positions import Positions
from separator.spectral.bands import (
    BS_ROFORMER_WIDTHS,
    BandMasks,
    Bands,
    BandSplit,
    bin_indices,
    coverage,
    explicit_bands,
    mel_bands,
    widths,
)
from separator.spectral.masks import apply_mask, complex_mask
from separator.spectral.stft import STFT


class RoformerCore(nn.Module):
    """Masks from a spectrogram given as real numbers.

    Shape:
        - input: `(batch, frames, inputs * features)`, features as the bands want them: band after
          band, within it input by input, bin by bin, then channel, then real and imaginary part
        - output: `(batch, stems, frames, features)`, for the first input
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        inputs: int,
        dim: int,
        depth: int,
        stems: int,
        heads: int,
        dim_head: int,
        time_depth: int,
        freq_depth: int,
        ff_expansion: int,
        attention_dropout: float,
        ff_dropout: float,
        mask_layers: int,
        mask_hidden: int,
        norm_each: bool,
        skip_connection: bool,
        positions: Positions,
    ) -> None:
        super().__init__()
        self.skip_connection = skip_connection
        self.band_split = BandSplit([inputs * size for size in sizes], dim)

        def transformer(depth: int) -> Transformer:
            return Transformer(
                dim,
                depth=depth,
                heads=heads,
                dim_head=dim_head,
                ff_expansion=ff_expansion,
                attention_dropout=attention_dropout,
                ff_dropout=ff_dropout,
                norm_output=norm_each,
                positions=positions,
            )

        self.layers = nn.ModuleList(
            nn.ModuleList([transformer(time_depth), transformer(freq_depth)]) for _ in range(depth)
        )
        self.final_norm = None if norm_each else RMSNorm(dim)
        self.mask_estimators = nn.ModuleList(
            BandMasks(sizes, dim, hidden=mask_hidden, layers=mask_layers) for _ in range(stems)
        )

    def forward(self, features: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the masks of the chosen stems (all by default)."""
        batch, frames, _ = features.shape
        tokens = self.band_split(features.flatten(0, 1)).float()  # the residual stays exact
        x = tokens.unflatten(1, (batch, frames))
        earlier: list[Tensor] = []
        for layer in self.layers:
            along_time, along_bands = layer.children()
            x = sum(earlier, x)
            x = along_time(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            x = along_bands(x.flatten(1, 2).transpose(0, 1)).transpose(0, 1)
            x = x.unflatten(1, (batch, frames))  # (bands, batch, frames, dim)
            if self.skip_connection:
                earlier.append(x)
        x = x if self.final_norm is None else self.final_norm(x)
        tokens = x.flatten(1, 2)
        chosen = range(len(self.mask_estimators)) if stems is None else stems
        masks = torch.stack([self.mask_estimators[stem](tokens) for stem in chosen], dim=1)
        return masks.view(batch, frames, *masks.shape[1:]).transpose(1, 2)


class Roformer(nn.Module, ABC):
    """What BS-RoFormer and Mel-Band RoFormer share: everything but the bands.

    Args:
        stems: names of the outputs, in the order of the mask estimators.
        bands: how to partition the bins; see the two networks.
        mask_estimator_depth: number of linear layers of each mask estimator, counted as the
            public configurations do (`extra_mask_layers` are added).
        time_transformer_depth, freq_transformer_depth: blocks per transformer.
        skip_connection: add the outputs of all earlier layers to the input of each.
        zero_dc: silence the lowest bin of the estimates.
        inputs: signals that it hears, one after the other along the channel axis. Masks apply to
            the first; the others, such as another model's estimates, are hints.
        positions: how attention learns of them, see `positions.py`.

    Shape:
        - mixture: `(batch, inputs * channels, time)`
        - estimates: `(batch, stems, channels, time)`
    """

    norm_each: ClassVar[bool]
    extra_mask_layers: ClassVar[int]

    def __init__(
        self,
        *,
        stems: Sequence[str],
        dim: int,
        depth: int,
        bands: Sequence[int] | int | None = None,
        sample_rate: int = 44_100,
        channels: int = 2,
        n_fft: int = 2048,
        hop_length: int = 441,
        win_length: int | None = None,
        normalized: bool = False,
        heads: int = 8,
        dim_head: int = 64,
        time_transformer_depth: int = 1,
        freq_transformer_depth: int = 1,
        ff_expansion: int = 4,
        attention_dropout: float = 0.0,
        ff_dropout: float = 0.0,
        mask_estimator_depth: int = 2,
        mlp_expansion_factor: int = 4,
        skip_connection: bool = False,
        zero_dc: bool = False,
        inputs: int = 1,
        positions: Positions = "rotary",
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.inputs = inputs
        self.zero_dc = zero_dc
        self.stft = STFT(n_fft, hop_length, win_length, normalized=normalized)
        self.bands = self.partition(bands)
        self.heard: Tensor
        self.index: Tensor
        self.count: Tensor
        self.register_buffer("heard", self._heard(), persistent=False)
        self.register_buffer("index", bin_indices(self.bands), persistent=False)
        self.register_buffer("count", torch.tensor(coverage(self.bands)), persistent=False)
        self.core = RoformerCore(
            [2 * channels * width for width in widths(self.bands)],
            inputs=inputs,
            dim=dim,
            depth=depth,
            stems=len(self.stems),
            heads=heads,
            dim_head=dim_head,
            time_depth=time_transformer_depth,
            freq_depth=freq_transformer_depth,
            ff_expansion=ff_expansion,
            attention_dropout=attention_dropout,
            ff_dropout=ff_dropout,
            mask_layers=mask_estimator_depth + self.extra_mask_layers,
            mask_hidden=dim * mlp_expansion_factor,
            norm_each=self.norm_each,
            skip_connection=skip_connection,
            positions=positions,
        )
        hide_prefix(self, "core")

    @abstractmethod
    def partition(self, bands: Sequence[int] | int | None) -> Bands:
        """Return the bands that the argument of the same name asks for.

        Raises:
            ConfigError: It is of the wrong kind, or the bands don't fit the bins.
        """

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        spectrogram = self.stft(mixture)  # (batch, inputs * channels, freq, frames)
        parts = torch.view_as_real(spectrogram).unflatten(1, (self.inputs, self.channels))
        parts = parts.permute(0, 4, 1, 3, 2, 5).flatten(2, 3)  # inputs and bins on one axis
        features = parts[:, :, self.heard].flatten(2)  # (batch, frames, inputs * features)
        masks = self.merge(self.core(features, stems))
        estimates = apply_mask(masks, spectrogram[:, : self.channels])
        if self.zero_dc:
            estimates[..., 0, :] = 0
        return self.stft.inverse(estimates, mixture.shape[-1])

    def _heard(self) -> Tensor:
        """Return the places of all bands' bins, input by input within each band."""
        offsets = self.stft.bins * torch.arange(self.inputs)[:, None]
        return torch.cat([(offsets + bins).flatten() for bins in starmap(torch.arange, self.bands)])

    def merge(self, masks: Tensor) -> Tensor:
        """Return the mask of each bin: the mean over the bands that hold it.

        Shape:
            - masks: `(batch, stems, frames, features)`
            - result: `(batch, stems, channels, freq, frames)`, complex
        """
        mask = complex_mask(masks.unflatten(3, (-1, self.channels, 2)))
        if self.index.numel() > self.count.numel():
            total = mask.new_zeros(*mask.shape[:3], self.count.numel(), self.channels)
            mask = total.index_add(3, self.index, mask) / self.count[:, None]
        return mask.permute(0, 1, 4, 3, 2)


class BSRoformer(Roformer):
    """Band-split RoPE transformer; `bands` lists the widths of adjacent bands, in bins."""

    norm_each = False
    extra_mask_layers = 0

    def partition(self, bands: Sequence[int] | int | None) -> Bands:
        """Return adjacent bands, the 62 of the paper by default."""
        if isinstance(bands, int):
            raise ConfigError(f"'bands' of BS-RoFormer must be a list of widths; got {bands}.")
        return explicit_bands(bands or BS_ROFORMER_WIDTHS, self.stft.bins)


class MelBandRoformer(Roformer):
    """BS-RoFormer on overlapping mel bands; `bands` is their number."""

    norm_each = True
    extra_mask_layers = 1

    def partition(self, bands: Sequence[int] | int | None) -> Bands:
        """Return overlapping mel bands, 60 by default."""
        if not isinstance(bands, int | None):
            raise ConfigError(f"'bands' of Mel-Band RoFormer must be a number; got {bands}.")
        return mel_bands(bands or 60, n_fft=self.stft.n_fft, sample_rate=self.sample_rate)
