"""Run a network over a stream: overlapping segments, weighted overlap-add.

    blocks ──> segments ──> batches ──> network ──> overlap-add ──> blocks

      segment 0  ▁▂▄▆█▆▄▂▁
      segment 1       ▁▂▄▆█▆▄▂▁
      last one             ▁▂▄▆█▆▄▂▁        where it lies is the recipe's choice
                 ├────┤                     final as soon as segment 1 has been added

The stream knows no architecture: whatever maps `(batch, channels, time)` to
`(batch, stems, channels, time)` can run in it. Its memory does not grow with the length of the
track. Blocks are float32 tensors `(channels, time)` of any size, an empty one included. How a
track is cut is told in `separator.segments`.

Reference: Défossez et al. 2019, arXiv 1911.13254, section 5.4 (random shifts).
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from separator.errors import Cancelled, ConfigError, ModelError, nearest
from separator.segments import RECIPES, OverlapAdd, Segment, Tape, ValidLength

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """Say how a track is cut and how often it is separated.

    Attributes:
        segment_samples: Length of one segment in samples, at least 1.
        overlap: Share of a segment that the next one covers again, in [0, 1).
        batch_size: Segments that go through the network together, at least 1.
        shifts: Number of passes over differently placed segments, averaged; 0 and 1 mean one pass.
        seed: Seed of the placement, so that the same input gives the same bytes.
        recipe: Where segments lie and how they are weighed, see `separator.segments`.
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


@dataclass(frozen=True)
class Progress:
    """Tell how much of the work is done, in segments: the unit that costs time.

    Attributes:
        done: Segments that went through the network.
        total: Segments there are in all; None while the length of the track is unknown.
    """

    done: int
    total: int | None

    @property
    def fraction(self) -> float | None:
        """Share of the work that is done, in [0, 1]; None while the total is unknown."""
        return None if not self.total else min(1.0, self.done / self.total)


@dataclass
class Monitor:
    """Count finished segments, report them, and notice a wish to stop."""

    total: int | None = None
    report: Callable[[Progress], None] | None = None
    cancel: threading.Event | None = None
    done: int = 0

    def check(self) -> None:
        """Raise `Cancelled` where the caller asked to stop."""
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("Cancelled.")

    def advance(self, segments: int) -> None:
        """Add finished segments and report."""
        self.done += segments
        if self.report is not None:
            self.report(Progress(self.done, self.total))


def separate_stream(
    blocks: Iterable[Tensor],
    network: Network,
    plan: Plan,
    monitor: Monitor | None = None,
    valid_length: ValidLength = int,
) -> Iterator[Tensor]:
    """Separate a stream of blocks; yield blocks of estimates, together as long as the input.

    Args:
        blocks: Of the track.
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
    passes = [
        _separate_once(_delay(copy, offset), offset, network, plan, monitor, valid_length)
        for copy, offset in zip(tee(blocks, len(plan.offsets)), plan.offsets, strict=True)
    ]
    if len(passes) == 1:
        yield from passes[0]
        return
    for pieces in in_step(passes):
        yield torch.stack(pieces).mean(0)


def _separate_once(
    blocks: Iterable[Tensor],
    skip: int,
    network: Network,
    plan: Plan,
    monitor: Monitor,
    valid_length: ValidLength,
) -> Iterator[Tensor]:
    """Run one pass, and leave out the first `skip` samples."""
    overlap_add = OverlapAdd()
    for batch in _batches(cut_segments(blocks, plan, valid_length), plan.batch_size):
        monitor.check()
        segments = torch.stack([segment.audio for segment in batch])
        estimates = _apply(network, segments)  # (batch, ..., stems, channels, time)
        for segment, estimate in zip(batch, estimates, strict=True):
            end = segment.context + len(segment.weights)
            counted = estimate[..., segment.context : end]
            ready = overlap_add.add(segment.start, counted, segment.weights)
            dropped = min(skip, ready.shape[-1])
            skip -= dropped
            yield ready[..., dropped:]
        monitor.advance(len(batch))
    rest = overlap_add.finish()
    if rest is not None:
        yield rest[..., skip:]


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


def in_step(streams: Sequence[Iterable[Tensor]]) -> Iterator[list[Tensor]]:
    """Cut several streams into pieces of equal length `(..., time)`, until the first one ends.

    What another stream has beyond that is dropped. Streams that share a source through
    `itertools.tee` stay within a segment of each other.

    Raises:
        ModelError: Where another stream ends before the first.
    """
    iterators = [(block for block in stream if block.shape[-1]) for stream in streams]
    heads = [next(iterator, None) for iterator in iterators]
    while heads[0] is not None:
        present = [head for head in heads if head is not None]
        if len(present) < len(heads):
            raise ModelError("A stream ended before the one that it goes with.")
        size = min(head.shape[-1] for head in present)
        yield [head[..., :size] for head in present]
        heads = [
            head[..., size:] if head.shape[-1] > size else next(iterator, None)
            for head, iterator in zip(present, iterators, strict=True)
        ]


def track_statistics(blocks: Iterable[Tensor]) -> tuple[float, float]:
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
    return mean, math.sqrt(squares / (count - 1)) if count > 1 else 0.0


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
