"""What a network may want to know of a whole track before it starts, and how that is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import Tensor

from separator.audio.layout import Layout
from separator.stream.spool import copies

_T = TypeVar("_T")


class Statistics(NamedTuple):
    """Mean and standard deviation of the mono mix of a whole track."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Facts:
    """Findings about a whole track; None where nobody wants to know.

    Attributes:
        statistics: Mean and deviation, for models that normalise.
        layout: Where the speakers of the channels stand; see `separator.audio.layout`.
        loudest: Largest magnitude in the network's own spectrogram.
        piece: Whether the network sees pieces of it, framed as such; see `Recipe.pieces`.
    """

    statistics: Statistics | None = None
    layout: Layout | None = None
    loudest: float | None = None
    piece: bool = False


UNKNOWN = Facts()


def read_ahead(
    blocks: Iterable[Tensor], measure: Callable[[Iterator[Tensor]], _T]
) -> tuple[_T, Iterator[Tensor]]:
    """Measure a stream to its end; return what was found, and the stream again, from a file."""
    ahead, again = copies(blocks, far=True)
    return measure(ahead), again


def track_statistics(blocks: Iterable[Tensor]) -> Statistics:
    """Return mean and standard deviation of the mono mix of a whole track, read once.

    The deviation is the unbiased one, as in Demucs; 0 for fewer than two samples.
    """
    count, mean, squares = 0, 0.0, 0.0
    for block in blocks:
        if not block.shape[-1]:
            continue
        mono = block.mean(0).double()  # (time,)
        size, centre = len(mono), mono.mean().item()
        delta = centre - mean
        squares += (mono - centre).square().sum().item()
        squares += delta**2 * count * size / (count + size)
        mean += delta * size / (count + size)
        count += size
    return Statistics(mean, math.sqrt(squares / (count - 1)) if count > 1 else 0.0)
