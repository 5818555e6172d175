"""Songs and options of training data for the tests."""

import numpy as np
import soundfile

from separator.training.data.build import DataOptions, build_data
from separator.training.data.sources import Plan

RATE = 1000
STEMS = ("drums", "bass", "other", "vocals")


def plan_of(**changes):
    usual = {"stems": ("drums", "vocals"), "sample_rate": RATE, "channels": 1, "samples": 500}
    return Plan(**{**usual, "batch": 3, "seed": 1, **changes})


def write_songs(folder, songs=3, seconds=8, rate=RATE, channels=2, stems=STEMS):
    """Write a folder like MUSDB18-HQ's, of noise in 16 bits."""
    rng = np.random.default_rng(0)
    for number in range(songs):
        place = folder / "train" / f"song {number}"
        place.mkdir(parents=True)
        audio = {
            stem: rng.integers(-3000, 3000, (seconds * rate, channels)).astype(np.int16)
            for stem in stems
        }
        audio["mixture"] = np.sum(list(audio.values()), axis=0).astype(np.int16)
        for name, samples in audio.items():
            soundfile.write(place / f"{name}.wav", samples, rate, "PCM_16")
    return folder


def folder_options(folder, **changes):
    usual = {"folders": [{"path": str(folder)}], "cache": str(folder.parent / "cache")}
    return DataOptions.model_validate({**usual, "segment": 1.0, "batch": 2, **changes})


def stream(options, **changes):
    usual = {"stems": STEMS, "sample_rate": RATE, "channels": 2, "seed": 5}
    return build_data(options, **{**usual, **changes})
