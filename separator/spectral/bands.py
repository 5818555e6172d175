"""Partitions of the frequency axis into bands, and the layers that work band by band.

A partition is a tuple of half-open ranges of bins, in order; bands may overlap. `BandSplit` turns
the bins of each band into one token, `BandMasks` turns tokens back into a mask for every bin.
Both hold the weights of neighbouring bands of equal width as one stacked parameter, so that such
bands are a single batched product. Their state dicts show one entry per band, as the public
band-split checkpoints do.

Reference: Luo and Yu, "Music source separation with band-split RNN", 2022, arXiv 2209.15174.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from math import ceil, floor, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.spectral.mel import mel_filters

Bands = tuple[tuple[int, int], ...]

#: The 62 bands of BS-RoFormer for an FFT of 2048 points (1025 bins).
BS_ROFORMER_WIDTHS = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)


def explicit_bands(widths: Sequence[int], bins: int) -> Bands:
    """Return adjacent bands of the given widths, in bins, which must cover all bins.

    >>> explicit_bands([1, 2, 2], bins=5)
    ((0, 1), (1, 3), (3, 5))

    Raises:
        ConfigError: A width isn't positive, or the widths don't sum to `bins`.
    """
    if min(widths, default=0) < 1 or sum(widths) != bins:
        raise ConfigError(
            f"Band widths must be positive and sum to the {bins} bins of the spectrogram; "
            f"the {len(widths)} given sum to {sum(widths)}."
        )
    return tuple(pairwise(accumulate(widths, initial=0)))


def mel_bands(count: int, *, n_fft: int, sample_rate: int) -> Bands:
    """Return the overlapping mel bands of the public Mel-Band RoFormers.

    A band holds the bins where its triangular filter (Slaney's scale) isn't zero; the first and
    the last bin, where all filters vanish, join the outermost bands.

    Raises:
        ConfigError: So many bands that some hold no bin, or a bin falls between two bands.
    """
    filters = mel_filters(count, n_fft=n_fft, sample_rate=sample_rate) > 0
    filters[0, 0] = filters[-1, -1] = True
    if not (filters.any(axis=0).all() and filters.any(axis=1).all()):
        raise ConfigError(
            f"{count} mel bands don't fit an FFT of {n_fft} points at {sample_rate} Hz: "
            "a band is empty or a bin is left out. Use fewer bands or a longer FFT."
        )
    return tuple((int(band.argmax()), int(band.size - band[::-1].argmax())) for band in filters)


def musical_bands(count: int, *, n_fft: int, sample_rate: int) -> Bands:
    """Return the overlapping bands of Bandit, all of the same musical interval.

    Centres are spaced evenly on a logarithmic axis up to the Nyquist frequency; every band
    reaches one interval, the n-th root of the range that the bins span, to either side.

    Reference: Watcharasupat et al., "A generalized bandsplit neural network for cinematic audio
    source separation", 2023, arXiv 2309.02539, section III.

    Raises:
        ConfigError: The FFT has fewer bins than there are bands, or there is one band only.

    >>> musical_bands(3, n_fft=32, sample_rate=44100)
    ((0, 4), (1, 12), (6, 17))
    """
    bins = n_fft // 2 + 1
    if not 2 <= count <= bins:
        raise ConfigError(f"Between 2 and {bins} musical bands fit {bins} bins; got {count}.")
    resolution = sample_rate / n_fft
    lowest = max(resolution, 440 * 2 ** (-69 / 12))  # note 0 of MIDI
    interval = (bins - 1) ** (1 / count)
    bands = []
    for i in range(count):
        center = lowest * (sample_rate / 2 / lowest) ** (i / (count - 1)) / resolution  # in bins
        bands.append((floor(center / interval), min(ceil(center * interval) + 1, bins)))
    return ((0, bands[0][1]), *bands[1:])


def widths(bands: Bands) -> tuple[int, ...]:
    """Return the number of bins of each band."""
    return tuple(stop - start for start, stop in bands)


def coverage(bands: Bands) -> list[int]:
    """Return in how many bands each bin lies.

    >>> coverage(((0, 2), (1, 3)))
    [1, 2, 1]
    """
    bins = range(max(stop for _, stop in bands))
    return [sum(start <= bin < stop for start, stop in bands) for bin in bins]


def bin_indices(bands: Bands) -> Tensor:
    """Return the bins of all bands, one band after the other."""
    return torch.cat([torch.arange(start, stop) for start, stop in bands])


def runs(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return `(first, count, size)` for each run of equal sizes.

    >>> runs([2, 2, 5, 2])
    [(0, 2, 2), (2, 1, 5), (3, 1, 2)]
    """
    found = (list(run) for _, run in groupby(range(len(sizes)), key=lambda band: sizes[band]))
    return [(run[0], len(run), sizes[run[0]]) for run in found]


def band_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply one linear layer per band, all bands in one batched product.

    Shape:
        - x: `(bands, tokens, inputs)`
        - weight, bias: `(bands, outputs, inputs)`, `(bands, outputs)`
        - result: `(bands, tokens, outputs)`
    """
    return torch.baddbmm(bias.unsqueeze(1), x.to(weight.dtype), weight.mT)


class PerBand(nn.Module, ABC):
    """Stacked parameters that a state dict shows, and loads, as one entry per band."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.runs = runs(sizes)

    @abstractmethod
    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Yield `(public key, view of the stacked parameter)`."""

    def stack(self, name: str, index: int, bands: int, inputs: int, outputs: int) -> None:
        """Register `{name}_weight_{index}` and its bias for as many linear layers as bands."""
        bound = 1 / sqrt(inputs)
        weight = torch.empty(bands, outputs, inputs).uniform_(-bound, bound)
        bias = torch.empty(bands, outputs).uniform_(-bound, bound)
        self.register_parameter(f"{name}_weight_{index}", nn.Parameter(weight))
        self.register_parameter(f"{name}_bias_{index}", nn.Parameter(bias))

    def stacked(self, name: str, index: int) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias that `stack` registered."""
        return (
            self.get_parameter(f"{name}_weight_{index}"),
            self.get_parameter(f"{name}_bias_{index}"),
        )

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for key, view in self.entries():
            destination[prefix + key] = view if keep_vars else view.detach()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        views = {prefix + key: view for key, view in self.entries()}
        for key, view in views.items():
            if key not in state_dict:
                missing_keys.append(key)
            elif state_dict[key].shape != view.shape:
                error_msgs.append(
                    f"{key} has the shape {tuple(state_dict[key].shape)}; "
                    f"this network needs {tuple(view.shape)}."
                )
            else:
                with torch.no_grad():
                    view.copy_(state_dict[key])
        if strict:
            own = (key for key in state_dict if key.startswith(prefix))
            unexpected_keys.extend(key for key in own if key not in views)


class BandTokens(PerBand):
    """Norm of the features of each band, and their projection to one token.

    Shape:
        - input: `(tokens, sum(sizes))`, band after band
        - output: `(bands, tokens, dim)`
    """

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        super().__init__(sizes)
        for run, (_, count, size) in enumerate(self.runs):
            self.add_norm(run, count, size)
            self.stack("feature", run, count, size, dim)

    @abstractmethod
    def add_norm(self, run: int, bands: int, size: int) -> None:
        """Register what `normalized` needs for a run of bands of `size` features."""

    @abstractmethod
    def normalized(self, run: int, features: Tensor) -> Tensor:
        """Normalize the features of a run, `(tokens, bands, size)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens of each band."""
        pieces = x.split_with_sizes([count * size for _, count, size in self.runs], dim=-1)
        tokens = []
        for run, ((_, count, size), piece) in enumerate(zip(self.runs, pieces, strict=True)):
            band = self.normalized(run, piece.reshape(-1, count, size))
            tokens.append(band_linear(band.transpose(0, 1), *self.stacked("feature", run)))
        return torch.cat(tokens)


class BandSplit(BandTokens):
    """Bands as tokens with features scaled to the same root mean square."""

    def add_norm(self, run: int, bands: int, size: int) -> None:
        """Register a scale per feature."""
        self.register_parameter(f"gamma_{run}", nn.Parameter(torch.ones(bands, size)))

    def normalized(self, run: int, features: Tensor) -> Tensor:
        """Scale the features of each band to the same root mean square, then one by one."""
        gamma = self.get_parameter(f"gamma_{run}") * sqrt(features.shape[-1])
        return F.normalize(features, dim=-1) * gamma

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the public keys `to_features.B.{0.gamma,1.weight,1.bias}`."""
        for run, (first, count, _) in enumerate(self.runs):
            weight, bias = self.stacked("feature", run)
            gamma = self.get_parameter(f"gamma_{run}")
            for i in range(count):
                yield f"to_features.{first + i}.0.gamma", gamma[i]
                yield f"to_features.{first + i}.1.weight", weight[i]
                yield f"to_features.{first + i}.1.bias", bias[i]


class BandMasks(PerBand):
    """Mask of one stem: per band, a perceptron with tanh and a gated output.

    `layers` counts the linear layers; all but the last have `hidden` outputs.

    Shape:
        - input: `(bands, tokens, dim)`
        - output: `(tokens, sum(sizes))`, band after band
    """

    def __init__(self, sizes: Sequence[int], dim: int, *, hidden: int, layers: int) -> None:
        super().__init__(sizes)
        self.layers = layers
        for run, (_, count, size) in enumerate(self.runs):
            features = [dim, *[hidden] * (layers - 1), 2 * size]
            for layer, (inputs, outputs) in enumerate(pairwise(features)):
                self.stack(f"layer{layer}", run, count, inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mask values of every band."""
        masks = []
        for run, band in enumerate(x.split([count for _, count, _ in self.runs])):
            for layer in range(self.layers - 1):
                band = band_linear(band, *self.stacked(f"layer{layer}", run)).tanh()
            band = band_linear(band, *self.stacked(f"layer{self.layers - 1}", run))
            masks.append(F.glu(band, dim=-1).transpose(0, 1).flatten(1))
        return torch.cat(masks, dim=-1)

    def entries(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the public keys `to_freqs.B.0.{0,2,...}.{weight,bias}`."""
        for run, (first, count, _) in enumerate(self.runs):
            for layer in range(self.layers):
                weight, bias = self.stacked(f"layer{layer}", run)
                for i in range(count):
                    yield f"to_freqs.{first + i}.0.{2 * layer}.weight", weight[i]
                    yield f"to_freqs.{first + i}.0.{2 * layer}.bias", bias[i]
