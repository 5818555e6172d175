"""Keep data on which a model was trained from being its test.

Cards say in words what a model was trained on; the words that the field uses are understood.
"""

from __future__ import annotations

import re
from typing import Protocol

from separator.datasets.dataset import Dataset
from separator.datasets.splits import SPLITS, parse_split
from separator.errors import ConfigError

_FAMILIES = {
    "musdb18": r"musdb(?:18)?(?:[- ]?hq)?",
    "moisesdb": r"moises[- ]?db",
    "dnr": r"dnr(?:[- ]?v?\d)?|divide[- ]and[- ]remaster",
    "slakh2100": r"slakh(?:2100)?",
    "medleyvox": r"medley[- ]?(?:vox|db)",
}
_SPLIT_WORDS = {
    "train": r"\btrain(?:ing)?\b",
    "validation": r"\bval(?:id(?:ation)?)?\b",
    "test": r"\btest\b",
}
_WHOLE = r"\b(?:all|whole|full|entire)\b"
_SEPARATORS = r"[+,;&]|\.\s|\band\b|\bplus\b"
_NEGATION = r"\b(?:no|not|never|without|except|excluding|minus|tested|evaluated)\b"
_HELD_OUT = r"\b(?:held[- ]out|unseen|excluded)\b"


class Described(Protocol):
    """A model card, as far as this module needs it."""

    @property
    def name(self) -> str:
        """What the model is called."""

    @property
    def training_data(self) -> str:
        """What it was trained on, in words."""


def trained_on(text: str) -> dict[str, frozenset[str]]:
    """Return the splits of known data sets that a description of training data speaks of.

    MUSDB18 alone, and its training set, mean the 100 songs of its folder `train`, validation
    included. Other sets without a split mean all of it.

    >>> {name: sorted(splits) for name, splits in trained_on("MUSDB18-HQ train+test").items()}
    {'musdb18': ['test', 'train', 'validation']}
    >>> trained_on("500 internal songs, without MUSDB18")
    {}
    """
    text = text.lower()
    for family, words in _FAMILIES.items():
        text = re.sub(rf"\b(?:{words})\b", f"@{family}", text)
    found: dict[str, set[str]] = {}
    current: set[str] = set()
    for segment in re.split(_SEPARATORS, text):
        if re.search(_HELD_OUT, segment):
            continue
        said, *denied = re.split(_NEGATION, segment, maxsplit=1)
        if families := set(re.findall(r"@(\w+)", said)):
            current = families
        elif "@" in segment:
            continue
        for family in current:
            found.setdefault(family, set()).update(_splits(said))
            if family == "musdb18" and "validation" not in " ".join(denied):
                _add_validation(found[family])
    return {family: frozenset(splits or _default(family)) for family, splits in found.items()}


def leak_check(card: Described, dataset: Dataset) -> None:
    """Refuse data on which a model was trained as its test.

    A card that doesn't state its training data passes; check members of an ensemble one by one.

    Args:
        card: Card of the model.
        dataset: What it shall be tested on.

    Raises:
        ConfigError: The model was trained on it.
    """
    wanted = parse_split(dataset.split)
    if not dataset.has_splits and "test" in wanted:
        wanted = frozenset(SPLITS)  # all songs are read then
    family = "medleyvox" if dataset.kind.startswith("medleyvox") else dataset.kind
    family = "musdb18" if dataset.kind.startswith("musdb") else family
    seen = trained_on(card.training_data).get(family, frozenset()) & wanted
    here = dataset.path is not None and str(dataset.path) in card.training_data
    if seen or here:
        which = "+".join(name for name in SPLITS if name in seen) or "these songs"
        raise ConfigError(
            f"'{card.name}' can't be tested on {dataset.kind} {dataset.split}: it was trained on "
            f"{which} ('{card.training_data}'). Choose other data, give another `--kind` if this "
            f"isn't {dataset.kind}, or accept the leak with `--allow-leak`."
        )


def _splits(text: str) -> set[str]:
    named = {split for split, words in _SPLIT_WORDS.items() if re.search(words, text)}
    if not named and re.search(_WHOLE, text):
        return set(SPLITS)
    return named


def _add_validation(splits: set[str]) -> None:
    """The songs for validation lie in MUSDB18's training folder, and most train on all of it."""
    if "train" in splits:
        splits.add("validation")


def _default(family: str) -> tuple[str, ...]:
    return ("train", "validation") if family == "musdb18" else SPLITS
