"""Run a network over a stream: overlapping segments, weighted overlap-add.

    blocks ──> segments ──> batches ──> network ──> overlap-add ──> blocks

      segment 0  ▁▂▄▆█▆▄▂▁
      segment 1       ▁▂▄▆█▆▄▂▁             weights, positive everywhere
      last one             ▁▂▄▆█▆▄▂▁        moved back, so that it is full of audio
                 ├────┤                     final as soon as segment 1 has been added

The stream knows no architecture: whatever maps `(batch, channels, time)` to
`(batch, stems, channels, time)` can run in it. Its memory does not grow with the length of the
track. Blocks are float32 tensors `(channels, time)` of any size, an empty one included.

Reference: Défossez et al. 2019, arXiv 1911.13254, section 5.4 (triangular weights, random shifts).
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.errors import Cancelled, ConfigError, ModelError

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
    """

    segment_samples: int
    overlap: float = 0.25
    batch_size: int = 1
    shifts: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
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

    @property
    def hop_samples(self) -> int:
        """Distance between the starts of two segments, in samples."""
        return max(1, round(self.segment_samples * (1 - self.overlap)))

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
        hops = [max(0, offset + samples - self.segment_samples) for offset in self.offsets]
        return sum(1 + math.ceil(rest / self.hop_samples) for rest in hops)


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
    blocks: Iterable[Tensor], network: Network, plan: Plan, monitor: Monitor | None = None
) -> Iterator[Tensor]:
    """Separate a stream of blocks; yield blocks of estimates, together as long as the input.

    Shape:
        - blocks: `(..., channels, time)`; leading axes are separated side by side.
        - yields: `(..., stems, channels, time)`

    Raises:
        Cancelled: Where the monitor's event is set, between two batches.
    """
    monitor = monitor or Monitor()
    passes = [
        _separate_once(copy, network, plan, offset, monitor)
        for copy, offset in zip(tee(blocks, len(plan.offsets)), plan.offsets, strict=True)
    ]
    if len(passes) == 1:
        yield from passes[0]
        return
    for pieces in in_step(passes):
        yield torch.stack(pieces).mean(0)


def _separate_once(
    blocks: Iterable[Tensor], network: Network, plan: Plan, offset: int, monitor: Monitor
) -> Iterator[Tensor]:
    """Run one pass, its segments `offset` samples early."""
    shifted = _delay(blocks, offset)
    overlap_add = OverlapAdd(plan.segment_samples)
    skip = offset
    for batch in _batches(cut_segments(shifted, plan), plan.batch_size):
        monitor.check()
        segments = torch.stack([segment for _, segment in batch])  # (batch, ..., channels, time)
        estimates = _apply(network, segments)  # (batch, ..., stems, channels, time)
        for (start, _), estimate in zip(batch, estimates, strict=True):
            ready = overlap_add.add(start, estimate)
            dropped = min(skip, ready.shape[-1])
            skip -= dropped
            yield ready[..., dropped:]
        monitor.advance(len(batch))
    rest = overlap_add.finish()
    if rest is not None:
        yield rest[..., skip:]


def _apply(network: Network, segments: Tensor) -> Tensor:
    """Fold every axis before the channels into the batch, and unfold it again."""
    lead, (channels, time) = segments.shape[:-2], segments.shape[-2:]
    estimates = network(segments.reshape(-1, channels, time))
    return estimates.reshape(*lead, *estimates.shape[1:])


def cut_segments(blocks: Iterable[Tensor], plan: Plan) -> Iterator[tuple[int, Tensor]]:
    """Cut a stream into overlapping segments; yield each with its start in samples.

    The last segment ends where the stream ends: it overlaps more rather than being padded. A stream
    shorter than a segment is one segment of its own length, an empty one is none.
    """
    size, hop = plan.segment_samples, plan.hop_samples
    kept: list[Tensor] = []
    first, held = 0, 0  # position of the first sample kept, number of samples kept
    start = 0  # of the next segment
    for piece in (piece for block in blocks for piece in torch.split(block, hop, dim=-1)):
        kept.append(piece)
        held += piece.shape[-1]
        while start + size <= first + held:
            buffer = torch.cat(kept, dim=-1)
            yield start, buffer[..., start - first : start - first + size]
            # What this segment covers is kept: the last one may be moved back into it.
            kept, held = [buffer[..., start - first :]], first + held - start
            first, start = start, start + hop
    if held == 0:
        return
    buffer = torch.cat(kept, dim=-1)
    end = first + held
    covered = start - hop + size if start else 0
    if covered < end:
        last = max(0, end - size)
        yield last, buffer[..., last - first :]


class OverlapAdd:
    """Add weighted segments and hand out what no later segment can change."""

    def __init__(self, segment_samples: int) -> None:
        self._weight = triangle(segment_samples)
        self._start = 0
        self._sum: Tensor | None = None  # (..., time)
        self._total = torch.zeros(0)  # (time,): sum of the weights

    def add(self, start: int, estimate: Tensor) -> Tensor:
        """Add a segment that starts at sample `start`; return what lies before it, now final.

        Starts never go back. Shape: estimate `(..., time)`, result `(..., ready)`.
        """
        if self._sum is None:
            self._sum = estimate.new_zeros(*estimate.shape[:-1], 0)
            self._total = estimate.new_zeros(0)
        size = estimate.shape[-1]
        weight = self._weight if size == len(self._weight) else triangle(size)
        weight = self._weight = weight.to(estimate)
        ready = self._take(start - self._start)
        missing = size - self._sum.shape[-1]
        self._sum = F.pad(self._sum, (0, missing))
        self._total = F.pad(self._total, (0, missing))
        self._sum += estimate * weight
        self._total += weight
        return ready

    def finish(self) -> Tensor | None:
        """Return all that is left; None where nothing was added."""
        return None if self._sum is None else self._take(self._sum.shape[-1])

    def _take(self, samples: int) -> Tensor:
        assert self._sum is not None
        ready = self._sum[..., :samples] / self._total[:samples]
        self._sum, self._total = self._sum[..., samples:], self._total[samples:]
        self._start += samples
        return ready.cpu()


def triangle(samples: int) -> Tensor:
    """Return symmetric triangular weights `(samples,)` in (0, 1], positive everywhere.

    >>> triangle(5)
    tensor([0.3333, 0.6667, 1.0000, 0.6667, 0.3333])
    """
    ramp = torch.arange(1, samples + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0)) / math.ceil(samples / 2)


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


def _batches(
    segments: Iterable[tuple[int, Tensor]], size: int
) -> Iterator[list[tuple[int, Tensor]]]:
    """Group segments of equal length."""
    batch: list[tuple[int, Tensor]] = []
    for start, segment in segments:
        batch.append((start, segment))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
