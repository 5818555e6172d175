"""Which song is for training, for validation, for testing.

Folders named `train`, `validation` or `test` (or as the data sets abbreviate them) decide. Where
MUSDB18 comes without a folder for validation, its official list does. Songs in no such folder are
divided by a hash of their names into nine parts for training and one for validation, which stays
as it is when songs are added; as a test set, all of them are taken.
"""

from __future__ import annotations

import zlib

from separator.errors import ConfigError
from separator.words import nearest

SPLITS = ("train", "validation", "test")

#: What the data sets call the folders of their splits, in lower case.
FOLDERS = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "cv": "validation",
    "dev": "validation",
    "test": "test",
    "tt": "test",
}

#: Songs of MUSDB18's training folder that its makers set aside for validation.
#: Source: `configs/mus.yaml` of the package musdb 0.4.3, "validation_tracks".
MUSDB18_VALIDATION = frozenset(
    (
        "ANiMAL - Rockshow",
        "Actions - One Minute Smile",
        "Alexander Ross - Goodbye Bolero",
        "Clara Berry And Wooldog - Waltz For My Victims",
        "Fergessen - Nos Palpitants",
        "James May - On The Line",
        "Johnny Lokke - Promises & Lies",
        "Leaf - Summerghost",
        "Meaxic - Take A Step",
        "Patrick Talbot - A Reason To Leave",
        "Skelpolu - Human Mistakes",
        "Traffic Experiment - Sirens",
        "Triviul - Angelsaint",
        "Young Griffo - Pennies",
    )
)


def parse_split(split: str) -> frozenset[str]:
    """Return the splits that `split` names: one of `SPLITS`, several joined by "+", or "all".

    Raises:
        ConfigError: There is no such split.

    >>> sorted(parse_split("train+validation"))
    ['train', 'validation']
    """
    names = SPLITS if split == "all" else tuple(split.split("+"))
    for name in names:
        if name not in SPLITS:
            raise ConfigError(
                f"Unknown split '{split}'; allowed: {', '.join(SPLITS)}, several joined by '+', "
                f"all.{nearest(name, SPLITS)}"
            )
    return frozenset(names)


def split_of(name: str, folder: str | None, *, listed: bool) -> str | None:
    """Return the split of a song, or None where the data set has none.

    Args:
        name: Name of the song.
        folder: Split that its folder stands for, or None.
        listed: Whether the official validation list of MUSDB18 takes songs out of `train`.
    """
    if folder == "train" and listed and name in MUSDB18_VALIDATION:
        return "validation"
    return folder


def is_wanted(name: str, split: str | None, wanted: frozenset[str]) -> bool:
    """Tell whether a song belongs to the wanted splits."""
    if split is None:
        if "test" in wanted:
            return True
        split = "train" if zlib.crc32(name.encode()) % 10 else "validation"
    return split in wanted
