"""Call a network on batches: device, precision, chosen stems, augmentation, scarce memory."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor, nn

from separator.errors import ConfigError, ModelError
from separator.stream.choices import AUGMENTATIONS, DEVICES, PRECISIONS


@dataclass
class Runner:
    """Caller of a network on batches: device, precision, stems, augmentation, scarce memory.

    The runner owns the network: it moves and casts it.

    Attributes:
        network: A module as `separator.networks` defines it, with a `core` that may be cast.
        device: Where it runs; see `pick_device`.
        precision: float32, bfloat16 or float16 for the core. Front end and inverse stay float32.
        stems: Indices of the stems to compute; None for all.
        augmentations: Any of `AUGMENTATIONS`: the mean over the input as it is and its variants.
        notes: What the user should know of the run.
        seconds: Wall-clock time spent in calls so far.
    """

    network: nn.Module
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: torch.dtype = torch.float32
    stems: tuple[int, ...] | None = None
    augmentations: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _limit: int | None = None  # segments that fit into memory together, once that is known

    def __post_init__(self) -> None:
        for name in self.augmentations:
            if name not in AUGMENTATIONS:
                raise ConfigError(
                    f"Unknown augmentation '{name}'; allowed: {', '.join(AUGMENTATIONS)}."
                )
        _outlive_forks()
        self.network.to(self.device).eval()
        self.network.get_submodule("core").to(self.precision)

    def with_stems(self, stems: tuple[int, ...] | None) -> Runner:
        """Return a runner of the same weights for other stems, with notes and time of its own."""
        other = copy.copy(self)  # not a new one: that would cast what other threads may be running
        other.stems, other.notes, other.seconds = stems, [], 0.0
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
    def __call__(self, segments: Tensor, **known: float) -> Tensor:
        """Separate a batch. Shape: `(batch, channels, time) -> (batch, stems, channels, time)`.

        Args:
            segments: the batch.
            known: what the network wants to know of the track: `loudest`, if `wants_loudest`.
        """
        began = time.perf_counter()
        segments = segments.to(self.device, torch.float32)
        estimates = self._forward(segments, known)
        if "polarity" in self.augmentations:
            estimates = estimates - self._forward(-segments, known)
        if "swap" in self.augmentations:
            channels = estimates.shape[-2]
            swapped = segments.unflatten(-2, (-1, channels)).flip(-2).flatten(-3, -2)
            estimates = estimates + self._forward(swapped, known).flip(-2)
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

    def _forward(self, segments: Tensor, known: dict[str, float]) -> Tensor:
        """Run the network on as many segments at once as fit into memory."""
        done: list[Tensor] = []
        while len(segments):
            part = segments[: self._limit]
            estimates = self._attempt(part, known)
            if estimates is None:
                self._limit = len(part) // 2
                self.notes.append(
                    f"Out of memory with {len(part)} segments at once; went on with {self._limit}."
                )
                continue
            done.append(estimates)
            segments = segments[len(part) :]
        return torch.cat(done)

    def _attempt(self, segments: Tensor, known: dict[str, float]) -> Tensor | None:
        """Run the network; return None where memory is short but fewer segments may fit."""
        try:
            estimates: Tensor = self.network(segments, stems=self.stems, **known)
            return estimates.float()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(segments) == 1:
                raise ModelError(
                    f"Out of memory on {self.device} with one segment of {segments.shape[-1]} "
                    "samples; choose a shorter --segment or --device cpu."
                ) from error
        # Outside the handler: its traceback keeps the failed attempt's tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None


@cache
def _outlive_forks() -> None:
    """Let networks run in forked processes too: on one thread, for a fork copies no threads.

    The child would wait for the others forever. Elsewhere than on POSIX there are no forks.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


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
