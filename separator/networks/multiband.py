"""Several STFTs of one signal as one spectrogram: fine bins for low notes, coarse for high ones.

    mixture ─────────────┬─> STFT ─> some bins ─┐
       └─> half the rate ┼─> STFT ─> some bins ─┼─> low-pass ─> spectrogram
             └─> quarter ┴─> STFT ─> some bins ─┘

    spectrogram ─┬─> ramps, inverse STFT ──────────────────────────┬─> signal
                 ├─> ramps, inverse STFT ──────┬─> twice the rate ─┘
                 └─> ramps, inverse STFT ─> twice the rate

Bands are listed from the lowest up. All have as many hops a second, so that their frames lie side
by side, and the length of the hop tells a band's rate. Neighbours share some frequencies; on the
way back linear ramps over the bins fade one into the other. What lies above the bins of the
highest band, or under the low-pass, is lost.

Reference: tsurumeso and aufr33, vocal-remover (github.com/Anjok07/ultimatevocalremovergui, 2020 to
2023), whose settings of bands and formulas these are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.polyphase import Quality, Resampler
from separator.spectral.masks import mixture_phase
from separator.spectral.stft import STFT

#: From left and right to the channels that a band is seen in. Mono stays mono.
CHANNELS = {
    "mid_side": [[0.5, 0.5], [1.0, -1.0]],
    "mid_side_b2": [[0.5, 1.0], [1.0, -0.5]],
    "mid_side_c": [[1.0, 0.25], [-0.25, 1.0]],
    "stereo_n": [[1 / 0.9375, 0.25 / 0.9375], [0.25 / 0.9375, 1 / 0.9375]],
}


@dataclass(frozen=True)
class Band:
    """Parameters by which a band is analysed.

    Attributes:
        n_fft: size of the transform, in samples of the band's rate.
        hop_length: in samples of the band's rate.
        crop: the first of the bins that are used, and the one behind the last.
        highpass: the bins up to which it is silent and from which it is whole, in the synthesis.
        lowpass: the bins up to which it is whole and from which it is silent, in the synthesis.
        channels: a key of `CHANNELS`, or None for left and right.
    """

    n_fft: int
    hop_length: int
    crop: Sequence[int]
    highpass: Sequence[int] | None = None
    lowpass: Sequence[int] | None = None
    channels: str | None = None

    def __post_init__(self) -> None:
        first, last = self.crop
        if not 0 <= first < last <= self.n_fft // 2 + 1:
            raise ConfigError(
                f"A band of n_fft {self.n_fft} has {self.n_fft // 2 + 1} bins; 'crop' is "
                f"{list(self.crop)}."
            )
        if self.channels not in (None, *CHANNELS):
            raise ConfigError(
                f"'channels' of a band is '{self.channels}'; allowed: {', '.join(CHANNELS)}."
            )

    @property
    def bins(self) -> int:
        """How many bins are used."""
        return self.crop[1] - self.crop[0]

    def gains(self) -> Tensor:
        """Return the ramps of the synthesis, `(n_fft // 2 + 1, 1)`."""
        gains = torch.ones(self.n_fft // 2 + 1, 1)
        if self.highpass is not None:
            gains *= ramp(len(gains), *self.highpass)
        if self.lowpass is not None:
            gains *= 1 - ramp(len(gains), *self.lowpass)
        return gains

    def matrix(self, channels: int) -> Tensor:
        """Return the matrix from a signal's channels to those that the band is seen in."""
        if self.channels is None or channels == 1:
            return torch.eye(channels)
        return torch.tensor(CHANNELS[self.channels])


def ramp(bins: int, start: int, end: int) -> Tensor:
    """Return gains that rise from 0 at the bin `start` to 1 at `end`.

    >>> ramp(6, 1, 5).flatten().tolist()
    [0.0, 0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if start >= end:
        raise ConfigError(f"A ramp needs a first and a later bin; got {start} and {end}.")
    return ((torch.arange(bins)[:, None] - start) / (end - start)).clamp(0, 1)


def rolloff_gains(bins: int, start: int, end: int) -> Tensor:
    """Return gains that are 1 up to the bin `start`, fall, and are 1 again from `end`.

    g(start) = 1,   20 log10 g(b) = -(b - start) (3.5 - g(b - 1)) dB
    """
    gains = torch.ones(bins, 1)
    for bin in range(start + 1, end):
        decibels = -(bin - start) * (3.5 - gains[bin - 1])
        gains[bin] = 10 ** (decibels / 20)
    return gains


class MultiBand(nn.Module):
    """The transform and its inverse.

    Args:
        bands: the arguments of each `Band`, the lowest first.
        channels: number in the signal.
        bins: number in the spectrogram: those of all bands by default; any more are silent.
        lowpass: the bins of the spectrogram up to which it is whole and from which it is silent.
        rolloff: instead, the two bins of `rolloff_gains`.
        downsampling: how bands get their rate; on the way back it is always "sinc".
        reverse: see the bands backwards in time.

    Shape:
        - signal: `(batch, channels, time)`
        - spectrogram: `(batch, channels, bins, frames)`, complex

    Raises:
        ConfigError: A band can't be cut as it says, or `bins` are too few.
    """

    def __init__(
        self,
        *,
        bands: Sequence[Mapping[str, Any]],
        channels: int,
        bins: int | None = None,
        lowpass: Sequence[int] | None = None,
        rolloff: Sequence[int] | None = None,
        downsampling: Quality = "polyphase",
        reverse: bool = False,
    ) -> None:
        super().__init__()
        self.bands = [Band(**band) for band in bands]
        if not self.bands:
            raise ConfigError("A multi-band transform needs at least one band.")
        used = sum(band.bins for band in self.bands)
        self.bins = used if bins is None else bins
        if not used <= self.bins:
            raise ConfigError(f"The bands have {used} bins together, 'bins' are {bins}.")
        self.reverse = reverse
        self.hop_length = self.bands[-1].hop_length
        self.stfts = nn.ModuleList(
            STFT(band.n_fft, band.hop_length, pad_mode="constant") for band in self.bands
        )
        hops = [band.hop_length for band in self.bands]
        steps = list(pairwise(hops))
        self.down = nn.ModuleList(Resampler(low, high, downsampling) for low, high in steps)
        self.up = nn.ModuleList(Resampler(high, low, "sinc") for low, high in steps)
        self.fading = (self.bins, self.bins)
        gains = torch.ones(self.bins, 1)
        if rolloff is not None:
            self.fading = (rolloff[0], rolloff[1])
            gains = rolloff_gains(self.bins, *rolloff)
        if lowpass is not None:
            self.fading = (lowpass[0] + 1, lowpass[1] + 1)
            gains = 1 - ramp(self.bins, *lowpass)
        self._keep("gains", gains)
        for index, band in enumerate(self.bands):
            matrix = band.matrix(channels)
            self._keep(f"ramps{index}", band.gains())
            self._keep(f"forth{index}", matrix)
            self._keep(f"back{index}", torch.linalg.inv(matrix))

    def _keep(self, name: str, constant: Tensor) -> None:
        self.register_buffer(name, constant, persistent=False)

    def analyse(self, signal: Tensor) -> list[Tensor]:
        """Return the spectrogram of each band, whole."""
        with torch.autocast(signal.device.type, enabled=False):
            return self._analysed(signal.float())

    def _analysed(self, signal: Tensor) -> list[Tensor]:
        # Whole hops, and so many that no band has to be extended: all have the same frames then.
        hops = -(-signal.shape[-1] // self.hop_length)
        hops = max(hops, *(band.n_fft // 2 // band.hop_length + 1 for band in self.bands))
        wave = F.pad(signal, (0, hops * self.hop_length - signal.shape[-1]))
        spectrograms: list[Tensor] = []
        for index in reversed(range(len(self.bands))):
            seen = self.get_buffer(f"forth{index}") @ wave
            spectrograms.insert(0, self.stfts[index](seen.flip(-1) if self.reverse else seen))
            if index:
                wave = self.down[index - 1](wave)
        return spectrograms

    def stack(self, spectrograms: Sequence[Tensor]) -> Tensor:
        """Return the bins of all bands as one spectrogram."""
        cropped = [
            x[..., slice(*band.crop), :] for x, band in zip(spectrograms, self.bands, strict=True)
        ]
        stacked = torch.cat(cropped, dim=-2)
        stacked = F.pad(stacked, (0, 0, 0, self.bins - stacked.shape[-2]))
        return stacked * self.get_buffer("gains")

    def forward(self, signal: Tensor) -> Tensor:
        """Return the spectrogram of a signal."""
        return self.stack(self.analyse(signal))

    def inverse(self, spectrogram: Tensor, length: int, highest: Tensor | None = None) -> Tensor:
        """Return the signal of exactly `length` samples; leading dimensions are free.

        Args:
            spectrogram: `(..., channels, bins, frames)`
            length: length of the result.
            highest: what the highest band has in its highest bins, instead of what is known.
        """
        with torch.autocast(spectrogram.device.type, enabled=False):
            wave = self._synthesised(spectrogram, highest)
        return F.pad(wave, (0, length - wave.shape[-1]))

    def _synthesised(self, spectrogram: Tensor, highest: Tensor | None) -> Tensor:
        frames = spectrogram.shape[-1]
        parts = spectrogram[..., : sum(band.bins for band in self.bands), :]
        cropped = parts.split([band.bins for band in self.bands], dim=-2)
        wave: Tensor | None = None
        for index, band in enumerate(self.bands):
            outside = (0, 0, band.crop[0], band.n_fft // 2 + 1 - band.crop[1])
            whole = F.pad(cropped[index], outside)
            if highest is not None and index == len(self.bands) - 1:
                whole[..., -1 - highest.shape[-2] : -1, :] = highest
            whole = whole * self.get_buffer(f"ramps{index}")
            stft = cast(STFT, self.stfts[index])
            signal = stft.inverse(whole, (frames - 1) * band.hop_length)
            if self.reverse:
                signal = signal.flip(-1)
            signal = self.get_buffer(f"back{index}") @ signal
            wave = signal if wave is None else self.up[index - 1](wave) + signal
        assert wave is not None
        return wave

    def mirrored(self, estimates: Tensor, highest: Tensor) -> Tensor:
        """Return what may lie above the bins that are used: those below them, mirrored.

        The magnitudes are the mirrored ones of the estimates, or those of the mixture where these
        are smaller; the phases are the mixture's.

        Args:
            estimates: `(batch, stems, channels, bins, frames)`
            highest: the mixture in the highest band, `(batch, channels, freq, frames)`
        """
        band, (start, end) = self.bands[-1], self.fading
        count = band.n_fft // 2 - band.crop[1] + end - start
        mixture = highest[..., -1 - count : -1, :]
        mirror = estimates[..., start - 10 - count : start - 10, :].abs().flip(-2)
        return mixture_phase(torch.minimum(mixture.abs().unsqueeze(1), mirror), mixture)
