"""Draw the README's picture: the demo song's spectrogram, and those of its separated stems.

python scripts/plot_demo.py [--output models/demo/spectrograms.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import librosa
import matplotlib
import numpy as np
import soundfile
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from separator import Separator
from separator.resources import DEFAULT_MODEL, data_folder

matplotlib.use("Agg")

BANDS, TOP = 160, 16000  # mel bands, highest frequency in Hz


def decibels(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the mel spectrogram of `(channels, time)` in dB, 0 dB at a sine of full scale."""
    power = librosa.feature.melspectrogram(
        y=audio.mean(0), sr=sample_rate, n_fft=4096, hop_length=512, n_mels=BANDS, fmax=TOP
    )
    return librosa.power_to_db(power, ref=1.0, top_db=None)


def draw(axes: Axes, picture: np.ndarray, seconds: float, title: str, loudest: float) -> None:
    """Draw one spectrogram; all share the scale, so that brightness can be compared."""
    axes.imshow(
        picture,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=loudest - 70,
        vmax=loudest,
        extent=(0, seconds, 0, 1),
    )
    axes.set_title(title, loc="left", fontsize=11)
    mels = librosa.mel_frequencies(BANDS, fmax=TOP)
    ticks = {100: "100 Hz", 1000: "1 kHz", 4000: "4 kHz", TOP: "16 kHz"}
    axes.set_yticks([np.searchsorted(mels, hertz) / BANDS for hertz in ticks], ticks.values())
    axes.tick_params(labelsize=8, length=2)
    axes.spines[:].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    demo = data_folder("models") / "demo"
    parser.add_argument("--output", type=Path, default=demo / "spectrograms.png")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()

    audio, sample_rate = soundfile.read(demo / "mixture.flac", dtype="float32")
    mixture = torch.from_numpy(audio.T.copy())
    stems = Separator(arguments.model).separate(mixture, sample_rate)
    pictures = {
        name: decibels(part.numpy(), sample_rate)
        for name, part in {"the song": mixture, **stems}.items()
    }
    loudest = pictures["the song"].max()
    seconds = mixture.shape[-1] / sample_rate

    figure = plt.figure(figsize=(12, 4.4), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, 4)
    places = [grid[:, :2], grid[0, 2], grid[0, 3], grid[1, 2], grid[1, 3]]
    for place, (name, picture) in zip(places, pictures.items(), strict=True):
        draw(figure.add_subplot(place), picture, seconds, name, loudest)
    figure.supxlabel("seconds", fontsize=9)
    figure.savefig(arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
