"""Open-Unmix and X-UMX: recurrent magnitude masks, one small network per stem, then Wiener filters.

    magnitude of the mixture -> dense -> BiLSTMs, skip -> dense -> dense -> times the magnitude

In X-UMX the stems' networks hear each other: what enters and what leaves their LSTMs is averaged
over all of them. Frames come first in hidden states: `(frames, batch, features)`.

Parameter names are those of the authors' files, one per stem, under `target_models.STEM.`.

Reference:
    Stoeter et al., "Open-Unmix - a reference implementation for music source separation", 2019,
    JOSS 4(41);
    Sawata et al., "All for one and one for all: improving music separation by bridging networks",
    2021, arXiv 2010.04228 (X-UMX).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import hide_prefix
from separator.networks.states import State
from separator.spectral.masks import apply_mask, ratio_mask, wiener, with_residual
from separator.spectral.stft import STFT


class Target(nn.Module):
    """Mask of one stem.

    The means and scales standardise the input per bin and colour the output; training starts
    from statistics of its data.
    """

    def __init__(
        self,
        *,
        bins: int,
        max_bin: int,
        channels: int,
        hidden_size: int,
        layers: int,
        unidirectional: bool,
    ) -> None:
        super().__init__()
        self.max_bin = max_bin
        self.fc1 = nn.Linear(max_bin * channels, hidden_size, bias=False)
        self.bn1 = nn.BatchNorm1d(hidden_size)
        self.lstm = nn.LSTM(
            hidden_size,
            hidden_size if unidirectional else hidden_size // 2,
            num_layers=layers,
            bidirectional=not unidirectional,
            dropout=0.4 if layers > 1 else 0.0,
        )
        self.fc2 = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.bn2 = nn.BatchNorm1d(hidden_size)
        self.fc3 = nn.Linear(hidden_size, bins * channels, bias=False)
        self.bn3 = nn.BatchNorm1d(bins * channels)
        self.input_mean = nn.Parameter(torch.zeros(max_bin))
        self.input_scale = nn.Parameter(torch.ones(max_bin))
        self.output_scale = nn.Parameter(torch.ones(bins))
        self.output_mean = nn.Parameter(torch.ones(bins))

    def encode(self, magnitude: Tensor) -> Tensor:
        """Turn `(frames, batch, channels, freq)` into `(frames, batch, features)`."""
        x = (magnitude[..., : self.max_bin] + self.input_mean) * self.input_scale
        hidden: Tensor = self.bn1(self.fc1(x.flatten(2).flatten(0, 1)))
        return hidden.tanh().reshape(*x.shape[:2], -1)

    def recur(self, hidden: Tensor) -> Tensor:
        """Run the LSTMs over the frames."""
        output: Tensor = self.lstm(hidden)[0]
        return output

    def decode(self, hidden: Tensor, magnitude: Tensor) -> Tensor:
        """Return the mask of the stem, not negative, `(frames, batch, channels, freq)`."""
        x = self.bn2(self.fc2(hidden.flatten(0, 1))).relu()
        mask: Tensor = self.bn3(self.fc3(x)).reshape(magnitude.shape)
        return (mask * self.output_scale + self.output_mean).relu()


class OpenUnmixCore(nn.Module):
    """Masks of the magnitudes for all stems.

    Shape:
        - input: `(batch, channels, freq, frames)`
        - output: `(batch, stems, channels, freq, frames)`
    """

    def __init__(self, targets: dict[str, Target]) -> None:
        super().__init__()
        self.target_models = nn.ModuleDict(targets)

    def forward(self, magnitude: Tensor, stems: Sequence[int] | None = None) -> Tensor:
        """Return the masks of the chosen stems (all by default)."""
        targets: Any = list(self.target_models.children())
        x = magnitude.to(targets[0].fc1.weight.dtype).permute(3, 0, 1, 2)
        chosen = range(len(targets)) if stems is None else stems
        return torch.stack(self.masks(x, targets, chosen)).permute(2, 0, 3, 4, 1)

    def masks(self, x: Tensor, targets: list[Target], chosen: Sequence[int]) -> list[Tensor]:
        """Run the networks of the chosen stems, each on its own."""
        masks = []
        for target in (targets[stem] for stem in chosen):
            hidden = target.encode(x)
            masks.append(target.decode(torch.cat([hidden, target.recur(hidden)], dim=-1), x))
        return masks


class CrossUnmixCore(OpenUnmixCore):
    """Masks by networks that share the averages of their hidden states."""

    def masks(self, x: Tensor, targets: list[Target], chosen: Sequence[int]) -> list[Tensor]:
        """Run all networks up to the decoders, and those of the chosen stems only."""
        shared = torch.stack([target.encode(x) for target in targets]).mean(0)
        recurred = torch.stack([target.recur(shared) for target in targets]).mean(0)
        hidden = torch.cat([shared, recurred], dim=-1)
        return [targets[stem].decode(hidden, x) for stem in chosen]


class OpenUnmix(nn.Module):
    """Open-Unmix: independent networks per stem.

    Args:
        stems: names of the outputs.
        residual: the last stem is what the others leave of the mixture, and has no network.
        max_bin: how many of the lowest bins the networks see; all by default. They estimate all.
        wiener_iterations: how often the multi-channel Wiener filter refines the estimates. With
            none, they have the phase of the mixture.
        wiener_frames: length of the segments that are refined on their own.
        softmask: start the filter from ratio masks in place of the magnitudes themselves.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: No stem is left for a network.
    """

    core_class: ClassVar[type[OpenUnmixCore]] = OpenUnmixCore

    def __init__(
        self,
        *,
        stems: Sequence[str],
        sample_rate: int = 44_100,
        channels: int = 2,
        n_fft: int = 4096,
        hop_length: int = 1024,
        hidden_size: int = 512,
        layers: int = 3,
        unidirectional: bool = False,
        max_bin: int | None = None,
        residual: bool = False,
        wiener_iterations: int = 1,
        wiener_frames: int = 300,
        softmask: bool = False,
    ) -> None:
        super().__init__()
        if len(stems) <= residual:
            raise ConfigError(
                f"Open-Unmix needs a stem besides the residual; got {', '.join(stems) or 'none'}."
            )
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.residual = residual
        self.wiener_iterations = wiener_iterations if len(self.stems) > 1 else 0
        self.wiener_frames = wiener_frames
        self.softmask = softmask
        self.stft = STFT(n_fft, hop_length)
        modelled = self.stems[:-1] if residual else self.stems
        self.core = self.core_class(
            {
                stem: Target(
                    bins=self.stft.bins,
                    max_bin=max_bin or self.stft.bins,
                    channels=channels,
                    hidden_size=hidden_size,
                    layers=layers,
                    unidirectional=unidirectional,
                )
                for stem in modelled
            }
        )
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        spectrogram = self.stft(mixture)
        together = self.residual or self.softmask or self.wiener_iterations > 0
        masks = self.core(spectrogram.abs(), None if together else stems).float()
        estimates = self.initial(masks, spectrogram)
        if together:
            estimates = self.refined(estimates, spectrogram)
            estimates = estimates if stems is None else estimates[:, list(stems)]
        return self.stft.inverse(estimates, mixture.shape[-1])

    def initial(self, masks: Tensor, spectrogram: Tensor) -> Tensor:
        """Return complex estimates with the phase of the mixture."""
        if self.softmask:
            masks = ratio_mask(apply_mask(masks, spectrogram.abs()))
        return apply_mask(masks, spectrogram)

    def refined(self, estimates: Tensor, spectrogram: Tensor) -> Tensor:
        """Append the residual, if it is asked for, and apply the Wiener filter."""
        if self.residual:
            estimates = with_residual(estimates, spectrogram)
        if not self.wiener_iterations:
            return estimates
        return wiener(
            estimates,
            spectrogram,
            iterations=self.wiener_iterations,
            segment_frames=self.wiener_frames,
        )


class CrossUnmix(OpenUnmix):
    """X-UMX: networks that hear each other; all else as in Open-Unmix."""

    core_class = CrossUnmixCore


def from_asteroid(state: State) -> dict[str, Tensor]:
    """Rename the parameters of asteroid's X-UMX, which groups them by layer, to those here.

    >>> list(from_asteroid({"layer_dec.bass.dec.3.weight": 0, "mean_scale.input_mean_bass": 0}))
    ['target_models.bass.fc3.weight', 'target_models.bass.input_mean']
    """
    patterns = {
        r"layer_enc\.(.+)\.enc\.0\.(.+)": r"\1.fc1.\2",
        r"layer_enc\.(.+)\.enc\.1\.(.+)": r"\1.bn1.\2",
        r"layer_lstm\.(.+)\.(.+)": r"\1.lstm.\2",
        r"layer_dec\.(.+)\.dec\.0\.(.+)": r"\1.fc2.\2",
        r"layer_dec\.(.+)\.dec\.1\.(.+)": r"\1.bn2.\2",
        r"layer_dec\.(.+)\.dec\.3\.(.+)": r"\1.fc3.\2",
        r"layer_dec\.(.+)\.dec\.4\.(.+)": r"\1.bn3.\2",
        r"mean_scale\.((?:in|out)put_(?:mean|scale))_(.+)": r"\2.\1",
    }
    renamed = {}
    for key, value in state.items():
        for pattern, name in patterns.items():
            if re.fullmatch(pattern, key):
                renamed["target_models." + re.sub(pattern, name, key)] = value
    return renamed


def infer_hyperparameters(state: State) -> dict[str, Any]:
    """Return what the shapes determine, and the stems, which the keys name."""
    stems = list(dict.fromkeys(key.split(".")[1] for key in state))
    first = f"target_models.{stems[0]}"
    bins = len(state[f"{first}.output_mean"])
    return {
        "stem_count": len(stems),
        "stems": stems,
        "channels": len(state[f"{first}.fc3.weight"]) // bins,
        "n_fft": 2 * (bins - 1),
        "hidden_size": len(state[f"{first}.fc1.weight"]),
        "layers": sum(key.startswith(f"{first}.lstm.weight_hh") for key in state)
        // (2 if f"{first}.lstm.weight_hh_l0_reverse" in state else 1),
        "unidirectional": f"{first}.lstm.weight_hh_l0_reverse" not in state,
        "max_bin": len(state[f"{first}.input_mean"]),
    }
