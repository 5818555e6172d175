"""Effects on batches of audio, in torch, wherever the batch is.

Audio is real `(items, channels, time)`, float32 or float64; parameters are one number per item,
`(items,)`, unless said otherwise. What an effect changes goes to nothing with its strength, so that
its strength can be drawn at will.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from separator.spectral.stft import STFT

_BLOCK = 256  # samples over which levels are measured
TAIL = 8192  # samples after which an equalizer has rung out
COEFFICIENTS, BAND = 576, 16  # of a frame of the codec, as in MP3, and of one of its bands
N_FFT, HOP = 2048, 512  # of the phase vocoder


def factor(decibels: Tensor) -> Tensor:
    """Convert decibels to factors of amplitude.

    >>> factor(torch.tensor([0.0, 20.0])).tolist()
    [1.0, 10.0]
    """
    return torch.pow(10.0, decibels / 20.0)


def equalize(audio: Tensor, centre: Tensor, gain_db: Tensor, q: Tensor, sample_rate: int) -> Tensor:
    """Apply a chain of bell filters (second order), exactly, in the frequency domain.

    Args:
        audio: `(items, channels, time)`.
        centre: `(items, bells)`, Hz.
        gain_db: `(items, bells)`, at the centre.
        q: `(items, bells)`, centre over bandwidth.
        sample_rate: Hz.

    Reference: Bristow-Johnson, Cookbook formulae for audio EQ biquad filter coefficients,
    "peaking EQ".
    """
    size = next_fast_len(audio.shape[-1] + TAIL, real=True)
    turn = 2.0 * math.pi * torch.fft.rfftfreq(size, device=audio.device, dtype=audio.dtype)
    response = torch.ones((), dtype=audio.dtype, device=audio.device)
    for bell in range(centre.shape[1]):
        chosen = slice(bell, bell + 1)  # (items, 1)
        response = response * _bell(
            turn, centre[:, chosen], gain_db[:, chosen], q[:, chosen], sample_rate
        )
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(audio, size) * response[:, None], size)
    return filtered[..., : audio.shape[-1]]


def _bell(turn: Tensor, centre: Tensor, gain_db: Tensor, q: Tensor, sample_rate: int) -> Tensor:
    """Return the complex response `(items, bins)` at angles per sample `turn` (bins,)."""
    amplitude = factor(gain_db / 2.0)
    middle = 2.0 * math.pi * centre / sample_rate
    alpha = torch.sin(middle) / (2.0 * q)
    # numerator and denominator times e^(i turn): b0 e^(i turn) + b1 + b2 e^(-i turn)
    real = 2.0 * (torch.cos(turn) - torch.cos(middle))
    imaginary = 2.0 * alpha * torch.sin(turn)
    return torch.complex(real, imaginary * amplitude) / torch.complex(real, imaginary / amplitude)


def compress(audio: Tensor, threshold_db: Tensor, ratio: Tensor) -> Tensor:
    """Turn down what exceeds a threshold, alike in all channels.

    The threshold counts from the item's RMS level. Levels are means over five blocks of 256
    samples, so attack and release take some 30 ms at 44.1 kHz and come equally early and late. A
    `ratio` of 1 changes nothing.

    Reference: Giannoulis et al. (2012), Digital dynamic range compressor design.
    """
    power = audio.square().mean(1, keepdim=True)  # (items, 1, time)
    blocks = F.avg_pool1d(
        power, _BLOCK, ceil_mode=True
    )  # a short last block: mean of what is there
    smooth = F.avg_pool1d(blocks, 5, 1, padding=2, count_include_pad=False)
    whole = power.mean(2, keepdim=True)
    # -120 dBFS below everything: silence has a level
    level_db = 10.0 * torch.log10((smooth + 1e-12) / (whole + 1e-12))
    excess = F.relu(level_db - threshold_db[:, None, None])
    reduction = excess * (1.0 - 1.0 / ratio[:, None, None])
    time = audio.shape[-1]
    curve = F.interpolate(reduction, size=blocks.shape[-1] * _BLOCK, mode="linear")[..., :time]
    return audio * factor(-curve)


def room(noise: Tensor, decay: Tensor, sample_rate: int) -> Tensor:
    """Shape white noise `(items, channels, taps)` to the impulse response of a diffuse room.

    It falls by 60 dB in `decay` seconds and has unit energy in the mean of its channels.

    Reference: Moorer (1979), About this reverberation business.
    """
    seconds = torch.arange(noise.shape[-1], device=noise.device, dtype=noise.dtype) / sample_rate
    response = noise * torch.exp(-3.0 * math.log(10.0) * seconds / decay[:, None, None])
    energy = response.square().sum(2, keepdim=True).mean(1, keepdim=True)
    return response * energy.rsqrt()


def reverberate(audio: Tensor, response: Tensor, wet: Tensor) -> Tensor:
    """Add `wet` times the room's answer, `(items, channels, taps)` its response."""
    time = audio.shape[-1]
    size = next_fast_len(time + response.shape[-1], real=True)
    spectrum = torch.fft.rfft(audio, size) * torch.fft.rfft(response, size)
    answer: Tensor = torch.fft.irfft(spectrum, size)[..., :time]
    return audio + wet[:, None, None] * answer


def distort(audio: Tensor, drive_db: Tensor) -> Tensor:
    """Bend the peaks: an item's peak p becomes p tanh(a) / a with a = 10^(drive / 20) - 1.

    Quiet passages keep their level. 0 dB changes nothing.
    """
    bend = (factor(drive_db) - 1.0).clamp_min(1e-3)[:, None, None]  # tanh(x) / x = 1 - x^2 / 3
    peak = audio.abs().amax((1, 2), keepdim=True).clamp_min(1e-9)
    return torch.tanh(audio / peak * bend) * peak / bend


def code(audio: Tensor, coarseness: Tensor, cutoff: Tensor) -> Tensor:
    """Quantize MDCT coefficients, and drop the high ones, as perceptual coders do.

    Frames have 576 coefficients under a sine window. In each frame and band of 16 coefficients,
    the quantizer's step is `coarseness` times the band's RMS: from 2 or so on most coefficients
    of a band vanish and what survives warbles, the sound of low bit rates. This is no real codec:
    there is no psychoacoustic model, no bit reservoir, no window switching, no joint stereo.

    Args:
        audio: `(items, channels, time)`.
        coarseness: 0 keeps the coefficients below the cut-off.
        cutoff: Fraction of the frequencies that pass, (0, 1].

    Reference: Princen, Johnson and Bradley (1987), Subband/transform coding using filter bank
    designs based on time domain aliasing cancellation.
    """
    coefficients = mdct(audio)  # (items, channels, frames, coefficients)
    bands = coefficients.unflatten(-1, (-1, BAND))
    step = coarseness[:, None, None, None, None] * bands.square().mean(-1, keepdim=True).sqrt()
    quantized = torch.where(step > 0, torch.round(bands / step.clamp_min(1e-12)) * step, bands)
    place = torch.arange(COEFFICIENTS, device=audio.device) / COEFFICIENTS
    passes = place < cutoff[:, None, None, None]
    return inverse_mdct(quantized.flatten(-2) * passes, audio.shape[-1])


def mdct(audio: Tensor) -> Tensor:
    """Return the lapped cosine transform `(items, channels, frames, 576)`."""
    frames = math.ceil(audio.shape[-1] / COEFFICIENTS) + 1
    padded = F.pad(audio, (COEFFICIENTS, frames * COEFFICIENTS - audio.shape[-1]))
    pieces = padded.unfold(-1, 2 * COEFFICIENTS, COEFFICIENTS)
    return torch.matmul(pieces, _cosines(audio.dtype, audio.device))


def inverse_mdct(coefficients: Tensor, length: int) -> Tensor:
    """Return the signal `(items, channels, length)`; the inverse of `mdct`."""
    basis = _cosines(coefficients.dtype, coefficients.device)
    pieces = torch.matmul(coefficients, basis.T)
    early, late = pieces[..., :COEFFICIENTS], pieces[..., COEFFICIENTS:]
    # a frame's second half meets the next one's first half: their aliases cancel
    whole = late[:, :, :-1] + early[:, :, 1:]
    return whole.flatten(-2)[..., :length]


@functools.cache
def _cosines(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the windowed basis `(1152, 576)`, whose columns are orthonormal across frames."""
    size = COEFFICIENTS
    time = torch.arange(2 * size, dtype=torch.float64)[:, None] + 0.5
    frequency = torch.arange(size, dtype=torch.float64) + 0.5
    basis = torch.cos(math.pi / size * (time + size / 2) * frequency)
    window = torch.sin(math.pi / (2 * size) * time)
    return (window * basis * math.sqrt(2.0 / size)).to(device, dtype)


def repitch(audio: Tensor, semitones: float, tempo: float) -> Tensor:
    """Change pitch and tempo of all items alike, each without the other.

    The result has about `time / tempo` samples. `semitones` 0 and `tempo` 1 change nothing.
    """
    ratio = 2.0 ** (semitones / 12.0)
    return resample(stretch(audio, ratio / tempo), ratio)


def stretch(audio: Tensor, ratio: float) -> Tensor:
    """Make audio `ratio` times as long at the same pitch, by a phase vocoder.

    Magnitudes are interpolated between frames. Phases advance as those of the channels' mean do,
    bin by bin; the bins around a spectral peak and all channels turn with it, so that partials
    stay whole and the stereo image stays.

    Reference: Laroche and Dolson (1999), Improved phase vocoder time-scale modification of audio,
    "phase locking"; here a peak goes on with the phase of its bin, whatever was there before.
    """
    length = round(audio.shape[-1] * ratio)
    if length == audio.shape[-1]:
        return audio
    stft = _stft(audio.device)
    frames = stft(F.pad(audio, (0, HOP)))  # one frame more to interpolate to
    count = max(1, math.ceil(length / HOP) + 1)
    places = torch.arange(count, dtype=torch.float64) / ratio  # not every device has doubles
    places = places.clamp_max(frames.shape[-1] - 2)
    first = places.floor().long()
    between = (places - first).to(audio)
    first = first.to(audio.device)
    before, after = frames[..., first], frames[..., first + 1]
    magnitude = torch.lerp(before.abs(), after.abs(), between)
    turn = _turns(before.mean(1, keepdim=True), after.mean(1, keepdim=True))
    turned = torch.polar(magnitude, torch.angle(before) + turn)
    return stft.inverse(turned, length).to(audio.dtype)


def _turns(before: Tensor, after: Tensor) -> Tensor:
    """Return by how much to turn each bin's phase, given pairs of frames `(..., freq, frames)`.

    Synthesis frames are as far apart as the frames of a pair, so from one to the next the phase
    advances by the pair's difference.
    """
    advance = torch.angle(after * before.conj())
    phase = torch.cumsum(F.pad(advance, (1, -1)), -1) + torch.angle(before[..., :1])
    return (phase - torch.angle(before)).gather(-2, _nearest_peak(before.abs()))


def _nearest_peak(magnitude: Tensor) -> Tensor:
    """Return the bin of the peak nearest to each bin, along the last axis but one.

    >>> _nearest_peak(torch.tensor([0.0, 3.0, 1.0, 0.0, 1.0, 2.0])[:, None])[:, 0].tolist()
    [1, 1, 1, 1, 5, 5]
    """
    bins = torch.arange(magnitude.shape[-2], device=magnitude.device)[:, None]
    last = len(bins) - 1
    neighbours = F.max_pool2d(magnitude.reshape(-1, 1, *magnitude.shape[-2:]), (5, 1), 1, (2, 0))
    peaks = magnitude >= neighbours.view_as(magnitude)
    below = torch.where(peaks, bins, -last).cummax(-2).values
    above = torch.where(peaks, bins, 2 * last).flip(-2).cummin(-2).values.flip(-2)
    return torch.where(bins - below <= above - bins, below, above)


@functools.cache
def _stft(device: torch.device) -> STFT:
    return STFT(N_FFT, HOP).to(device)


def resample(audio: Tensor, speed: float) -> Tensor:
    """Play audio `speed` times as fast, by cutting or extending its spectrum.

    The result has `time / speed` samples, rounded up, and nothing aliases.
    """
    if speed == 1.0:
        return audio
    time = audio.shape[-1]
    size = next_fast_len(time + 1024, real=True)  # the ends don't meet
    target = round(size / speed)
    spectrum = torch.fft.rfft(audio, size)
    played: Tensor = torch.fft.irfft(spectrum[..., : target // 2 + 1], target) * (target / size)
    return played[..., : math.ceil(time / speed)]
