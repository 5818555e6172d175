"""Give results of the literature to compare with, each under its own definition."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

import yaml

from separator.schema import SAFE_LOADER, Strict, validate

_COMPARABLE = frozenset(("musdb18", "musdb18hq", "musdb"))  # kinds of data: whole songs of MUSDB18


class Published(Strict):
    """One row of a table in a paper.

    Attributes:
        definition: Definition of the scores; a name in `METRICS`.
        data: Data that they were measured on.
        extra: Whether more than the data's training songs were used; None if that isn't stated.
        scores: By stem, in dB.
    """

    method: str
    definition: Literal["cSDR", "uSDR"]
    data: Literal["MUSDB18", "MUSDB18-HQ"]
    extra: bool | None
    scores: dict[str, float]
    source: str


def published(definition: str, data: str, split: str) -> tuple[Published, ...]:
    """Return what can be compared with own results; nothing on any other data.

    Args:
        definition: Name of the metric; only results under the same one are returned.
        data: Kind of the data set that the own results are of.
        split: Split of the data.

    >>> {row.definition for row in published("uSDR", "musdb18hq", "test")}
    {'uSDR'}
    >>> published("uSDR", "moisesdb", "test")
    ()
    """
    if data not in _COMPARABLE or split != "test":
        return ()
    return tuple(row for row in _rows() if row.definition == definition)


@cache
def _rows() -> tuple[Published, ...]:
    text = files("separator.evaluation").joinpath("published.yaml").read_text(encoding="utf-8")
    return tuple(validate(Published, row, "published.yaml") for row in yaml.load(text, SAFE_LOADER))
