"""Band-split RNN: recurrent layers that alternate between time and bands, one decoder per stem.

    mixture -> STFT -> bands -> [LSTM along time -> LSTM along bands] x depth -> masks -> inverse
                      '------------- common encoder -------------'     '- decoder of each stem

With the bands of `filterbanks` this is BSRNN (adjacent bands) and its generalisation Bandit
(overlapping ones); `bandit` converts the latter's checkpoints. Every channel of the mixture is
separated on its own. Hidden states are `(bands, batch, frames, dim)`.

Reference:
    Luo and Yu, "Music source separation with band-split RNN", 2022, arXiv 2209.15174;
    Watcharasupat et al., "A generalized bandsplit neural network for cinematic audio source
    separation", 2023, arXiv 2309.02539.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.networks.filterbanks import partition
from separator.networks.layers import hide_prefix
from separator.networks.states import State, numbered
from separator.spectral.bands import (
    Bands,
    BandTokens,
    PerBand,
    band_linear,
    bin_indices,
    explicit_bands,
    widths,
)
from separator.spectral.masks import apply_mask, complex_mask
from separator.spectral.stft import STFT, Padding


class NormBandSplit(BandTokens):
    """Bands as tokens with features of mean 0 and variance 1."""

    def add_norm(self, run: int, bands: int, size: int) -> None:
        """Register a gain and a shift per feature."""
        self.register_parameter(f"gain_{run}", nn.Parameter(torch.ones(bands, size)))
        self.register_parameter(f"shift_{run}", nn.Parameter(torch.zeros(bands, size)))

    def normalized(self, run: int, features: Tensor) -> Tensor:
        """Give the features of each band mean 0 and variance 1, then gains and shifts."""
        gain, shift = self.get_parameter(f"gain_{run}"), self.get_parameter(f"shift_{run}")
        return F.layer_norm(features, features.shape[-1:]) * gain + shift

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the public keys `norm_fc_modules.B.{norm,fc}.{weight,bias}`."""
        for run, (first, count, _) in enumerate(self.runs):
            weight, bias = self.stacked("feature", run)
            for i in range(count):
                key = f"norm_fc_modules.{first + i}"
                yield f"{key}.norm.weight", self.get_parameter(f"gain_{run}")[i]
                yield f"{key}.norm.bias", self.get_parameter(f"shift_{run}")[i]
                yield f"{key}.fc.weight", weight[i]
                yield f"{key}.fc.bias", bias[i]


class NormBandMasks(PerBand):
    """Mask of one stem: per band, a norm and a perceptron with tanh and a gated output.

    Shape:
        - input: `(bands, tokens, dim)`, normalized to mean 0 and variance 1
        - output: `(tokens, sum(sizes))`, band after band
    """

    def __init__(self, sizes: Sequence[int], dim: int, hidden: int) -> None:
        super().__init__(sizes)
        self.gain = nn.Parameter(torch.ones(len(sizes), dim))
        self.shift = nn.Parameter(torch.zeros(len(sizes), dim))
        for run, (_, count, size) in enumerate(self.runs):
            self.stack("hidden", run, count, dim, hidden)
            self.stack("output", run, count, hidden, 2 * size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mask values of every band."""
        masks = []
        for run, (first, count, _) in enumerate(self.runs):
            bands = slice(first, first + count)
            band = x[bands] * self.gain[bands].unsqueeze(1) + self.shift[bands].unsqueeze(1)
            band = band_linear(band, *self.stacked("hidden", run)).tanh()
            band = band_linear(band, *self.stacked("output", run))
            masks.append(F.glu(band, dim=-1).transpose(0, 1).flatten(1))
        return torch.cat(masks, dim=-1)

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the public keys `norm_mlp.B.{norm,hidden.0,output.0}.{weight,bias}`."""
        for run, (first, count, _) in enumerate(self.runs):
            for i, band in enumerate(range(first, first + count)):
                key = f"norm_mlp.{band}"
                yield f"{key}.norm.weight", self.gain[band]
                yield f"{key}.norm.bias", self.shift[band]
                for layer in ("hidden", "output"):
                    weight, bias = self.stacked(layer, run)
                    yield f"{key}.{layer}.0.weight", weight[i]
                    yield f"{key}.{layer}.0.bias", bias[i]


class ResidualRNN(nn.Module):
    """Norm, bidirectional LSTM or GRU and projection, added to the input."""

    def __init__(self, dim: int, hidden: int, rnn: str) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[rnn]
        self.rnn = kind(dim, hidden, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(steps, a, b, dim)`: `a * b` sequences of `steps` vectors."""
        hidden = self.rnn(self.norm(x).flatten(1, 2))[0]
        update: Tensor = self.fc(hidden)
        return x + update.view(x.shape)


class DualPathRNN(nn.Module):
    """Recurrence along time and along bands, in turn."""

    def __init__(self, dim: int, hidden: int, *, modules: int, rnn: str) -> None:
        super().__init__()
        self.seqband = nn.ModuleList(ResidualRNN(dim, hidden, rnn) for _ in range(2 * modules))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(bands, batch, frames, dim)`."""
        layers = list(self.seqband)
        for along_time, along_bands in zip(layers[::2], layers[1::2], strict=True):
            x = along_time(x.transpose(0, 2)).transpose(0, 2)
            x = along_bands(x)
        return x


class BandSplitCore(nn.Module):
    """Masks from a spectrogram given as real numbers.

    Shape:
        - input: `(batch, frames, features)`: band after band, in each the real parts of its bins,
          then the imaginary parts
        - output: `(batch, stems, frames, features)`: band after band, bin after bin
    """

    def __init__(
        self,
        sizes: Sequence[int],
        stems: Sequence[str],
        *,
        dim: int,
        rnn_hidden: int,
        mask_hidden: int,
        modules: int,
        rnn: str,
    ) -> None:
        super().__init__()
        self.band_split = NormBandSplit(sizes, dim)
        self.tf_model = DualPathRNN(dim, rnn_hidden, modules=modules, rnn=rnn)
        self.mask_estim = nn.ModuleDict(
            {stem: NormBandMasks(sizes, dim, mask_hidden) for stem in stems}
        )

    def forward(self, features: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the masks of the chosen stems (all by default)."""
        batch, frames, _ = features.shape
        x = self.band_split(features.flatten(0, 1))
        x = self.tf_model(x.view(len(x), batch, frames, -1))
        x = F.layer_norm(x, x.shape[-1:]).flatten(1, 2)
        decoders = list(self.mask_estim.values())
        chosen = range(len(decoders)) if stems is None else stems
        masks = torch.stack([decoders[stem](x) for stem in chosen])
        return masks.view(len(masks), batch, frames, -1).transpose(0, 1)


class BandSplitRNN(nn.Module):
    """BSRNN, and its generalisation to overlapping bands, Bandit.

    Args:
        stems: names of the outputs; each has a decoder, which can be left out (`without_decoders`).
        bands: "musical", "mel", "bark" or "erb" for overlapping bands, "vocals", "drums", "bass"
            or "other" for BSRNN's adjacent ones, or the widths of adjacent bands in bins.
        band_count: number of overlapping bands.
        modules: pairs of layers, one along time and one along bands.
        rnn: "lstm" or "gru".
        dim, rnn_hidden, mask_hidden: features of a token, of the recurrent layers in either
            direction, and inside the decoders.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: Bands that don't fit the STFT.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        bands: str | Sequence[int] = "musical",
        band_count: int = 64,
        sample_rate: int = 44_100,
        channels: int = 2,
        n_fft: int = 2048,
        hop_length: int = 512,
        win_length: int | None = None,
        pad_mode: Padding = "constant",
        modules: int = 8,
        rnn: Literal["lstm", "gru"] = "lstm",
        dim: int = 128,
        rnn_hidden: int = 256,
        mask_hidden: int = 512,
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.stft = STFT(n_fft, hop_length, win_length, normalized="window", pad_mode=pad_mode)
        if isinstance(bands, str):
            self.bands, weights = partition(bands, band_count, n_fft=n_fft, sample_rate=sample_rate)
        else:
            self.bands = explicit_bands(bands, self.stft.bins)
            weights = torch.ones(self.stft.bins)
        self.features: Tensor
        self.index: Tensor
        self.weights: Tensor
        self.register_buffer("features", feature_indices(self.bands), persistent=False)
        self.register_buffer("index", bin_indices(self.bands), persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.core = BandSplitCore(
            [2 * width for width in widths(self.bands)],
            self.stems,
            dim=dim,
            rnn_hidden=rnn_hidden,
            mask_hidden=mask_hidden,
            modules=modules,
            rnn=rnn,
        )
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        spectrogram = self.stft(mixture)
        mono = spectrogram.flatten(0, 1)  # (batch * channels, freq, frames)
        parts = torch.view_as_real(mono.transpose(1, 2)).flatten(2)  # (batch, frames, 2 * freq)
        masks = self.merge(self.core(parts[:, :, self.features], stems))
        estimates = apply_mask(masks, mono.unsqueeze(1))  # (batch * channels, stems, 1, ...)
        estimates = estimates.view(*spectrogram.shape[:2], *masks.shape[1:2], *mono.shape[1:])
        return self.stft.inverse(estimates.transpose(1, 2), mixture.shape[-1])

    def merge(self, masks: Tensor) -> Tensor:
        """Return the mask of each bin: the weighted mean over the bands that hold it.

        Shape:
            - masks: `(batch, stems, frames, features)`
            - result: `(batch, stems, 1, freq, frames)`, complex
        """
        batch, stems, frames, _ = masks.shape
        parts = masks.float().view(batch, stems, frames, -1, 2) * self.weights.unsqueeze(-1)
        total = parts.new_zeros(batch, stems, frames, self.stft.bins, 2)
        total.index_add_(3, self.index, parts)
        return complex_mask(total).transpose(2, 3).unsqueeze(2)


def feature_indices(bands: Bands) -> Tensor:
    """Return where the real, then the imaginary parts of each band are in pairs of both."""
    starts = [torch.arange(2 * start, 2 * stop, 2) for start, stop in bands]
    return torch.cat([torch.cat([real, real + 1]) for real in starts])


def without_decoders(state: State, stems: Sequence[str]) -> dict[str, Tensor]:
    """Return a state dict less the decoders of the given stems; the encoder serves the others."""
    prefixes = tuple(f"mask_estim.{stem}." for stem in stems)
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine, and the stems, which the keys name.

    The kind of the bands leaves no trace but their widths.
    """
    stems = list(dict.fromkeys(key.split(".")[1] for key in state if key.startswith("mask_estim.")))
    rnn = "tf_model.seqband.0.rnn"
    dim, gates = state[f"{rnn}.weight_ih_l0"].shape[1], len(state[f"{rnn}.weight_ih_l0"])
    rnn_hidden = state[f"{rnn}.weight_hh_l0"].shape[1]
    return {
        "stem_count": len(stems),
        "stems": stems,
        "band_count": numbered(state, "band_split.norm_fc_modules."),
        "modules": numbered(state, "tf_model.seqband.") // 2,
        "rnn": {4: "lstm", 3: "gru"}[gates // rnn_hidden],
        "dim": dim,
        "rnn_hidden": rnn_hidden,
        "mask_hidden": len(state[f"mask_estim.{stems[0]}.norm_mlp.0.hidden.0.bias"]),
    }
