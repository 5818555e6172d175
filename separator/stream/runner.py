"""Call a network on batches: device, precision, chosen stems, augmentation, scarce memory."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from separator.errors import ConfigError, ModelError
from separator.stream.choices import AUGMENTATIONS, DEVICES, PRECISIONS
from separator.stream.facts import UNKNOWN, Facts
from separator.stream.inference import Plan, separate_stream
from separator.words import nearest

_SHARES = 8  # a segment that doesn't fit into memory is cut into at most so many pieces
_OVERLAP = 0.25  # of these pieces


@dataclass
class Memory:
    """What was learnt of a device's memory, shared by all runs of a network.

    Attributes:
        samples: Samples of a batch, per channel, that fit; None while nothing was too much.
    """

    samples: int | None = None

    def shrink(self, samples: int) -> None:
        """Remember that only so many fit."""
        self.samples = samples if self.samples is None else min(samples, self.samples)


@dataclass
class Runner:
    """Caller of a network on batches: device, precision, stems, augmentation, scarce memory.

    The runner owns the network: it moves and casts it. Where memory is short, fewer segments go
    through together, and at last pieces of one; that is learnt once.

    Attributes:
        network: A module as `separator.networks` defines it, with a `core` that may be cast.
        device: Where it runs; see `pick_device`.
        precision: float32, bfloat16 or float16 for the core. Front end and inverse stay float32.
        stems: Indices of the stems to compute; None for all.
        augmentations: Any of `AUGMENTATIONS`: the mean over the input as it is and its variants.
        notes: What the user should know of the run.
        seconds: Wall-clock time spent in calls so far.
        memory: What was learnt of it, by this run and others.
    """

    network: nn.Module
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: torch.dtype = torch.float32
    stems: tuple[int, ...] | None = None
    augmentations: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        check_augmentations(self.augmentations)
        _outlive_forks()
        self.network.to(self.device).eval()
        self.network.get_submodule("core").to(self.precision)

    def with_stems(self, stems: tuple[int, ...] | None) -> Runner:
        """Return a runner of the same weights for other stems, with notes and time of its own."""
        other = copy.copy(self)  # not a new one: that would cast what other threads may be running
        other.stems, other.notes, other.seconds = stems, [], 0.0
        return other

    def augmented(self, augmentations: tuple[str, ...]) -> Runner:
        """Return a runner of the same weights that averages over these variants."""
        other = self.with_stems(self.stems)
        other.augmentations = augmentations
        return other

    def valid_length(self, samples: int) -> int:
        """Return how many samples the network wants to see for a stretch of `samples`."""
        wanted = getattr(self.network, "valid_length", None)
        return samples if wanted is None else int(wanted(samples))

    @property
    def longest(self) -> int | None:
        """How many samples the network can separate at once; None for any number."""
        longest: int | None = getattr(self.network, "longest_samples", None)
        return longest

    @property
    def wants_loudest(self) -> bool:
        """Whether the network wants to know the largest magnitude of a track before it starts."""
        return hasattr(self.network, "loudest")

    @torch.inference_mode()
    def measure(self, segments: Tensor) -> float:
        """Return the largest magnitude in segments `(..., channels, time)`."""
        measure: Callable[[Tensor], Tensor] = self.network.loudest  # type: ignore[assignment]
        return float(measure(segments.flatten(0, -3).to(self.device, torch.float32)).max())

    @torch.inference_mode()
    def __call__(self, segments: Tensor, facts: Facts = UNKNOWN) -> Tensor:
        """Separate a batch. Shape: `(batch, channels, time) -> (batch, stems, channels, time)`."""
        began = time.perf_counter()
        segments = segments.to(self.device, torch.float32)
        estimates = self._fitting(segments, facts)
        if "polarity" in self.augmentations:
            estimates = estimates - self._fitting(-segments, facts)
        if "swap" in self.augmentations:
            channels = estimates.shape[-2]
            swapped = segments.unflatten(-2, (-1, channels)).flip(-2).flatten(-3, -2)
            estimates = estimates + self._fitting(swapped, facts).flip(-2)
        estimates = estimates / (1 + len(set(self.augmentations)))
        if not estimates.isfinite().all():
            raise ModelError(self._advice())
        self.seconds += time.perf_counter() - began
        return estimates

    def _advice(self) -> str:
        name = str(self.precision).removeprefix("torch.")
        problem = f"The network's estimates are no finite numbers in {name}"
        if self.precision == torch.float32:
            return f"{problem}: its weights are damaged, or the song is far too loud."
        return f"{problem}; use --precision float32."

    def _fitting(self, segments: Tensor, facts: Facts) -> Tensor:
        """Run the network on as many segments at once as fit into memory, or on pieces of one."""
        done: list[Tensor] = []
        samples = segments.shape[-1]
        while len(segments):
            if self.memory.samples is not None and samples > self.memory.samples:
                done.append(self._in_pieces(segments[0], facts))
                segments = segments[1:]
                continue
            part = segments[: self.memory.samples and self.memory.samples // samples]
            try:
                done.append(self._attempt(part, facts))
            except _ScarceMemory:
                self._learn(len(part), samples)
                continue
            segments = segments[len(part) :]
        return torch.cat(done)

    def _attempt(self, segments: Tensor, facts: Facts) -> Tensor:
        """Run the network.

        Raises:
            _ScarceMemory: It is too small.
        """
        known: dict[str, Any] = {"loudest": facts.loudest} if self.wants_loudest else {}
        if facts.piece:
            known["piece"] = True
        try:
            estimates: Tensor = self.network(segments, stems=self.stems, **known)
            return estimates.float()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: its traceback keeps the failed attempt's tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise _ScarceMemory

    def _learn(self, count: int, samples: int) -> None:
        """Remember that so many segments don't fit."""
        if count == 1:
            self.memory.shrink(samples // 2)
            return
        self.memory.shrink(count // 2 * samples)
        self.notes.append(
            f"Out of memory with {count} segments at once; went on with {count // 2}."
        )

    def _in_pieces(self, segment: Tensor, facts: Facts) -> Tensor:
        """Separate a segment `(channels, time)` as a track of its own, in pieces that fit."""
        while True:
            plan = self._pieces(segment.shape[-1], facts)
            network = partial(self._attempt, facts=facts)
            pieces = separate_stream([segment], network, plan, valid_length=self.valid_length)
            try:
                estimates = torch.cat(list(pieces), dim=-1)[None].to(segment.device)
            except _ScarceMemory:
                self.memory.shrink(self._fit // 2)
                continue
            note = f"Out of memory with a whole segment; cut into {plan.segment_samples} samples."
            if note not in self.notes:
                self.notes.append(note)
            return estimates

    @property
    def _fit(self) -> int:
        assert self.memory.samples is not None
        return self.memory.samples

    def _pieces(self, whole: int, facts: Facts) -> Plan:
        """Plan the longest pieces of a segment that fit.

        Raises:
            ModelError: The network needs more samples than fit.
        """
        for share in range(1, 1 if facts.piece else _SHARES + 1):
            size = self._fit // share
            if _SHARES * size >= whole and self.valid_length(size) <= self._fit:
                return Plan(size, _OVERLAP, recipe="demucs")
        raise ModelError(
            f"Out of memory on {self.device} with one segment of {whole} samples; choose a shorter "
            "--segment or --device cpu."
        )


class _ScarceMemory(Exception):
    """Sign that a batch doesn't fit into memory."""


@cache
def _outlive_forks() -> None:
    """Let networks run in forked processes too: on one thread, for a fork copies no threads.

    The child would wait for the others forever. Elsewhere than on POSIX there are no forks.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def check_augmentations(names: Iterable[str]) -> None:
    """Refuse names that are none of `AUGMENTATIONS`.

    Raises:
        ConfigError: There is one.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise ConfigError(
                f"Unknown augmentation '{name}'; allowed: {', '.join(AUGMENTATIONS)}."
                f"{nearest(name, AUGMENTATIONS)}"
            )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether an error says that memory is too small."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(word in str(error) for word in ("out of memory", "can't allocate memory"))


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: Unknown name, or a device that this machine does not have.
    """
    kind, _, number = name.partition(":")
    if kind not in DEVICES or not (number.isdecimal() or name == kind):
        raise ConfigError(f"Unknown device '{name}'; allowed: {', '.join(DEVICES)}, cuda:N.")
    count = {"cpu": 1, "cuda": torch.cuda.device_count()}
    count["mps"] = int(torch.backends.mps.is_available())
    if kind == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if count[kind]))
    if int(number or 0) >= count[kind]:
        raise ConfigError(f"Device '{name}' is not available here; use --device auto or cpu.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the floating-point type of that name; `auto` takes bfloat16 where it is native.

    Raises:
        ConfigError: Unknown name.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"Unknown precision '{name}'; allowed: {', '.join(PRECISIONS)}.")
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        found = torch.cpu.get_capabilities()
        if any(found.get(feature) for feature in ("avx512_bf16", "amx_bf16", "sve_bf16")):
            return torch.bfloat16
    return torch.float32
