"""Distances between magnitude spectrograms, which forgive what the ear forgives: small delays.

Long signals are transformed some frames at a time, stem by stem; frames, windows and edges are
those of `torch.stft` with centred frames. Silent references score NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fft import rfft

from separator.evaluation.checks import check_pair, without_silent
from separator.evaluation.parallel import parallel_map
from separator.spectral.frames import reflected
from separator.spectral.mel import mel_filters

_Result = TypeVar("_Result")

_CHUNK = 2**17  # samples of frames that a thread transforms at once: they fit its cache


class _STFT(NamedTuple):
    n_fft: int
    hop_length: int
    window: Literal["hann"] | None = "hann"
    pad_mode: Literal["reflect", "constant"] = "reflect"


class BleedlessFullness(NamedTuple):
    """Percentages `(stems,)` in float64."""

    bleedless: Tensor
    fullness: Tensor


#: Half-overlapping rectangular frames: the call in MSST names no window.
_L1_FREQ = _STFT(2048, 1024, window=None)
_MULTI = tuple(_STFT(2**n, 2**n // 4) for n in range(8, 13))
_MEL = _STFT(4096, 1024, pad_mode="constant")
_MEL_BANDS = 512
_MEL_RANGE_DB = 80.0
_FLOOR = 1e-8  # power of a bin below which magnitudes count as equal


def l1_freq(references: Tensor, estimates: Tensor) -> Tensor:
    """Return the closeness of magnitudes in percent: 100 / (1 + 10 mean abs(|S| - |E|)).

    Magnitudes are of rectangular frames of 2048 samples, without scaling, so the score depends on
    the level of the signals. Compare models on the same songs only.

    Shape:
        references, estimates: `(stems, channels, time)`
        result: `(stems,)` in float64, 100 for a perfect estimate; NaN for a silent reference

    Raises:
        AudioError: For shapes that differ or samples that are not finite

    Reference: `l1_freq` of Solovyev's Music-Source-Separation-Training.
    """
    check_pair(references, estimates)

    def distance(reference: Tensor, estimate: Tensor) -> Tensor:
        sums = _map_frames(_absolute_difference, reference, estimate, _L1_FREQ)
        total, count = torch.stack(sums).sum(0).unbind()
        return total / count

    distances = _each_stem(distance, references, estimates)
    return without_silent(100 / (1 + 10 * distances), references)


def mr_stft(references: Tensor, estimates: Tensor) -> Tensor:
    """Return the multi-resolution STFT distance: 0 for a perfect estimate.

        mean over n_fft of  norm(|S| - |E|) / norm(|S|)  +  mean abs(log |S| - log |E|)

    with n_fft from 256 to 4096, Hann windows as long, hops of a quarter; norms and means run over
    channels, bins and frames; powers are at least 1e-8.

    Listeners agree with it as well as with anything that needs no trained network: among all
    metrics that Bereuter et al. tried on generative separators of singing voices, it and the
    distance of MERT embeddings correlated most. They used these resolutions with an A-weighting
    filter in front, which is left out here.

    Shape:
        references, estimates: `(stems, channels, time)`
        result: `(stems,)` in float64; NaN for a silent reference

    Raises:
        AudioError: For shapes that differ or samples that are not finite

    Reference: Yamamoto et al., "Parallel WaveGAN", 2019, arXiv 1910.11480, equations 3 to 6; as in
    the package auraloss; Bereuter et al., 2025, arXiv 2507.11427 (listening test).
    """
    check_pair(references, estimates)

    def distance(reference: Tensor, estimate: Tensor) -> Tensor:
        scales = []
        for stft in _MULTI:
            sums = _map_frames(_convergence_and_log, reference, estimate, stft)
            difference, energy, logarithms, count = torch.stack(sums).sum(0)
            scales.append((difference / energy).sqrt() + logarithms / count)
        return torch.stack(scales).mean()

    return without_silent(_each_stem(distance, references, estimates), references)


def bleedless_fullness(
    references: Tensor, estimates: Tensor, sample_rate: int = 44100
) -> BleedlessFullness:
    """Return how little was added to a stem, and how little of it is missing, in percent.

        bleedless = 100 / (1 + mean of positive D)      D = dB of estimate - dB of reference
        fullness  = 100 / (1 - mean of negative D)      in 512 mel bands

    Magnitudes are of Hann windows of 4096 samples; a mel magnitude is at least 80 dB below the
    loudest one of its own song. A louder estimate bleeds, a softer one is not full.

    Shape:
        references, estimates: `(stems, channels, time)`
        result: twice `(stems,)` in float64; NaN for a silent reference

    Raises:
        AudioError: For shapes that differ or samples that are not finite

    Reference: `bleed_full` of Solovyev's Music-Source-Separation-Training.
    """
    check_pair(references, estimates)
    project = _mel_projection(sample_rate, references.device)

    def percentages(reference: Tensor, estimate: Tensor) -> Tensor:
        mels = _map_frames(lambda x, y: (project(x), project(y)), reference, estimate, _MEL)
        true, found = (_decibels(torch.cat(x, dim=-1)) for x in zip(*mels, strict=True))
        difference = found.sub_(true)
        return torch.stack([_mean_above_zero(difference), _mean_above_zero(difference.neg_())])

    scores = 100 / (1 + _each_stem(percentages, references, estimates))
    return BleedlessFullness(*(without_silent(score, references) for score in scores.T))


def _each_stem(
    measure: Callable[[Tensor, Tensor], Tensor], references: Tensor, estimates: Tensor
) -> Tensor:
    pairs = zip(references.detach(), estimates.detach(), strict=True)
    return torch.stack([measure(reference, estimate) for reference, estimate in pairs])


def _map_frames(
    function: Callable[[Tensor, Tensor], _Result],
    reference: Tensor,
    estimate: Tensor,
    stft: _STFT,
) -> list[_Result]:
    """Apply a function to the spectra of some frames after the others.

    Shape:
        reference, estimate: `(channels, time)`
        function: takes two complex spectrograms `(channels, freq, frames)`
    """
    frames = [
        _padded(signal, stft).unfold(-1, stft.n_fft, stft.hop_length)  # (channels, frames, n_fft)
        for signal in (reference, estimate)
    ]
    window = torch.ones(stft.n_fft, device=reference.device)
    if stft.window == "hann":
        window = torch.hann_window(stft.n_fft, device=reference.device)

    def measure(reference: Tensor, estimate: Tensor) -> _Result:
        return function(rfft(reference * window).mT, rfft(estimate * window).mT)

    step = max(1, _CHUNK // stft.n_fft)
    with parallel_map(reference.device) as work:
        return list(work(measure, *(x.split(step, dim=1) for x in frames)))


def _padded(signal: Tensor, stft: _STFT) -> Tensor:
    """Pad for centred frames."""
    margin = stft.n_fft // 2
    if stft.pad_mode == "reflect":
        return torch.cat(list(reflected([signal.float()], margin)), dim=-1)
    return F.pad(signal.float(), (margin, margin))


def _absolute_difference(reference: Tensor, estimate: Tensor) -> Tensor:
    difference = (_power(reference).sqrt_() - _power(estimate).sqrt_()).abs_()
    return _sums(difference, count=difference.numel())


def _convergence_and_log(reference: Tensor, estimate: Tensor) -> Tensor:
    true, found = (_power(x).clamp_min_(_FLOOR) for x in (reference, estimate))
    difference = (true.sqrt() - found.sqrt()).square_()
    logarithms = (true / found).log_().abs_().div_(2)
    return _sums(difference, true, logarithms, count=true.numel())


def _power(spectrogram: Tensor) -> Tensor:
    return spectrogram.real.square() + spectrogram.imag.square()


def _sums(*values: Tensor, count: int) -> Tensor:
    sums = torch.stack([x.sum() for x in values]).double()
    return torch.cat([sums, sums.new_tensor([count])])


def _mel_projection(sample_rate: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return what makes mel magnitudes `(channels, bands, frames)` of a complex spectrogram."""
    filters = mel_filters(_MEL_BANDS, n_fft=_MEL.n_fft, sample_rate=sample_rate)
    blocks = []
    for rows in torch.from_numpy(filters).to(device).split(32):
        used = rows.any(dim=0).nonzero()  # neighbouring bands share few bins
        bins = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append((bins, rows[:, bins]))

    def project(spectrogram: Tensor) -> Tensor:
        magnitude = _power(spectrogram).sqrt_()
        return torch.cat([block @ magnitude[:, bins] for bins, block in blocks], dim=1)

    return project


def _decibels(mels: Tensor) -> Tensor:
    """Convert magnitudes, in place, to dB of which the lowest are raised to 80 below the peak."""
    decibels = mels.clamp_min_(1e-10).log10_().mul_(20)
    return decibels.clamp_min_((decibels.amax() - _MEL_RANGE_DB).item())


def _mean_above_zero(values: Tensor) -> Tensor:
    count = (values > 0).sum().clamp_min(1)
    return values.clamp_min(0).sum(dtype=torch.float64) / count
