"""Spleeter: a U-Net for each stem estimates its magnitudes, and their powers share the mixture.

    |X| in chunks of 512 frames ──> U-Net of each stem ──> sigmoid times |X| ──> o
    mask = (o^2 + e / stems) / (sum o^2 + e) ──> times X ──> inverse STFT

    U-Net:  |X| ─> down ─> down ─> ... ─> down ─┐       down: convolve, halve;  norm, activation
                     └──────┴── skips ─┐        │       up:   double;  activation, norm
            sigmoid <─ up <─ up <─ ... <─ up <──┘

Frames are laid as in Spleeter's own program: 4096 zeros before the track, the first frame on them,
chunks from there. Skips leave before the norm. Shapes inside are `(batch, channels, frames, freq)`.

TensorFlow pads the end of an axis by one more than its beginning, PyTorch does neither or the
opposite. So everything in a U-Net is turned by 180 degrees, its kernels too, and needs no padding.

Reference: Hennequin et al., "Spleeter: a fast and efficient music source separation tool with
pre-trained models", 2020, JOSS 5(50), 2154.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.layers import hide_prefix
from separator.spectral.masks import apply_mask, power_share, ratio_mask, wiener
from separator.spectral.stft import STFT

N_FFT, HOP = 4096, 1024

Activation = Literal["leaky_relu", "elu", "relu"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
    "elu": F.elu,
    "relu": F.relu,
}


class Norm(nn.Module):
    """A batch norm with the constants of Keras, which counts no batches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(batch, channels, frames, freq)`."""
        statistics = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return F.batch_norm(
            x, *statistics, self.weight, self.bias, self.training, momentum=0.01, eps=1e-3
        )


class UnusedNorm(nn.Module):
    """The norm behind the innermost convolution, which stands in the files and changes nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))


class Down(nn.Module):
    """A convolution that halves the resolution, and the norm behind it."""

    def __init__(self, inputs: int, outputs: int, norm: type[Norm] | type[UnusedNorm]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)
        self.norm = norm(outputs)


class Up(nn.Module):
    """A transposed convolution that doubles the resolution, and the norm behind the activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)
        self.norm = Norm(outputs)

    def forward(self, x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """Transform `(batch, inputs, frames, freq)` to `(batch, outputs, 2 frames, 2 freq)`."""
        single = self.conv.out_channels == 1 and not torch.is_grad_enabled()
        doubled = self._single(x) if single else self.conv(x)
        result: Tensor = self.norm(activation(doubled))
        return result

    def _single(self, x: Tensor) -> Tensor:
        """Compute the four outputs of each input side by side, three times as fast for one channel.

        Output 2i + a takes input i + d, for d in -1, 0, 1, times tap a + 2 - 2d, if there is one.
        """
        taps = F.pad(self.conv.weight[:, 0], (0, 1, 0, 1)).unflatten(2, (3, 2)).unflatten(1, (3, 2))
        kernel = taps.permute(2, 4, 0, 1, 3).flip(-2, -1).flatten(0, 1)  # (4, inputs, 3, 3)
        assert self.conv.bias is not None
        parts = F.conv2d(x, kernel, self.conv.bias.expand(4), padding=1)
        return F.pixel_shuffle(parts, 2)


class UNet(nn.Module):
    """The logits of one stem's mask, `(batch, channels, frames, freq)`, from magnitudes like it."""

    def __init__(
        self, channels: int, widths: Sequence[int], down: Activation, up: Activation
    ) -> None:
        super().__init__()
        self.down_activation, self.up_activation = _ACTIVATIONS[down], _ACTIVATIONS[up]
        last = len(widths) - 1
        self.down = nn.ModuleList(
            Down(inputs, outputs, UnusedNorm if depth == last else Norm)
            for depth, (inputs, outputs) in enumerate(pairwise([channels, *widths]))
        )
        # All but the innermost see a skip of their own width beside what comes from below.
        outputs = [*reversed(widths[:-1]), 1]
        inputs = [widths[-1], *(2 * width for width in outputs[:-1])]
        self.up = nn.ModuleList(map(Up, inputs, outputs))
        self.mask = nn.Conv2d(1, channels, 4, dilation=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        *outer, innermost = cast("list[Down]", list(self.down))
        skips = []
        for down in outer:
            skips.append(down.conv(x))
            x = self.down_activation(down.norm(skips[-1]))
        first, *others = self.up
        x = first(innermost.conv(x), self.up_activation)
        for layer in others:
            x = layer(torch.cat([skips.pop(), x], dim=1), self.up_activation)
        result: Tensor = self.mask(x)
        return result


class SpleeterCore(nn.Module):
    """Magnitudes of all stems.

    Shape:
        - input: `(batch, channels, frames, freq)`, magnitudes
        - output: `(batch, stems, channels, frames, freq)`
    """

    def __init__(self, unets: Sequence[UNet], *, softmax: bool) -> None:
        super().__init__()
        self.unets = nn.ModuleList(unets)
        self.softmax = softmax

    def forward(self, magnitude: Tensor) -> Tensor:
        """Return the magnitudes, none above the mixture's."""
        x = magnitude.to(next(self.parameters()).dtype).flip(-2, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        logits = torch.stack([unet(x).flip(-2, -1) for unet in self.unets], dim=1).float()
        masks = logits.softmax(1) if self.softmax else logits.sigmoid()
        return masks * magnitude.unsqueeze(1)


class Spleeter(nn.Module):
    """Spleeter's networks, between its transforms.

    Args:
        stems: names of the outputs; each has a U-Net.
        bins: how many of the lowest bins the networks see: 1024 reach to 11 kHz, 1536 to 16 kHz.
        chunk_frames: frames that they see at once.
        widths: channels of the layers that halve the resolution.
        down_activation: behind these layers.
        up_activation: behind those that double it again.
        softmax: the stems' masks compete before they are multiplied with the magnitudes.
        extension: masks above the highest bin: zeros, or the average over the bins below.
        power: exponent of the magnitudes that share the mixture.
        wiener_iterations: how often the multi-channel Wiener filter refines the estimates, each
            chunk on its own.

    Shape:
        - mixture: `(batch, channels, time)`
        - estimates: `(batch, stems, channels, time)`

    Raises:
        ConfigError: Bins or frames can't be halved as often as there are widths, or there are more
            bins than the spectrogram has.
    """

    def __init__(
        self,
        *,
        stems: Sequence[str],
        bins: int = 1024,
        chunk_frames: int = 512,
        widths: Sequence[int] = (16, 32, 64, 128, 256, 512),
        down_activation: Activation = "leaky_relu",
        up_activation: Activation = "relu",
        softmax: bool = False,
        extension: Literal["zeros", "average"] = "zeros",
        power: float = 2.0,
        wiener_iterations: int = 0,
        sample_rate: int = 44_100,
        channels: int = 2,
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.bins = bins
        self.chunk_frames = chunk_frames
        self.extension = extension
        self.power = power
        self.wiener_iterations = wiener_iterations if len(self.stems) > 1 else 0
        self.stft = STFT(N_FFT, HOP, pad_mode="constant")
        multiple = 2 ** len(widths)
        if bins % multiple or chunk_frames % multiple or not 0 < bins <= self.stft.bins:
            raise ConfigError(
                f"'bins' (up to {self.stft.bins}) and 'chunk_frames' must be multiples of "
                f"{multiple} with {len(widths)} widths; got {bins} and {chunk_frames}."
            )
        self.core = SpleeterCore(
            [UNet(channels, widths, down_activation, up_activation) for _ in self.stems],
            softmax=softmax,
        )
        hide_prefix(self, "core")

    def forward(
        self, mixture: Tensor, *, stems: Sequence[int] | None = None, piece: bool = False
    ) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default).

        Args:
            mixture: `(batch, channels, time)`, a track.
            stems: the chosen ones.
            piece: the mixture is a piece of a track, and only frames inside it count. Near its
                ends, what they leave out is made up for by the weight of those that are there.
        """
        time = mixture.shape[-1]
        frames = -(-(time + N_FFT) // HOP)
        behind = (frames - 1) * HOP - N_FFT // 2 - time
        spectrogram = self.stft(F.pad(mixture, (N_FFT // 2, behind)))
        # Frame k begins at sample k * HOP - N_FFT.
        first, last = (N_FFT // HOP, time // HOP) if piece else (0, frames - 1)
        estimates = self.estimates(spectrogram[..., first : last + 1], stems)
        estimates = F.pad(estimates, (first, frames - 1 - last))
        begin = N_FFT // 2
        signal = self.stft.inverse(estimates, begin + time + behind)[..., begin : begin + time]
        return signal / self.cover(last + 1 - first, time) if piece else signal

    def estimates(self, spectrogram: Tensor, stems: Sequence[int] | None) -> Tensor:
        """Return the spectrograms of the chosen stems, chunk by chunk."""
        found = []
        for chunk in spectrogram.split(self.chunk_frames, dim=-1):
            every = self.separated(chunk)
            found.append(every if stems is None else every[:, list(stems)])
        return torch.cat(found, dim=-1)

    def separated(self, chunk: Tensor) -> Tensor:
        """Return the spectrograms of all stems in `(batch, channels, freq, frames)`."""
        frames = chunk.shape[-1]
        magnitude = chunk[..., : self.bins, :].abs()
        filled = F.pad(magnitude, (0, self.chunk_frames - frames))
        magnitudes = self.core(filled.mT).mT[..., :frames]
        if self.wiener_iterations:
            estimates = apply_mask(self.extended(ratio_mask(magnitudes), "zeros"), chunk)
            return wiener(estimates, chunk, iterations=self.wiener_iterations, segment_frames=None)
        return apply_mask(self.extended(power_share(magnitudes, self.power), self.extension), chunk)

    def extended(self, masks: Tensor, extension: str) -> Tensor:
        """Give all bins a mask, `(batch, stems, channels, freq, frames)`."""
        missing = self.stft.bins - self.bins
        if extension == "zeros":
            return F.pad(masks, (0, 0, 0, missing))
        average = masks.mean(-2, keepdim=True)
        return torch.cat([masks, average.expand(*masks.shape[:3], missing, -1)], dim=-2)

    def cover(self, frames: int, time: int) -> Tensor:
        """Return which share of the windows, squared, so many frames have at each sample."""
        window = self.stft.window.square() / self.stft.window.square().sum() * HOP
        summed = F.conv_transpose1d(window.new_ones(1, 1, frames), window[None, None], stride=HOP)
        cover: Tensor = F.pad(summed[0, 0], (0, time - summed.shape[-1]), value=1.0)
        return cover.clamp_min(torch.finfo(cover.dtype).tiny)
