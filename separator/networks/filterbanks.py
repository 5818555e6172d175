"""Partitions of the frequency axis for band-split recurrent networks, by name.

The bands of `musical`, `mel`, `bark` and `erb` are the filters of a filter bank. They overlap, and
each bin's mask is the mean of its bands' masks, weighted by the filters. The bands made for one
stem (`vocals`, `drums`, `bass`, `other`) are adjacent.

Reference:
    Watcharasupat et al., "A generalized bandsplit neural network for cinematic audio source
    separation", 2023, arXiv 2309.02539, section III (overlapping);
    Luo and Yu, "Music source separation with band-split RNN", 2022, arXiv 2209.15174, section
    III-B (adjacent).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from separator.errors import ConfigError
from separator.spectral.bands import Bands, coverage, musical_bands, widths
from separator.words import nearest

Array = npt.NDArray[np.float64]

#: Upper edge and width of the bands, in Hz; what is left above is one band.
STEPS = {
    "vocals": ((1e3, 100), (4e3, 250), (8e3, 500), (16e3, 1e3), (20e3, 2e3)),
    "drums": ((1e3, 50), (2e3, 100), (4e3, 250), (8e3, 500), (16e3, 1e3)),
    "bass": ((500, 50), (1e3, 100), (4e3, 500), (8e3, 1e3), (16e3, 2e3)),
}
STEPS["other"] = STEPS["vocals"]


def stepped_bands(stem: str, *, n_fft: int, sample_rate: int) -> Bands:
    """Return the adjacent bands that BSRNN's authors chose for a stem.

    >>> bands = stepped_bands("vocals", n_fft=2048, sample_rate=44100)
    >>> len(bands), bands[:2], bands[-1]
    (43, ((0, 5), (5, 10)), (929, 1025))
    """
    bins = n_fft // 2 + 1
    edges = [0]
    for hertz, width in STEPS[stem]:
        stop = min(round(hertz * n_fft / sample_rate), bins)
        edges += range(edges[-1], stop, max(1, round(width * n_fft / sample_rate)))[1:]
        edges += [stop] if stop > edges[-1] else []
    return tuple(pairwise(edges if edges[-1] == bins else [*edges, bins]))


def triangles(points: Array, frequencies: Array) -> Array:
    """Return triangular filters `(bands, bins)`: each rises and falls between its neighbours.

    What lies below the first filter's first bin belongs to it, too.
    """
    rise = (frequencies - points[:-2, None]) / np.diff(points)[:-1, None]
    fall = (points[2:, None] - frequencies) / np.diff(points)[1:, None]
    filters: Array = np.minimum(rise, fall)
    filters[filters < 1e-6] = 0  # so that rounding can't put a bin at the foot of a filter into it
    filters[0, : (filters[0] > 0).argmax()] = 1
    return filters


def mel_filters(count: int, frequencies: Array) -> Array:
    """Return triangles spaced evenly on the mel scale, 2595 log10(1 + f / 700)."""
    top = np.log10(1 + frequencies[-1] / 700)
    return triangles(700 * (10 ** np.linspace(0, top, count + 2) - 1), frequencies)


def erb_filters(count: int, frequencies: Array) -> Array:
    """Return triangles spaced evenly in equivalent rectangular bandwidths."""
    top = np.log10(1 + 0.00437 * frequencies[-1])
    return triangles((10 ** np.linspace(0, top, count + 2) - 1) / 0.00437, frequencies)


def bark_filters(count: int, frequencies: Array) -> Array:
    """Return filters of one Bark, with slopes of 25 dB per Bark below and 10 dB above.

    The filters reach 1.3 Bark down and 2.5 Bark up; the scale is 6 asinh(f / 600). Frequencies
    are divided by one part in `n_fft` more than the bins', as in the authors' program.
    """
    bins = len(frequencies)
    n_fft = 2 * (bins - 1)
    bark = 6 * np.arcsinh(frequencies * n_fft / (n_fft + 1) / 600)
    centers = np.linspace(0, 6 * np.arcsinh(frequencies[-1] / 600), count)
    distance = bark - centers[:, None]
    filters = np.ones_like(distance)
    below, above = distance <= -0.5, distance >= 0.5
    filters[below] = 10 ** (2.5 * (distance[below] + 0.5))
    filters[above] = 10 ** -(distance[above] - 0.5)
    filters[(distance < -1.3) | (distance > 2.5)] = 0
    filters[:, -1] = 0
    return filters


FILTERS: dict[str, Callable[[int, Array], Array]] = {
    "mel": mel_filters,
    "bark": bark_filters,
    "erb": erb_filters,
}


def partition(name: str, count: int, *, n_fft: int, sample_rate: int) -> tuple[Bands, Tensor]:
    """Return the bands, and the weights of their bins: `(bins of all bands,)`, band after band.

    The weights of each bin sum to one, but for the highest bin: the filters of mel, bark and ERB
    bands vanish there, and so does the estimate.

    Raises:
        ConfigError: An unknown name, or more filters than bins at some frequency.
    """
    if name in STEPS:
        bands = stepped_bands(name, n_fft=n_fft, sample_rate=sample_rate)
        return bands, torch.ones(sum(widths(bands)))
    if name == "musical":
        bands = musical_bands(count, n_fft=n_fft, sample_rate=sample_rate)
        weights = 1 / torch.tensor(coverage(bands))
        return bands, torch.cat([weights[start:stop] for start, stop in bands])
    if name not in FILTERS:
        known = ["musical", *FILTERS, *STEPS]
        raise ConfigError(
            f"Unknown partition '{name}'; known: {', '.join(known)}.{nearest(name, known)}"
        )
    frequencies = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    filters = FILTERS[name](count, frequencies)
    if not filters.any(1).all() or not filters[:, :-1].any(0).all():
        raise ConfigError(
            f"{count} {name} bands don't fit an FFT of {n_fft} points at {sample_rate} Hz: a band "
            "is empty or a bin is left out. Use fewer bands or a longer FFT."
        )
    shares = filters / filters.sum(0).clip(1e-12)
    bands = tuple((int(row.nonzero()[0][0]), int(row.nonzero()[0][-1]) + 1) for row in filters)
    pieces = [row[start:stop] for row, (start, stop) in zip(shares, bands, strict=True)]
    return bands, torch.from_numpy(np.concatenate(pieces)).float()
