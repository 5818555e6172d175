"""BSSEval version 4 for images: the numbers of museval, in a fraction of its time.

An estimate is decomposed into what FIR filters can make of the true sources,

    e  =  s_j  +  (P_j e - s_j)  +  (P_all e - P_j e)  +  (e - P_all e)
          true    spatial error     interference         artifacts

where P_j e is the least-squares projection of the estimate e on the delayed channels of its own
source j, and P_all e that on the delayed channels of all sources. Energies of these parts, summed
over the channels of a frame, give for each source and frame

    SDR = |s_j|^2 / |e - s_j|^2               ISR = |s_j|^2 / |P_j e - s_j|^2
    SIR = |P_j e|^2 / |P_all e - P_j e|^2     SAR = |P_all e|^2 / |e - P_all e|^2

The filters are found once for the whole track (version 4) or anew in each frame (version 3). Both
times a frame is filtered on its own, from silence into `filter_length - 1` samples of silence.

What makes it fast: one pass of short FFTs gives the correlations that all projections share, a
structured solver (`toeplitz.py`) replaces dense ones, and one more pass filters all frames.

Reference: Vincent, Gribonval and Fevotte, "Performance measurement in blind audio source
separation", IEEE TASLP 14(4), 2006; Stoter, Liutkus and Ito, "The 2018 signal separation evaluation
campaign", LVA/ICA 2018, arXiv 1804.06267 (version 4); museval 0.4.1 (conventions).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fft import irfft, rfft

from separator.errors import ConfigError
from separator.evaluation.checks import check_pair
from separator.evaluation.parallel import ParallelMap, parallel_map
from separator.evaluation.toeplitz import solve_block_toeplitz

_EPS = torch.finfo(torch.float64).eps
_FFT = 4096  # samples: long enough to amortize 512 taps, short enough for a processor's cache
_CHUNK_BYTES = 2**22  # of one group of signals, where all that is derived fits a processor's cache
_FACTOR_BYTES = 2**28  # of the factorizations that are held at once


class BSSEval(NamedTuple):
    """Ratios in dB, each `(sources, frames)` in float64; NaN in frames with a silent source."""

    sdr: Tensor
    isr: Tensor
    sir: Tensor
    sar: Tensor


@dataclass(frozen=True)
class _Blocks:
    """How a signal is cut into blocks for an FIR filter: each begins with the history it needs."""

    size: int  # of the FFT
    history: int
    count: int

    @classmethod
    def covering(cls, length: int, filter_length: int) -> _Blocks:
        history = filter_length - 1
        count = -(-length // (max(_FFT, 8 * filter_length) - history))
        size = _fast_length(-(-length // count) + history)
        return cls(size, history, count)

    def cut(self, signals: Tensor, first: int = 0, count: int | None = None) -> Tensor:
        """Cut blocks from `(..., length)`, with silence around it, to `(..., count, size)`."""
        advance = self.size - self.history
        length = self.history + (count or self.count) * advance
        start = first * advance - self.history
        part = signals[..., max(0, start) : start + length]
        begin = max(0, -start)
        end = begin + part.shape[-1]
        padded = signals.new_empty(*signals.shape[:-1], length, dtype=torch.float64)
        padded[..., :begin] = 0.0
        padded[..., begin:end] = part
        padded[..., end:] = 0.0
        return padded.unfold(-1, self.size, advance)


def bss_eval(
    references: Tensor,
    estimates: Tensor,
    *,
    window: int = 44100,
    hop: int = 44100,
    filter_length: int = 512,
    framewise_filters: bool = False,
) -> BSSEval:
    """Measure how well estimates match their references, frame by frame.

    A frame in which any reference or estimate is silent is NaN for all sources; channels that sum
    to zero at every sample count as silent, as in museval. A perfect estimate has infinite SDR.
    A track that is not longer than a window is one frame.

    Args:
        references: the true images of the sources
        estimates: the estimated images, in the same order
        window: samples of a frame
        hop: samples from one frame to the next; what is left over at the end is not scored
        filter_length: taps of the distortion filters
        framewise_filters: find the filters anew in each frame (version 3), not once (version 4)

    Shape:
        references, estimates: `(sources, channels, time)`
        output: four times `(sources, frames)`

    Raises:
        AudioError: For shapes that differ or samples that are not finite
        ConfigError: For a window, hop or filter length below one
    """
    check_pair(references, estimates)
    for name, value in (("window", window), ("hop", hop), ("filter_length", filter_length)):
        if value < 1:
            raise ConfigError(f"BSSEval can't work with {name}={value}; at least 1 is allowed.")
    references, estimates = references.detach(), estimates.detach()
    window = min(window, references.shape[-1])
    blocks = _Blocks.covering(window + filter_length - 1, filter_length)
    bytes_of_frame = 8 * references[..., :window].numel()
    with parallel_map(references.device) as work:
        if framewise_filters:
            responses = None
            bytes_of_frame += 4 * (references[..., 0].numel() * filter_length) ** 2  # a triangle
        else:
            lags = _track_correlations(references, estimates, filter_length, work)
            responses = _responses(lags, len(references), blocks.size, work)
        step = max(1, (_FACTOR_BYTES if framewise_filters else _CHUNK_BYTES) // bytes_of_frame)
        chunks = (x.unfold(-1, window, hop).split(step, dim=2) for x in (references, estimates))
        measure = partial(_frame_energies, responses=responses, blocks=blocks)
        energies = torch.cat(list(work(measure, *chunks)), dim=-1)
    return _ratios(energies)


def _track_correlations(
    references: Tensor, estimates: Tensor, filter_length: int, work: ParallelMap
) -> Tensor:
    """Correlate the delayed references with all signals of a track, (1, delays, p, 2 p)."""
    reference, estimate = references.flatten(0, 1), estimates.flatten(0, 1)
    blocks = _Blocks.covering(references.shape[-1], filter_length)
    step = max(1, _CHUNK_BYTES // (16 * len(reference) * blocks.size))

    def correlate(firsts: range) -> Tensor:
        shape = (blocks.size // 2 + 1, len(reference), 2 * len(reference))
        total = torch.zeros(shape, dtype=torch.complex128, device=references.device)
        for first in firsts:
            x, y = (blocks.cut(signals, first, step) for signals in (reference, estimate))
            left, right = _cross_factors(rfft(x), x, y, blocks)
            total.baddbmm_(left, right)
        return total

    firsts = range(0, blocks.count, step)
    threads = torch.get_num_threads()
    spectrum = sum(work(correlate, [firsts[i::threads] for i in range(threads)]))
    assert isinstance(spectrum, Tensor)
    return _delays(spectrum[None], blocks)


def _frame_correlations(
    spectra: Tensor, reference: Tensor, estimate: Tensor, blocks: _Blocks
) -> Tensor:
    """Correlate within frames, (frames, delays, p, 2 p); shapes as in `_frame_energies`."""
    x, reference, estimate = (
        signals.flatten(0, 1).movedim(1, 0) for signals in (spectra, reference, estimate)
    )
    left, right = _cross_factors(x, reference, estimate, blocks)
    return _delays(left @ right, blocks)


def _cross_factors(
    spectra: Tensor, reference: Tensor, estimate: Tensor, blocks: _Blocks
) -> tuple[Tensor, Tensor]:
    """Return conj(X) and Y, whose product sums over blocks: X of references, Y of all signals.

    Y leaves the history out, which the block before has counted.

    Shape:
        spectra: `(..., p, blocks, bins)`
        reference, estimate: `(..., p, blocks, size)`
        output: `(..., bins, p, blocks)` and `(..., bins, blocks, 2 p)`
    """
    signals = torch.cat([reference, estimate], dim=-3)
    signals[..., : blocks.history] = 0.0
    x = spectra.movedim(-1, -3).conj().resolve_conj().contiguous()  # (..., bins, p, blocks)
    y: Tensor = rfft(signals).movedim(-1, -3).contiguous()  # products of strided ones are slow
    return x, y.mT


def _delays(spectrum: Tensor, blocks: _Blocks) -> Tensor:
    lags: Tensor = irfft(spectrum, n=blocks.size, dim=-3)
    return lags[:, : blocks.history + 1]


def _responses(lags: Tensor, sources: int, n_fft: int, work: ParallelMap) -> Tensor:
    """Return the filters of both projections as one, (batch, bins, outputs, p).

    Outputs are the p channels of the joint projections, then those of the single ones, which take
    nothing from other sources. Shape of lags: `(batch, delays, p, 2 p)`.
    """
    gram, cross = (x.contiguous() for x in lags.chunk(2, dim=-1))
    gram[:, 0].diagonal(dim1=-2, dim2=-1).add_(_EPS)  # museval's regularization of faint signals
    grams, crosses = ([x, _per_source(x, sources)] for x in (gram, cross))
    joint, single = work(solve_block_toeplitz, grams, crosses)
    filters = torch.cat([joint, torch.zeros_like(joint)], dim=-1)  # (batch, delays, p, outputs)
    split = filters.unflatten(-1, (2, sources, -1)).unflatten(2, (sources, -1))
    single_part = split[..., 1, :, :].diagonal(dim1=2, dim2=4)  # (batch, delays, c, c, sources)
    single_part.copy_(single.unflatten(0, (-1, sources)).movedim(1, -1))
    responses: Tensor = rfft(filters, n=n_fft, dim=1)
    return responses.mT.contiguous()


def _per_source(lags: Tensor, sources: int) -> Tensor:
    """Pick the diagonal blocks of `(batch, delays, p, p)` as `(batch * sources, delays, c, c)`."""
    split: Tensor = lags.unflatten(3, (sources, -1)).unflatten(2, (sources, -1))
    return split.diagonal(dim1=2, dim2=4).movedim(-1, 1).flatten(0, 1)


def _frame_energies(
    reference: Tensor, estimate: Tensor, responses: Tensor | None, blocks: _Blocks
) -> Tensor:
    """Return the energies that the ratios are made of, `(7, sources, frames)`.

    Shape:
        reference, estimate: `(sources, channels, frames, window)`
    """
    reference, estimate = blocks.cut(reference), blocks.cut(estimate)
    silent = _any_source_silent(reference) | _any_source_silent(estimate)
    spectra = rfft(reference)  # (sources, channels, frames, blocks, bins)
    if responses is None:
        lags = _frame_correlations(spectra, reference, estimate, blocks)
        responses = _responses(lags, len(reference), blocks.size, map)
    images = irfft(_filter(spectra, responses), n=blocks.size)
    signals = (*images, reference, estimate)
    joint, single, reference, estimate = (x[..., blocks.history :] for x in signals)
    energies = torch.stack(
        [
            _energy(reference),
            _energy(reference - estimate),
            _energy(single - reference),
            _energy(single),
            _energy(joint - single),
            _energy(joint),
            _energy(estimate - joint),
        ]
    )
    return energies.masked_fill(silent, torch.nan)


def _filter(spectra: Tensor, responses: Tensor) -> Tensor:
    """Filter `(sources, channels, frames, blocks, bins)` to twice as much: joint and single."""
    sources, channels, frames, blocks, _ = spectra.shape
    batch = len(responses)  # one, or the number of frames
    by_channel: Tensor = spectra.flatten(0, 1).unflatten(1, (batch, -1))
    x = by_channel.permute(1, 4, 0, 2, 3).flatten(-2)  # (batch, bins, p, blocks of frames)
    y = responses @ x.contiguous()
    y = y.view(batch, -1, 2, sources, channels, frames // batch, blocks)
    return y.permute(2, 3, 4, 0, 5, 6, 1).flatten(3, 4)


def _energy(signals: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(signals, dim=(1, 3, 4))
    return norm.square()


def _any_source_silent(signals: Tensor) -> Tensor:
    sums = signals.sum(dim=1).flatten(2)
    extremes = torch.stack([sums.amin(dim=-1), sums.amax(dim=-1)])  # far faster than `any`
    return (extremes == 0).all(dim=0).any(dim=0)


def _ratios(energies: Tensor) -> BSSEval:
    true, distortion, spatial, single, interference, joint, artifacts = energies
    pairs = (true, distortion), (true, spatial), (single, interference), (joint, artifacts)
    return BSSEval(*(_decibels(signal, error) for signal, error in pairs))


def _decibels(signal: Tensor, error: Tensor) -> Tensor:
    return torch.where(error == 0, torch.inf, 10 * torch.log10(signal / error))


def _fast_length(minimum: int) -> int:
    """Return the smallest even length with prime factors 2, 3 and 5 alone, for fast FFTs."""
    odd: list[int] = [3**b * 5**c for b in range(8) for c in range(6)]
    return min(n << max(1, (-(-minimum // n) - 1).bit_length()) for n in odd)
