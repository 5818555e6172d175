"""Make the bundled demo song: stems as Ogg Vorbis, and their sum as FLAC.

    python scripts/make_demo_song.py models/demo

The stems are the truth that `make run` compares with, so the mixture is the sum of the stems as
they come back from their files, rounded to 16 bit.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

from separator.synthesis import SAMPLE_RATE, STEMS, Palette, render_song

SEED = 3_000_093  # no training or test song starts from it
SECONDS = 25.0
FADE = 2.0
STYLE = "pop"
QUALITY = 0.7  # soundfile's compression level: 0 is the largest file, 1 the smallest


def faded(audio: np.ndarray) -> np.ndarray:
    """Let the song end."""
    gain = np.ones(audio.shape[1], dtype=np.float32)
    gain[-int(FADE * SAMPLE_RATE) :] = np.linspace(1, 0, int(FADE * SAMPLE_RATE)) ** 2
    return audio * gain


def write_stem(path: Path, audio: np.ndarray) -> np.ndarray:
    """Write a stem `(2, time)` and return what a reader will get."""
    with soundfile.SoundFile(
        path, "w", SAMPLE_RATE, 2, format="OGG", subtype="VORBIS", compression_level=QUALITY
    ) as file:
        for block in np.array_split(audio.T, 100):  # libsndfile's encoder wants small pieces
            file.write(block)
    decoded, _ = soundfile.read(path, dtype="float32")
    return decoded.T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    stems = render_song(options.seed, SECONDS, Palette.installed("train"), STYLE)
    decoded = [write_stem(options.folder / f"{s}.ogg", faded(0.95 * stems[s])) for s in STEMS]
    mixture = np.sum(decoded, axis=0)
    if np.abs(mixture).max() > 1.0:
        raise SystemExit(f"The mixture peaks at {np.abs(mixture).max():.2f}: choose another seed.")
    path = options.folder / "mixture.flac"
    soundfile.write(path, mixture.T, SAMPLE_RATE, "PCM_16", compression_level=1.0)
    print(f"{path}: {mixture.shape[1] / SAMPLE_RATE:.1f} s, peak {np.abs(mixture).max():.2f}")


if __name__ == "__main__":
    main()
