"""Words for the singing voice: spectral envelopes of speech by the `espeak-ng` program.

Optional. The speech is never heard: its envelopes and its consonants' noise are stretched to the
length of a phrase (vowels more than consonants) and filter the singer's own source.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from scipy import fft
from scipy.signal import resample_poly

from separator.errors import AudioError
from separator.synthesis import programs
from separator.synthesis.oscillators import SAMPLE_RATE, Audio
from separator.synthesis.score import Note
from separator.synthesis.voice import FREQUENCIES, HOP, N_FFT, Tract, phrases

WORDS = """
love baby night day heart away tonight never always time mind fire river golden morning light dream
dancing falling running home alone stone street city summer winter rain shine over under believe
remember forever together yesterday tomorrow heaven hold feel know say tell want need give take
break shake blue moon star sky ocean water shadow stranger danger angel devil money honey sugar
sweet cry lie try fly high low slow go show wonder thunder echo window mirror road oh yeah hey la
da na ooh gonna wanna come leave stay wait burning turning little big young old
"""
LANGUAGES = ("en-us", "en-gb", "es", "it", "fr-fr", "de", "pt-br", "sv", "pl", "ja", "sw", "id")
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5"),
    *("Andy", "Annie", "Alicia", "Andrea", "Linda", "Michael", "Gene", "Lee", "Denis"),
    *("steph", "belinda"),
)
HELD_OUT_VARIANTS = ("m5", "m7", "f2", "f5", "Andrea", "Lee", "Gene", "steph")
HELD_OUT_LANGUAGES = ("en-gb", "fr-fr", "sw", "pl")


def installed_voices(timbres: str = "any") -> tuple[str, ...]:
    """List the voices of `espeak-ng` to use here, for "train", "heldout" or "any"."""
    if shutil.which("espeak-ng") is None:
        return ()
    every = [(language, variant) for language in LANGUAGES for variant in VARIANTS]
    if timbres != "any":
        held = timbres == "heldout"
        every = [
            (language, variant)
            for language, variant in every
            if (language in HELD_OUT_LANGUAGES) == held and (variant in HELD_OUT_VARIANTS) == held
        ]
    return tuple(f"{language}+{variant}" for language, variant in every)


@lru_cache(maxsize=64)
def speak(text: str, voice: str) -> Audio:
    """Say a text: mono at 44.1 kHz.

    Raises:
        AudioError: `espeak-ng` is missing or failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "speech.wav")
        command = ["espeak-ng", "-v", voice, "-s", "130", "-w", str(out), text]
        try:
            programs.run_program(command, 30.0)
        except (OSError, subprocess.SubprocessError) as error:
            raise AudioError(f"espeak-ng could not speak with voice {voice}: {error}.") from error
        audio, rate = soundfile.read(out, dtype="float32")
    return np.asarray(resample_poly(audio, SAMPLE_RATE // 50, rate // 50), dtype=np.float32)


def analyze(speech: Audio) -> tuple[Audio, Audio]:
    """Return the spectral envelopes `(frames, bins)` of speech and its voicing `(frames,)`.

    The envelope is the cepstrum's slow part, which leaves the speaker's pitch behind.
    """
    window = np.hanning(N_FFT).astype(np.float32)
    padded = np.pad(speech, N_FFT)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    power = np.abs(fft.rfft(pieces * window)) ** 2 + 1e-6
    cepstrum = fft.irfft(0.5 * np.log(power))
    lifter = np.zeros(N_FFT)
    lifter[:90] = lifter[-89:] = 1.0
    envelope = np.exp(fft.rfft(cepstrum * lifter).real)
    low = power[:, FREQUENCIES < 1500].sum(axis=1)
    high = power[:, FREQUENCIES > 3000].sum(axis=1)
    voicing = low / (low + 4.0 * high)
    return envelope.astype(np.float32), np.clip(voicing * 1.5 - 0.25, 0, 1).astype(np.float32)


def spoken_tract(notes: tuple[Note, ...], voice: str, length: int, rng: Generator) -> Tract:
    """Speak a few words for every phrase of a melody and stretch them over it."""
    frames = length // HOP + 1
    envelope = np.zeros((frames, len(FREQUENCIES)), dtype=np.float32)
    hiss = np.zeros_like(envelope)
    for phrase in phrases(notes):
        start = int(phrase[0].start * SAMPLE_RATE / HOP)
        end = min(int((phrase[-1].start + phrase[-1].duration) * SAMPLE_RATE / HOP), frames)
        count = max(1, round(len(phrase) / 1.6))
        text = " ".join(str(word) for word in rng.choice(WORDS.split(), size=count))
        spoken, voicing = analyze(speak(text, voice))
        source = _stretch(spoken, voicing, end - start)
        envelope[start:end] = spoken[source] * voicing[source, None]
        hiss[start:end] = spoken[source] * (1.0 - voicing[source, None]) * 0.4
    top = float(np.quantile(envelope.max(axis=1), 0.95)) + 1e-9
    return Tract(envelope / np.float32(top), hiss / np.float32(top))


def _stretch(envelope: Audio, voicing: Audio, frames: int) -> np.ndarray:
    """Map `frames` output frames to source frames; voiced ones are held longer."""
    level = envelope.mean(axis=1)
    sounding = level > 0.02 * level.max()
    weight = np.where(sounding, 0.15 + voicing, 0.02)
    clock = np.cumsum(weight) / weight.sum()
    return np.searchsorted(clock, (np.arange(frames) + 0.5) / max(frames, 1)).clip(
        0, len(level) - 1
    )
