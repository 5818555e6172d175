"""Compare a model with a classical baseline and with the ideal ratio mask.

    python scripts/make_synthetic_musdb.py data/synthetic --train 0 --test 20
    python scripts/baseline.py data/synthetic/test --model pocket

Prints the SDR of each stem in dB over a whole song (uSDR), as the mean over the songs in which the
stem sounds. The baseline needs no training: harmonic-percussive separation
for the drums, similar frames elsewhere in the song for what accompanies the voice, and a low-pass
for the bass; what is left is "other".

Reference: Fitzgerald (2010), Harmonic/percussive separation using median filtering; Rafii and
Pardo (2012), Music/voice separation using the similarity matrix.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import torch

from separator.datasets import open_dataset
from separator.evaluation.oracles import ORACLES
from separator.evaluation.ratios import usdr

STEMS = ("drums", "bass", "other", "vocals")
N_FFT, HOP = 4096, 1024
BASS_HZ, VOICE_HZ = 180.0, 150.0
SILENT = 1e-6  # mean power under which a stem is left out of the mean

Separate = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def spectrogram(audio: np.ndarray) -> np.ndarray:
    return librosa.stft(audio, n_fft=N_FFT, hop_length=HOP)


def waveform(spectrum: np.ndarray, length: int) -> np.ndarray:
    return librosa.istft(spectrum, hop_length=HOP, n_fft=N_FFT, length=length)


def classical(mixture: np.ndarray, targets: np.ndarray, sample_rate: int) -> np.ndarray:
    """Separate `(channels, time)` into `(stems, channels, time)` without any training."""
    spectrum = spectrogram(mixture)
    magnitude = np.abs(spectrum).mean(axis=0)  # one mask for all channels
    _, drums = librosa.decompose.hpss(magnitude, mask=True, margin=1.0)
    rest = magnitude * (1.0 - drums)
    frequencies = librosa.fft_frequencies(sr=sample_rate, n_fft=N_FFT)[:, None]
    width = int(librosa.time_to_frames(2, sr=sample_rate, hop_length=HOP))
    repeating = librosa.decompose.nn_filter(
        rest, aggregate=np.median, metric="cosine", width=min(width, rest.shape[1] // 4)
    )
    repeating = np.minimum(rest, repeating)
    voice = librosa.util.softmask(rest - repeating, 2.0 * repeating, power=2)
    voice = np.where(frequencies < VOICE_HZ, 0.0, voice)
    bass = 1.0 / (1.0 + (frequencies / BASS_HZ) ** 8) * np.ones_like(voice)
    harmonic = 1.0 - drums
    masks = np.stack(
        [
            drums,
            harmonic * (1.0 - voice) * bass,
            harmonic * (1.0 - voice) * (1.0 - bass),
            harmonic * voice,
        ]
    )
    return waveform(masks[:, None] * spectrum, mixture.shape[-1])


def oracle(name: str) -> Separate:
    """Return a separator that knows the stems as a function."""

    def separate(mixture: np.ndarray, targets: np.ndarray, sample_rate: int) -> np.ndarray:
        return ORACLES[name](torch.from_numpy(mixture), torch.from_numpy(targets)).numpy()

    return separate


def model(name: str) -> Separate:
    """Return a trained model as a function."""
    from separator import Separator

    separator = Separator(name)

    def separate(mixture: np.ndarray, targets: np.ndarray, sample_rate: int) -> np.ndarray:
        estimates = separator.separate(torch.from_numpy(mixture), sample_rate)
        return np.stack([estimates[stem].numpy() for stem in STEMS])

    return separate


def sdr(targets: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Return the SDR in dB of each stem, NaN where the stem is silent."""
    ratio = usdr(torch.from_numpy(targets), torch.from_numpy(estimates)).numpy()
    power = np.square(targets, dtype=np.float64).mean(axis=(1, 2))
    return np.where(power > SILENT, ratio, np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="songs, each a folder of stems")
    parser.add_argument("--model", action="append", default=[], help="a model to compare")
    parser.add_argument("--songs", type=int, default=20, help="at most so many songs")
    options = parser.parse_args()

    songs = open_dataset(options.folder, "musdb18hq", "all", STEMS, limit=options.songs).tracks
    methods: dict[str, Separate] = {
        "mixture": oracle("mixture"),
        "HPSS + neighbours": classical,
        "ideal ratio mask": oracle("irm1"),
    }
    methods |= {name: model(name) for name in options.model}
    scores: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    spent = dict.fromkeys(methods, 0.0)
    seconds = 0.0
    for song in songs:
        targets = np.stack([song.read(stem) for stem in STEMS])
        seconds += song.duration
        for name, separate in methods.items():
            start = time.perf_counter()
            estimates = separate(targets.sum(axis=0), targets, song.sample_rate)
            spent[name] += time.perf_counter() - start
            scores[name].append(sdr(targets, estimates))

    print(f"{len(songs)} songs, {seconds:.0f} s; SDR in dB")
    print(f"{'':20}" + "".join(f"{stem:>9}" for stem in STEMS) + f"{'mean':>9}  s per s")
    for name in methods:
        means = np.nanmean(scores[name], axis=0)
        row = "".join(f"{value:9.2f}" for value in (*means, means.mean()))
        print(f"{name:20}{row}  {spent[name] / seconds:.3f}")


if __name__ == "__main__":
    main()
