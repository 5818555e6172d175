"""Hybrid Demucs: one U-Net on the spectrogram and one on the waveform, which meet in the middle.

    spectrogram -> frequency layers -+              +-> frequency layers -> inverse STFT -+
                                     + time layers -+                                     + -> stems
    waveform ----> time layers ------+              +-> time layers ----------------------+

A frequency layer shortens the frequency axis, fourfold as a rule, until one frequency is left;
then spectrogram and waveform have the same number of frames and are added. Decoders mirror
encoders, with skip connections.

Reference: Défossez, "Hybrid spectrogram and waveform source separation", 2021, arXiv 2111.03600.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import ConfigError
from separator.networks.demucs_layers import ScaledEmbedding, output_channels, rescale, standardize
from separator.networks.hybrid_layers import (
    BandDecoder,
    BandEncoder,
    DecoderLayer,
    Down,
    EncoderLayer,
    Refine,
    Resize,
    Up,
)
from separator.networks.layers import hide_prefix
from separator.spectral.masks import as_channels, from_channels, mixture_phase, wiener
from separator.spectral.stft import STFT


class Stage(NamedTuple):
    """The sizes of one depth of the two U-Nets; `_t` is the waveform's branch.

    There are two branches as long as there is `resize_t`; at the innermost of them they merge.
    """

    resize: Resize
    resize_t: Resize | None
    merge: bool
    freqs: int  # that leave
    inputs: int
    inputs_t: int
    width: int
    width_t: int


def stages(
    inputs: int,
    inputs_t: int,
    *,
    n_fft: int,
    width: int,
    width_t: int,
    growth: float,
    depth: int,
    kernel_size: int,
    stride: int,
    time_stride: int,
) -> list[Stage]:
    """Return the stages from outside to inside.

    Raises:
        ConfigError: The branches meet with different numbers of frames, or at once.
    """
    plan: list[Stage] = []
    freqs = n_fft // 2
    for index in range(depth):
        merge = 1 < freqs <= kernel_size
        resize_t = Resize("time", kernel_size, stride, kernel_size // 4) if freqs > 1 else None
        if freqs == 1:
            resize = Resize("time", 2 * time_stride, time_stride, time_stride // 2)
        elif merge:
            resize = Resize("freq", freqs, stride, 0)
            width = width_t = max(width, width_t)
            if index == 0 or stride ** (index + 1) != n_fft // 4:
                raise ConfigError(
                    f"Hybrid Demucs can't merge its branches after {index + 1} layers of stride "
                    f"{stride} with n_fft {n_fft}: their strides must multiply to n_fft / 4."
                )
        else:
            resize = Resize("freq", kernel_size, stride, kernel_size // 4)
        freqs = 1 if freqs <= kernel_size else freqs // stride
        plan.append(Stage(resize, resize_t, merge, freqs, inputs, inputs_t, width, width_t))
        inputs, inputs_t = width, width_t
        width, width_t = int(growth * width), int(growth * width_t)
    return plan


def check_bands(plan: Sequence[Stage], splits: Sequence[float], layers: int, normed: int) -> None:
    """Refuse bands where there are none.

    Raises:
        ConfigError: The splits don't rise between 0 and 1, or a layer has no frequencies to split,
            or a normalisation that would join the bands again.
    """
    edges = (0.0, *splits, 1.0)
    if any(low >= high for low, high in pairwise(edges)):
        raise ConfigError(f"'band_splits' must rise between 0 and 1; got {list(splits)}.")
    allowed = min(normed, sum(stage.resize.axis == "freq" and not stage.merge for stage in plan))
    if splits and layers > allowed:
        raise ConfigError(
            f"'band_split_layers' is {layers}, but only {allowed} layers work on several "
            "frequencies without normalisation."
        )


class HybridCore(nn.Module):
    """The two U-Nets, with a free place between encoders and decoders.

    Shape:
        - spectrogram: `(batch, inputs, n_fft / 2, frames)`, real
        - waveform: `(batch, channels, time)`, with `frames = ceil(time / hop)`
        - results: both with `stems` times as many channels
    """

    def __init__(
        self,
        plan: Sequence[Stage],
        stems: int,
        *,
        context: int,
        context_enc: int,
        band_splits: Sequence[float],
        band_split_layers: int,
        freq_embedding: float,
        freq_embedding_scale: float,
        norm_starts: int,
        norm_groups: int,
        dconv_mode: int,
        dconv_attn: int,
        dconv_lstm: int,
        dconv: dict[str, Any],
    ) -> None:
        super().__init__()
        check_bands(plan, band_splits, band_split_layers, norm_starts)
        self.per_stem = plan[0].inputs, plan[0].inputs_t
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.tencoder, self.tdecoder = nn.ModuleList(), nn.ModuleList()
        self.merge = next((i for i, stage in enumerate(plan) if stage.merge), None)
        self.freq_embedding = freq_embedding
        self.freq_emb: ScaledEmbedding | None = None
        if freq_embedding:
            freqs, width = plan[0].freqs, plan[0].width
            self.freq_emb = ScaledEmbedding(freqs, width, freq_embedding_scale)
        for index, stage in enumerate(plan):
            resize, time, merge, _, inputs, inputs_t, width, width_t = stage
            outermost = index == 0
            factor = stems if outermost else 1
            outputs, outputs_t = factor * inputs, factor * inputs_t
            groups = norm_groups if index >= norm_starts else 0
            branches = {**dconv, "attention": index >= dconv_attn, "lstm": index >= dconv_lstm}
            down = Refine(groups, context_enc, branches if dconv_mode & 1 else None)
            up = Refine(groups, context, branches if dconv_mode & 2 else None)
            encoder: nn.Module
            decoder: nn.Module
            if band_splits and index < band_split_layers:
                encoder = BandEncoder(inputs, width, resize, down, band_splits)
                decoder = BandDecoder(width, outputs, resize, up, outermost, band_splits)
            else:
                encoder = EncoderLayer(inputs, width, resize, down)
                decoder = DecoderLayer(width, outputs, resize, up, outermost)
            self.encoder.append(encoder)
            self.decoder.insert(0, decoder)
            if time and merge:
                self.tencoder.append(Down(inputs_t, width_t, time))
                self.tdecoder.insert(0, Up(width_t, outputs_t, time, groups, outermost))
            elif time:
                self.tencoder.append(EncoderLayer(inputs_t, width_t, time, down))
                self.tdecoder.insert(0, DecoderLayer(width_t, outputs_t, time, up, outermost))
        rescale(self)

    def forward(
        self, x: Tensor, xt: Tensor, stems: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return spectrograms and waveforms of the chosen stems (indices; all by default)."""
        x = x.contiguous(memory_format=torch.channels_last)
        xt = xt.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        rows = [output_channels(stems, each, x.device) for each in self.per_stem]
        saved: list[tuple[Tensor, int]] = []  # skip connections, and lengths to come back to
        saved_t: list[tuple[Tensor, int]] = []
        for index, encode in enumerate(self.encoder):
            length, inject = x.shape[-1], None
            if index < len(self.tencoder):
                length_t = xt.shape[-1]
                xt = self.tencoder[index](xt)
                saved_t.append((xt, length_t))
                inject = xt if index == self.merge else None
            x = encode(x, inject)
            if index == 0 and self.freq_emb is not None:
                x = x + self.freq_embedding * self.freq_emb().T.unsqueeze(-1)
            saved.append((x, length))
        y, yt = self.between(x, xt)
        for index, decode in zip(reversed(range(len(saved))), self.decoder, strict=True):
            row, row_t = (None, None) if index else rows
            y, inner = decode(y, *saved.pop(), row)
            if index < len(self.tdecoder):
                decode_t = self.tdecoder[len(self.tdecoder) - 1 - index]
                skip_t, length_t = saved_t.pop()
                if index == self.merge:
                    yt = decode_t(inner, length_t)
                else:
                    yt, _ = decode_t(yt, skip_t, length_t, row_t)
        return y, yt.squeeze(2)

    def between(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the decoders start from, besides the skips, given the innermost codes."""
        return torch.zeros_like(x), torch.zeros_like(xt)


class Hybrid(nn.Module):
    """The front end and the inverse around a `HybridCore`.

    Args:
        core: the network on real tensors.
        stems: names of the outputs, in the order of the output channels.
        complex_as_channels: the core predicts the stems' complex spectrograms; otherwise their
            magnitudes, which get the phase of the mixture.
        wiener_iterations: iterations of the filter that refines the latter.
        legacy_padding: pad with zeros and don't align the branches, as some models of 2021 do.
    """

    def __init__(
        self,
        core: HybridCore,
        *,
        stems: Sequence[str],
        sample_rate: int,
        channels: int,
        n_fft: int,
        complex_as_channels: bool = True,
        wiener_iterations: int = 0,
        legacy_padding: bool = False,
    ) -> None:
        super().__init__()
        self.stems = tuple(stems)
        self.sample_rate = sample_rate
        self.channels = channels
        self.complex_as_channels = complex_as_channels
        self.wiener_iterations = wiener_iterations
        self.legacy_padding = legacy_padding
        self.stft = STFT(n_fft, n_fft // 4, normalized=True)
        self.core = core
        hide_prefix(self, "core")

    def forward(self, mixture: Tensor, *, stems: Sequence[int] | None = None) -> Tensor:
        """Return the estimates of the chosen stems (indices; all by default)."""
        mixture, length = self.lengthen(mixture.float()), mixture.shape[-1]
        spectrogram = self.spectrogram(mixture)
        parts = as_channels(spectrogram) if self.complex_as_channels else spectrogram.abs()
        x, mean, deviation = standardize(parts, (1, 2, 3))
        xt, mean_t, deviation_t = standardize(mixture, (1, 2))
        dtype = next(self.core.parameters()).dtype
        together = self.wiener_iterations > 0  # such a filter weighs all stems
        y, yt = self.core(x.to(dtype), xt.to(dtype), None if together else stems)
        spectrograms = self.complex_spectrograms(y.float() * deviation + mean, spectrogram)
        waves = (yt.float() * deviation_t + mean_t).unflatten(1, (-1, self.channels))
        estimates: Tensor = waves + self.waveform(spectrograms, mixture.shape[-1])
        if together and stems is not None:
            estimates = estimates[:, list(stems)]
        return estimates[..., :length]

    def lengthen(self, mixture: Tensor) -> Tensor:
        """Return the mixture, or a longer one that the core wants."""
        return mixture

    def complex_spectrograms(self, y: Tensor, mixture: Tensor) -> Tensor:
        """Return what the core predicts as `(batch, stems, channels, freq, frames)`, complex."""
        if self.complex_as_channels:
            return from_channels(y, self.channels)
        estimates = mixture_phase(y.unflatten(1, (-1, self.channels)), mixture)
        return wiener(estimates, mixture, iterations=self.wiener_iterations)

    def spectrogram(self, signal: Tensor) -> Tensor:
        """Return `ceil(time / hop)` frames without the top bin, each centred on its own samples.

        The reflected edges of 3/2 hops put frame `i` where a convolution of stride `hop` that
        pads its input alike would put output `i`, so that both branches see the same moments.
        """
        hop, length = self.stft.hop_length, signal.shape[-1]
        frames = -(-length // hop)
        edge = 3 * (hop // 2)
        padding = (edge, edge + frames * hop - length)
        padded = F.pad(signal, padding) if self.legacy_padding else reflect(signal, padding)
        spectrogram: Tensor = self.stft(padded)
        return spectrogram[..., :-1, 2 : 2 + frames]

    def waveform(self, spectrogram: Tensor, length: int) -> Tensor:
        """Return the signals of `length` samples, exact but for the outermost frames."""
        hop = self.stft.hop_length
        edge = 0 if self.legacy_padding else 3 * (hop // 2)
        padded = F.pad(spectrogram, (2, 2, 0, 1))
        total = spectrogram.shape[-1] * hop + 2 * edge
        return self.stft.inverse(padded, total)[..., edge : edge + length]


def reflect(signal: Tensor, padding: tuple[int, int]) -> Tensor:
    """Pad `(..., time)` by its mirror image; one too short for that gets zeros first.

    >>> reflect(torch.tensor([[1.0, 2.0, 3.0]]), (2, 1))
    tensor([[3., 2., 1., 2., 3., 2.]])
    >>> reflect(torch.tensor([[1.0, 2.0]]), (1, 3))
    tensor([[2., 1., 2., 0., 0., 0.]])
    """
    left, right = padding
    missing = max(0, max(left, right) + 1 - signal.shape[-1])
    zeros_right = min(missing, right)
    zeros_left = missing - zeros_right
    signal = F.pad(signal, (zeros_left, zeros_right))
    return F.pad(signal, (left - zeros_left, right - zeros_right), mode="reflect")


class HDemucs(Hybrid):
    """Hybrid Demucs (v3).

    Args:
        stems: names of the outputs, in the order of the output channels.
        hidden_channels: channels of the outermost layers; those of the waveform's branch are
            `hidden_channels_time`, the same by default.
        growth: by what each layer has more channels than the one outside it.
        depth: number of layers of the encoders, and of the decoders.
        time_stride: stride of the layers inside, where the branches have met.
        context, context_enc: neighbours that the gated convolutions of the decoders and encoders
            see.
        band_splits: fractions of the frequency axis at which the outer `band_split_layers` are
            split into bands with weights of their own; see `BandEncoder`.
        freq_embedding: weight of the learned vector per frequency; 0 leaves it out.
        freq_embedding_scale: by what those vectors learn faster.
        norm_starts: layer from which on there is group normalisation with `norm_groups`.
        dconv_mode: residual branches in 0 no layer, 1 the encoders, 2 the decoders, 3 both.
        dconv_depth, dconv_comp, dconv_init: see `DConv` (depth, compress, init).
        dconv_attn, dconv_lstm: layer from which on the branches have attention, an LSTM.
        complex_as_channels, wiener_iterations, legacy_padding: see `Hybrid`.

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
        n_fft: int = 4096,
        complex_as_channels: bool = True,
        wiener_iterations: int = 0,
        legacy_padding: bool = False,
        hidden_channels: int = 48,
        hidden_channels_time: int | None = None,
        growth: float = 2.0,
        depth: int = 6,
        kernel_size: int = 8,
        stride: int = 4,
        time_stride: int = 2,
        context: int = 1,
        context_enc: int = 0,
        band_splits: Sequence[float] = (),
        band_split_layers: int = 2,
        freq_embedding: float = 0.2,
        freq_embedding_scale: float = 10.0,
        norm_starts: int = 4,
        norm_groups: int = 4,
        dconv_mode: int = 1,
        dconv_depth: int = 2,
        dconv_comp: float = 4,
        dconv_init: float = 1e-4,
        dconv_attn: int = 4,
        dconv_lstm: int = 4,
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
        core = HybridCore(
            plan,
            len(stems),
            context=context,
            context_enc=context_enc,
            band_splits=band_splits,
            band_split_layers=band_split_layers,
            freq_embedding=freq_embedding,
            freq_embedding_scale=freq_embedding_scale,
            norm_starts=norm_starts,
            norm_groups=norm_groups,
            dconv_mode=dconv_mode,
            dconv_attn=dconv_attn,
            dconv_lstm=dconv_lstm,
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
            legacy_padding=legacy_padding,
        )
