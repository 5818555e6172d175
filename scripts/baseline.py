"""Compare models with a classical baseline and with the ideal ratio mask, in one table.

    python scripts/make_judge_songs.py data/judge
    python scripts/baseline.py --data data/judge/test --data data/judge/real \
        --model pocket --model spleeter-2stems
    python scripts/baseline.py --data musdb18hq/ --split test --model pocket

Any data set will do that `separator.datasets` knows; where songs have vocals and accompaniment
alone, these are measured. Prints the SDR in dB over a whole song (uSDR), as the mean over the songs
in which the stem sounds. The accompaniment of a model without one is the sum of its other stems,
or what its vocals leave of the mixture.

The baseline needs no training: harmonic-percussive separation for the drums, similar frames
elsewhere in the song for what accompanies the voice, and a low-pass for the bass; what is left is
"other".

Reference: Fitzgerald (2010), Harmonic/percussive separation using median filtering; Rafii and
Pardo (2012), Music/voice separation using the similarity matrix.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import librosa
import numpy as np
import torch

from separator.datasets import DatasetError, Track, open_dataset
from separator.errors import ConfigError
from separator.evaluation.oracles import ORACLES
from separator.evaluation.ratios import usdr

STEMS = ("drums", "bass", "other", "vocals")
ACCOMPANIMENT = "instrumental"  # as data sets call all but the vocals
ACCOMPANIMENTS = ("accompaniment", "instrumental", "no_vocals")  # as models call it
N_FFT, HOP = 4096, 1024
BASS_HZ, VOICE_HZ = 180.0, 150.0
SILENT = 1e-6  # mean power under which a stem is left out of the mean

Stems = dict[str, np.ndarray]
Separate = Callable[[np.ndarray, Stems, int], Stems]


def spectrogram(audio: np.ndarray) -> np.ndarray:
    return librosa.stft(audio, n_fft=N_FFT, hop_length=HOP)


def waveform(spectrum: np.ndarray, length: int) -> np.ndarray:
    return librosa.istft(spectrum, hop_length=HOP, n_fft=N_FFT, length=length)


def classical(mixture: np.ndarray, targets: Stems, sample_rate: int) -> Stems:
    """Separate `(channels, time)` into four stems without any training."""
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
    estimates = waveform(masks[:, None] * spectrum, mixture.shape[-1])
    return dict(zip(STEMS, estimates, strict=True))


def oracle(name: str) -> Separate:
    """Return a separator that knows the stems as a function."""

    def separate(mixture: np.ndarray, targets: Stems, sample_rate: int) -> Stems:
        estimates = {}
        every = set(targets) - {ACCOMPANIMENT}
        for group in (sorted(every), ["vocals", ACCOMPANIMENT]):
            true = torch.from_numpy(np.stack([targets[stem] for stem in group]))
            found = ORACLES[name](torch.from_numpy(mixture), true).numpy()
            estimates |= {s: e for s, e in zip(group, found, strict=True) if s not in estimates}
        return estimates

    return separate


def model(name: str) -> Separate:
    """Return a trained model as a function."""
    from separator import Separator

    separator = Separator(name)

    def separate(mixture: np.ndarray, targets: Stems, sample_rate: int) -> Stems:
        estimates = separator.separate(torch.from_numpy(mixture), sample_rate)
        return {stem: audio.numpy() for stem, audio in estimates.items()}

    return separate


def with_accompaniment(estimates: Stems, mixture: np.ndarray) -> Stems:
    """Add what accompanies the vocals, from the estimates that there are."""
    for name in ACCOMPANIMENTS:
        if name in estimates:
            return {**estimates, ACCOMPANIMENT: estimates[name]}
    if set(estimates) >= set(STEMS):
        rest = np.sum([audio for name, audio in estimates.items() if name != "vocals"], axis=0)
        return {**estimates, ACCOMPANIMENT: rest}
    if "vocals" in estimates:
        return {**estimates, ACCOMPANIMENT: mixture - estimates["vocals"]}
    return estimates


def sdr(target: np.ndarray, estimate: np.ndarray | None) -> float:
    """Return the SDR of one stem in dB, NaN where it is silent or not estimated."""
    if estimate is None or np.square(target, dtype=np.float64).mean() <= SILENT:
        return float("nan")
    return float(usdr(torch.from_numpy(target)[None], torch.from_numpy(estimate)[None])[0])


def songs_of(folder: Path, split: str, limit: int) -> tuple[tuple[Track, ...], tuple[str, ...]]:
    """Open a data set: its songs, and the stems to measure."""
    try:
        four = (*STEMS, ACCOMPANIMENT)
        return tuple(open_dataset(folder, "auto", split, four, limit=limit).tracks), four
    except (ConfigError, DatasetError):
        two = ("vocals", ACCOMPANIMENT)
        return tuple(open_dataset(folder, "auto", split, two, limit=limit).tracks), two


def measure(
    songs: Sequence[Track], stems: Sequence[str], methods: dict[str, Separate]
) -> dict[str, tuple[np.ndarray, float]]:
    """Return each method's mean SDR by stem, and its seconds for a second of music."""
    scores: dict[str, list[list[float]]] = {name: [] for name in methods}
    spent = dict.fromkeys(methods, 0.0)
    for song in songs:
        targets = {stem: song.read(stem) for stem in stems}
        mixture = song.mixture()
        for name, separate in methods.items():
            start = time.perf_counter()
            estimates = separate(mixture, targets, song.sample_rate)
            spent[name] += time.perf_counter() - start
            estimates = with_accompaniment(estimates, mixture)
            scores[name].append([sdr(targets[stem], estimates.get(stem)) for stem in stems])
    seconds = sum(song.duration for song in songs)
    return {name: (_means(np.array(scores[name])), spent[name] / seconds) for name in methods}


def _means(scores: np.ndarray) -> np.ndarray:
    """Average over the songs that have a score; NaN for a stem that none has."""
    known = np.isfinite(scores)
    total = np.where(known, scores, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(len(total), np.nan), where=known.any(0))


def row(stems: Sequence[str], means: np.ndarray, seconds: float) -> str:
    """Format a method's figures: the four stems, their mean, the accompaniment, the time."""
    known = dict(zip(stems, means, strict=True))
    four = [known.get(stem, float("nan")) for stem in STEMS]
    figures = [*four, float(np.mean(four)), known[ACCOMPANIMENT]]
    cells = ["-" if np.isnan(figure) else f"{figure:.2f}" for figure in figures]
    return " | ".join([*cells, f"{seconds:.3f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="a data set; may be repeated"
    )
    parser.add_argument("--split", default="all", help="train, validation, test or all")
    parser.add_argument(
        "--model", action="append", default=[], help="a model to compare; may be repeated"
    )
    parser.add_argument("--songs", type=int, default=20, help="at most so many songs of each")
    options = parser.parse_args()

    trained = {name: model(name) for name in options.model}
    print("| data | method | " + " | ".join(STEMS) + " | mean | accompaniment | s per s |")
    print("| --- " * (len(STEMS) + 5) + "|")
    for folder in options.data:
        songs, stems = songs_of(folder, options.split, options.songs)
        untrained = {"classical baseline": classical} if set(stems) >= set(STEMS) else {}
        methods = {
            "mixture": oracle("mixture"),
            **untrained,
            **trained,
            "ideal ratio mask": oracle("irm1"),
        }
        for name, (means, seconds) in measure(songs, stems, methods).items():
            print(
                f"| {folder} ({len(songs)}) | {name} | {row(stems, means, seconds)} |", flush=True
            )


if __name__ == "__main__":
    main()
