"""Songs with their stems: the data sets of the field behind one interface.

```
dataset = open_dataset("data/musdb18hq", split="test")
for track in dataset.tracks:
    mixture = track.mixture()                          # (channels, time), float32
    vocals = track.read("vocals", 44100, 8 * 44100)    # eight seconds from the second one on
```
"""

from __future__ import annotations

from separator.datasets.dataset import Dataset, check_usable, from_musdb, open_dataset, scan_dataset
from separator.datasets.layouts import KINDS
from separator.datasets.leaks import leak_check, trained_on
from separator.datasets.problems import PROBLEM_COLUMNS, DatasetError, Problem
from separator.datasets.splits import MUSDB18_VALIDATION, SPLITS
from separator.datasets.tracks import AudioFile, AudioSource, LoadedAudio, Track
from separator.words import MIXTURE

__all__ = [
    "KINDS",
    "MIXTURE",
    "MUSDB18_VALIDATION",
    "PROBLEM_COLUMNS",
    "SPLITS",
    "AudioFile",
    "AudioSource",
    "Dataset",
    "DatasetError",
    "LoadedAudio",
    "Problem",
    "Track",
    "check_usable",
    "from_musdb",
    "leak_check",
    "open_dataset",
    "scan_dataset",
    "trained_on",
]
