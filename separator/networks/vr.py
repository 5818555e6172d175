"""What the networks of vocal-remover share: all but the cascade that finds the mask.

    mixture ──> multi-band STFT X ──> |X| / the loudest ──> windows ──> cascade ──> mask m
    first stem  <── inverse <── X m^p
    second stem <── inverse <── X (1 - m^p)

That is what Ultimate Vocal Remover does with a track as a whole, and the defaults are its own:
magnitudes are relative to the loudest one of the track, windows have 512 frames, of which the outer
ones are thrown away, and highest frequencies that the bands leave out are silent in both stems.

Reference: tsurumeso and aufr33, vocal-remover (github.com/Anjok07/ultimatevocalremovergui, 2020 to
2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import hide_prefix
from separator.networks.multiband import MultiBand
from separator.spectral.masks import apply_mask

#: Silence divides by something.
TINY = torch.finfo(torch.float32).tiny
#: Windows that go through the cascade together; more of them only take more memory.
WINDOWS_AT_ONCE = 4


class ConvBlock(nn.Module):
    """Convolutions, a norm and an activation; `slope` is that of a leaky one."""

    def __init__(self, *convs: nn.Conv2d, slope: float = 0.0) -> None:
        super().__init__()
        activation = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
        self.conv = nn.Sequential(*convs, nn.BatchNorm2d(convs[-1].out_channels), activation)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`."""
        if self.training or torch.is_grad_enabled():
            result: Tensor = self.conv(x)
            return result
        *before, last, norm, activation = self.conv
        for layer in before:
            x = layer(x)
        return cast(
            Tensor, activation(_normed(x, cast(nn.Conv2d, last), cast(nn.BatchNorm2d, norm)))
        )


def _normed(x: Tensor, layer: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """Convolve, with the norm's gains and offsets in the weights: that saves a pass."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = layer.weight * gain[:, None, None, None]
    bias = norm.bias - norm.running_mean * gain
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def conv(inputs: int, outputs: int, *, stride: int = 1, dilation: Any = 1) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size, or divides it by the stride."""
    return nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 1x1 convolution."""
    return nn.Conv2d(inputs, outputs, 1, bias=False)


class Average(nn.Sequential):
    """Average over the frequencies, transformed, as the value of each frequency."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d((1, None)), ConvBlock(pointwise(inputs, outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Transform `(batch, channels, freq, frames)`."""
        freq = x.shape[2]
        for layer in self:
            x = layer(x)
        return x.expand(-1, -1, freq, -1)


def doubled(x: Tensor, skip: Tensor) -> Tensor:
    """Double the resolution, linearly between corners, and append the skip."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    return torch.cat([x, skip], dim=1)


class Unused(nn.Module):
    """A convolution whose answer only the training of its authors asked for."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, inputs, 1, 1))


class VrNet(nn.Module):
    """Two stems, by a mask and what it leaves.

    Args:
        stems: the name of what the mask lets through, and that of the rest.
        front_end: makes the spectrogram.
        core: finds masks `(windows, channels, bins, frames)` of magnitudes of that shape.
        halvings: how often the core halves frames, and half the bins.
        margin: frames at either end of a window whose mask is thrown away.
        window_frames: frames of a window.
        aggressiveness: masks are raised to the power 1 + a / 3 in the bins of the lowest band and
            to 1 + a in all others.
        mirror: fill the highest frequencies, see `MultiBand.mirrored`.

    Raises:
        ConfigError: There aren't two stems, or windows or bins can't be halved so often.
    """

    def __init__(
        self,
        stems: Sequence[str],
        front_end: MultiBand,
        core: nn.Module,
        *,
        halvings: int,
        margin: int,
        window_frames: int,
        aggressiveness: float,
        mirror: bool,
        sample_rate: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        if len(self.stems) != 2:
            raise ConfigError(f"A mask separates two stems, it and the rest; got {len(stems)}.")
        self.sample_rate = sample_rate
        self.channels = channels
        self.window_frames = window_frames
        self.margin = margin
        self.mirror = mirror
        self.front_end = front_end
        multiple = 2**halvings
        if self.front_end.bins % (2 * multiple) or window_frames % multiple:
            raise ConfigError(
                f"The bins must be a multiple of {2 * multiple} and the frames of a window one of "
                f"{multiple}; got {self.front_end.bins} and {window_frames}."
            )
        if self.step < 1:
            raise ConfigError(f"'window_frames' must be more than {2 * margin}.")
        powers = torch.full((self.front_end.bins, 1), 1 + aggressiveness)
        powers[: self.front_end.bands[0].bins] = 1 + aggressiveness / 3
        self.register_buffer("powers", powers, persistent=False)
        self.core = core
        hide_prefix(self, "core")

    @property
    def step(self) -> int:
        """Frames of a window whose mask is used."""
        return self.window_frames - 2 * self.margin

    def valid_length(self, samples: int) -> int:
        """Return for how many samples no mask lacks what lies around it."""
        return samples + 2 * self.margin * self.front_end.hop_length

    def loudest(self, mixture: Tensor) -> Tensor:
        """Return the largest magnitude in the spectrogram, `(batch,)`."""
        spectrogram: Tensor = self.front_end(mixture)
        return spectrogram.abs().amax((1, 2, 3))

    def forward(
        self,
        mixture: Tensor,
        *,
        stems: Sequence[int] | None = None,
        loudest: float | None = None,
    ) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default).

        Args:
            mixture: `(batch, channels, time)`
            stems: the chosen ones.
            loudest: the largest magnitude in the track that the mixture is a piece of; that of
                each mixture itself by default.
        """
        spectrograms = self.front_end.analyse(mixture)
        spectrogram = self.front_end.stack(spectrograms)
        magnitude = spectrogram.abs()
        level = magnitude.amax((1, 2, 3), keepdim=True) if loudest is None else loudest
        level = torch.as_tensor(level, device=mixture.device).clamp_min(TINY)
        mask = self.masks(magnitude / level) ** self.get_buffer("powers")
        masks = torch.stack([mask, 1 - mask], dim=1)
        if stems is not None:
            masks = masks[:, list(stems)]
        estimates = apply_mask(masks, spectrogram)
        highest = self.front_end.mirrored(estimates, spectrograms[-1]) if self.mirror else None
        return self.front_end.inverse(estimates, mixture.shape[-1], highest)

    def masks(self, magnitude: Tensor) -> Tensor:
        """Return the masks of `(batch, channels, bins, frames)`, window by window."""
        batch, _, _, frames = magnitude.shape
        count = -(-frames // self.step)
        padding = (self.margin, count * self.step - frames + self.margin)
        windows = F.pad(magnitude, padding).unfold(-1, self.window_frames, self.step)
        windows = windows.movedim(-2, 1).flatten(0, 1)  # (batch * count, channels, bins, frames)
        found = torch.cat([self.core(some) for some in windows.split(WINDOWS_AT_ONCE)])
        middles: Tensor = found[..., self.margin : -self.margin].unflatten(0, (batch, count))
        return middles.movedim(1, -2).flatten(-2)[..., :frames]
