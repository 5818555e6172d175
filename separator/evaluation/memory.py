"""Measure how much memory something takes, and how long."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass
class Usage:
    """What a piece of work took.

    Attributes:
        seconds: Wall-clock time.
        bytes: Memory at the most, beyond what was taken before: of the GPU where one is used,
            else of the process. None where the system doesn't tell.
    """

    seconds: float = 0.0
    bytes: int | None = None


@contextmanager
def measured(device: torch.device) -> Iterator[Usage]:
    """Measure what the body of the `with` takes; the values are there after it.

    >>> with measured(torch.device("cpu")) as usage:
    ...     numbers = torch.zeros(1000)
    >>> usage.seconds > 0
    True
    """
    usage = Usage()
    before = _begin(device)
    began = time.perf_counter()
    try:
        yield usage
    finally:
        usage.seconds = time.perf_counter() - began
        if before is not None and (peak := _peak(device)) is not None:
            usage.bytes = max(0, peak - before)


def _begin(device: torch.device) -> int | None:
    """Forget earlier peaks; return the bytes that are taken now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):  # freed memory that is kept would hide what is taken
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5")  # Linux: the peak becomes what is taken now
    except OSError:
        return None
    return _status("VmRSS")


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def _status(field: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None
