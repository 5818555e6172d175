"""Effects of a part, a stem and the mix bus; all pure functions of their arguments.

Whatever the bus does is one gain curve for all stems, so stems always sum to the mixture.
Audio is float32 `(2, time)` at 44.1 kHz, levels are in decibels.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy import signal
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from separator.synthesis.oscillators import SAMPLE_RATE, Audio, filtered, noise, samples

_BLOCK = 256  # samples over which levels are measured


def linear(decibels: float) -> np.float32:
    """Convert decibels to a factor.

    >>> round(float(linear(-20.0)), 3)
    0.1
    """
    return np.float32(10.0 ** (decibels / 20.0))


def loudness(audio: Audio) -> float:
    """Return the level in dB of the parts that sound: blocks within 25 dB of the loudest ones."""
    power = _block_power(audio)
    if power.max(initial=0.0) <= 1e-10:
        return -100.0
    sounding = power[power > np.quantile(power, 0.98) * 10**-2.5]
    return float(10.0 * np.log10(sounding.mean()))


def _block_power(audio: Audio) -> Audio:
    blocks = audio[:, : audio.shape[1] // _BLOCK * _BLOCK].reshape(audio.shape[0], -1, _BLOCK)
    return np.asarray(np.mean(blocks**2, axis=(0, 2)), dtype=np.float32)


def _spread(curve: Audio, length: int) -> Audio:
    """Interpolate one value per block to one per sample."""
    centres = (np.arange(len(curve)) + 0.5) * _BLOCK
    return np.interp(np.arange(length), centres, curve).astype(np.float32)


def equalized(audio: Audio, rng: Generator, amount_db: float = 6.0) -> Audio:
    """Tilt the spectrum and add two broad bells, each within `amount_db`."""
    out = shelf(
        audio,
        float(np.exp(rng.uniform(np.log(80), np.log(400)))),
        -amount_db * rng.uniform(-1, 1),
        True,
    )
    out = shelf(out, float(rng.uniform(2500, 9000)), amount_db * rng.uniform(-1, 1), False)
    centre = float(np.exp(rng.uniform(np.log(250), np.log(5000))))
    return bell(out, centre, amount_db * rng.uniform(-1, 1), rng.uniform(0.5, 2.0))


def _biquad(audio: Audio, b: list[float], a: list[float]) -> Audio:
    sos = np.array([b + a]) / a[0]
    return np.asarray(signal.sosfilt(sos, audio, axis=-1), dtype=np.float32)


def bell(audio: Audio, centre: float, gain_db: float, q: float) -> Audio:
    """Apply a peaking filter (R. Bristow-Johnson, Audio EQ cookbook)."""
    amplitude = 10 ** (gain_db / 40)
    turn = 2 * np.pi * centre / SAMPLE_RATE
    alpha, cosine = np.sin(turn) / (2 * q), np.cos(turn)
    b = [1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude]
    return _biquad(audio, b, [1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude])


def shelf(audio: Audio, corner: float, gain_db: float, low: bool) -> Audio:
    """Apply a low or high shelf of slope 1 (Audio EQ cookbook)."""
    amplitude = 10 ** (gain_db / 40)
    turn = 2 * np.pi * corner / SAMPLE_RATE
    side = 1.0 if low else -1.0
    cosine, root = side * np.cos(turn), np.sqrt(2 * amplitude) * np.sin(turn)
    up, down = amplitude + 1, amplitude - 1
    b = [
        amplitude * (up - down * cosine + root),
        side * 2 * amplitude * (down - up * cosine),
        amplitude * (up - down * cosine - root),
    ]
    a = [up + down * cosine + root, side * -2 * (down + up * cosine), up + down * cosine - root]
    return _biquad(audio, b, a)


def compressed(audio: Audio, threshold_db: float, ratio: float) -> Audio:
    """Reduce what exceeds a threshold, with an attack and release of some 20 ms."""
    return audio * _spread(_reduction(audio, threshold_db, ratio), audio.shape[1])


def _reduction(audio: Audio, threshold_db: float, ratio: float) -> Audio:
    level = 10.0 * np.log10(uniform_filter1d(_block_power(audio), 5) + 1e-10)
    excess = np.maximum(level - threshold_db, 0.0)
    return np.asarray(10.0 ** (-excess * (1.0 - 1.0 / ratio) / 20.0), dtype=np.float32)


def saturate(audio: Audio, drive_db: float) -> Audio:
    """Bend the peaks like an overdriven stage, keeping quiet passages at their level."""
    drive = linear(drive_db)
    return np.asarray(np.tanh(audio * drive) / drive, dtype=np.float32)


def chorus(audio: Audio, depth: float, rate: float, mix: float) -> Audio:
    """Add a copy whose delay swings by `depth` seconds, in opposite phase left and right."""
    time = np.arange(audio.shape[1])
    swing = np.sin(2 * np.pi * rate * time / SAMPLE_RATE)
    out = np.empty_like(audio)
    for channel, sign in enumerate((1.0, -1.0)):
        delay = (0.012 + depth * sign * swing) * SAMPLE_RATE
        out[channel] = audio[channel] + mix * np.interp(time - delay, time, audio[channel])
    return out


def echo(audio: Audio, delay: float, feedback: float, mix: float) -> Audio:
    """Add repeats that fall by `feedback` and bounce between the sides."""
    out = audio.copy()
    step, gain = samples(delay), mix
    copy = audio
    for repeat in range(1, 6):
        shift = repeat * step
        if gain < 0.02 or shift >= audio.shape[1]:
            break
        copy = copy[::-1]
        out[:, shift:] += np.float32(gain) * copy[:, :-shift]
        gain *= feedback
    return out


def room_response(rng: Generator, decay: float) -> Audio:
    """Make a room: early reflections, then noise whose high end dies sooner; unit energy."""
    length = samples(decay)
    time = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    tail = noise(rng, 2 * length).reshape(2, length)
    dark = filtered(tail, "lowpass", rng.uniform(1500, 6000), 1)
    room = 0.5 * tail * np.exp(-12.0 / decay * time) + dark * np.exp(-6.9 / decay * time)
    room[:, : samples(rng.uniform(0.0, 0.03))] *= 0.1
    for _ in range(8):
        place = int(rng.uniform(0.003, 0.05) * SAMPLE_RATE) % length
        room[int(rng.integers(2)), place] += rng.normal(0.0, 6.0)
    room = filtered(room, "highpass", rng.uniform(80, 300), 1)
    return np.asarray(room / np.sqrt(np.sum(room**2) / 2 + 1e-9), dtype=np.float32)


def reverberated(audio: Audio, response: Audio, mix: float) -> Audio:
    """Add the room's answer at `mix` times the dry level."""
    wet = signal.oaconvolve(audio, response, axes=-1)[:, : audio.shape[1]]
    return np.asarray(audio + np.float32(mix) * wet, dtype=np.float32)


def place(audio: Audio, pan: float, width: float) -> Audio:
    """Set a part's width (0: mono) and its pan from -1 to 1, at constant power."""
    middle, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2 * width
    angle = np.pi / 4 * (1.0 + pan)
    gains = np.sqrt(2.0) * np.array([np.cos(angle), np.sin(angle)])
    return np.stack([(middle + side) * gains[0], (middle - side) * gains[1]]).astype(np.float32)


def bus_gain(mixture: Audio, threshold_db: float, ratio: float, ceiling: float) -> Audio:
    """Return the gain curve `(time,)` of a bus compressor and a limiter that keeps to `ceiling`."""
    gain = _spread(_reduction(mixture, threshold_db, ratio), mixture.shape[1])
    peaks = np.abs(mixture).max(axis=0) * gain
    most = float(peaks.max(initial=1e-9))
    gain *= np.float32(min(1.0, 2.0 * ceiling / most))  # the limiter takes at most 6 dB
    peaks = np.abs(mixture).max(axis=0) * gain
    wanted = np.minimum(1.0, ceiling / np.maximum(peaks, 1e-9)).astype(np.float32)
    held = minimum_filter1d(wanted, 2 * _BLOCK + 1, mode="nearest")
    return np.asarray(gain * uniform_filter1d(held, 2 * _BLOCK + 1, mode="nearest"), np.float32)
