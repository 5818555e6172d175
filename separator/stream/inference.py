"""Run a network over a stream: overlapping segments, weighted overlap-add.

    blocks ──> segments ──> batches ──> network ──> overlap-add ──> blocks

      segment 0  ▁▂▄▆█▆▄▂▁
      segment 1       ▁▂▄▆█▆▄▂▁
      last one             ▁▂▄▆█▆▄▂▁        where it lies is the recipe's choice
                 ├────┤                     final as soon as segment 1 has been added

The stream knows no architecture: whatever maps `(batch, channels, time)` to
`(batch, stems, channels, time)` can run in it. Its memory does not grow with the length of the
track. Blocks are float32 tensors `(channels, time)` of any size, an empty one included. How a
track is cut is told in `separator.stream.segments`.

Reference: Défossez et al. 2019, arXiv 1911.13254, section 5.4 (random shifts).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from separator.errors import ConfigError
from separator.spectral.overlap_add import OverlapAdd
from separator.stream.progress import Monitor
from separator.stream.segments import RECIPES, Segment, Tape, ValidLength
from separator.words import nearest

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """Length, overlap and number of the passes in which a track is separated.

    Attributes:
        segment_samples: Length of one segment in samples, at least 1.
        overlap: Share of a segment that the next one covers again, in [0, 1).
        batch_size: Segments that go through the network together, at least 1.
        shifts: Number of passes over differently placed segments, whose weighted estimates are
            averaged; 0 and 1 mean one pass.
        seed: Seed of the placement, so that the same input gives the same bytes.
        recipe: Where segments lie and how they are weighed, see `separator.stream.segments`.
    """

    segment_samples: int
    overlap: float = 0.25
    batch_size: int = 1
    shifts: int = 0
    seed: int = 0
    recipe: str = "default"

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ConfigError(
                f"Unknown recipe '{self.recipe}'; allowed: {', '.join(RECIPES)}."
                f"{nearest(self.recipe, RECIPES)}"
            )
        if self.segment_samples < 1:
            raise ConfigError(f"The segment has {self.segment_samples} samples; at least 1.")
        if not 0 <= self.overlap < 1:
            raise ConfigError(
                f"The overlap is {self.overlap}; allowed is 0 up to, not including, 1."
            )
        if self.batch_size < 1:
            raise ConfigError(f"The batch size is {self.batch_size}; at least 1.")
        if self.shifts < 0:
            raise ConfigError(f"The number of shifts is {self.shifts}; it can't be negative.")
        RECIPES[self.recipe].hop(self.segment_samples, self.overlap)  # refuses what it can't cut

    @property
    def hop_samples(self) -> int:
        """Distance between the starts of two segments, in samples."""
        return RECIPES[self.recipe].hop(self.segment_samples, self.overlap)

    @property
    def offsets(self) -> list[int]:
        """Samples of silence before the track in each pass; the first pass has none."""
        generator = random.Random(self.seed)
        extra = (generator.randrange(self.hop_samples) for _ in range(1, self.shifts))
        return [0, *extra]

    def segments(self, samples: int) -> int:
        """Count the segments of a track of `samples` samples over all passes.

        >>> Plan(segment_samples=8, overlap=0.5).segments(17)
        4
        """
        if samples == 0:
            return 0
        total, hop = RECIPES[self.recipe].total, self.hop_samples
        return sum(total(offset + samples, self.segment_samples, hop) for offset in self.offsets)


def separate_stream(
    blocks: Iterable[Tensor],
    network: Network,
    plan: Plan,
    monitor: Monitor | None = None,
    valid_length: ValidLength = int,
) -> Iterator[Tensor]:
    """Separate a stream of blocks; yield blocks of estimates, together as long as the input.

    Args:
        blocks: Blocks of the track.
        network: Separates a batch of segments.
        plan: How the track is cut.
        monitor: Is told of progress, and may stop it.
        valid_length: How many samples the network wants to see for a stretch of so many; the same
            number unless given. Only the recipe `demucs` asks.

    Shape:
        - blocks: `(..., channels, time)`; leading axes are separated side by side.
        - yields: `(..., stems, channels, time)`

    Raises:
        Cancelled: Where the monitor's event is set, between two batches.
    """
    monitor = monitor or Monitor()
    overlap_add = OverlapAdd()
    for batch in _batches(_all_segments(blocks, plan, valid_length), plan.batch_size):
        monitor.check()
        segments = torch.stack([segment.audio for segment in batch])
        estimates = _apply(network, segments)  # (batch, ..., stems, channels, time)
        for segment, estimate in zip(batch, estimates, strict=True):
            end = segment.context + len(segment.weights)
            counted = estimate[..., segment.context : end]
            yield overlap_add.add(segment.start, counted, segment.weights)
        monitor.advance(len(batch))
    rest = overlap_add.finish()
    if rest is not None:
        yield rest


def _all_segments(
    blocks: Iterable[Tensor], plan: Plan, valid_length: ValidLength
) -> Iterator[Segment]:
    """Cut a stream once for each pass; the passes take turns, and so share one sum."""
    passes = [
        _one_pass(copy, offset, plan, valid_length)
        for copy, offset in zip(tee(blocks, len(plan.offsets)), plan.offsets, strict=True)
    ]
    return heapq.merge(*passes, key=lambda segment: segment.start)


def _one_pass(
    blocks: Iterable[Tensor], offset: int, plan: Plan, valid_length: ValidLength
) -> Iterator[Segment]:
    """Cut a stream behind `offset` samples of silence; of that nothing counts."""
    for segment in cut_segments(_delay(blocks, offset), plan, valid_length):
        silent = max(0, offset - segment.start)
        yield segment._replace(
            start=max(0, segment.start - offset),
            context=segment.context + silent,
            weights=segment.weights[silent:],
        )


def cut_segments(
    blocks: Iterable[Tensor], plan: Plan, valid_length: ValidLength = int
) -> Iterator[Segment]:
    """Cut a stream into overlapping segments by the plan's recipe."""
    cut = RECIPES[plan.recipe].cut
    yield from cut(Tape(blocks), plan.segment_samples, plan.hop_samples, valid_length)


def _apply(network: Network, segments: Tensor) -> Tensor:
    """Fold every axis before the channels into the batch, and unfold it again."""
    lead, (channels, time) = segments.shape[:-2], segments.shape[-2:]
    estimates = network(segments.reshape(-1, channels, time))
    return estimates.reshape(*lead, *estimates.shape[1:])


def _delay(blocks: Iterable[Tensor], samples: int) -> Iterator[Tensor]:
    """Put silence before a stream."""
    for block in blocks:
        if samples:
            yield block.new_zeros(*block.shape[:-1], samples)
            samples = 0
        yield block


def _batches(segments: Iterable[Segment], size: int) -> Iterator[list[Segment]]:
    """Group segments of equal length."""
    batch: list[Segment] = []
    for segment in segments:
        if batch and segment.audio.shape != batch[0].audio.shape:
            yield batch
            batch = []
        batch.append(segment)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
