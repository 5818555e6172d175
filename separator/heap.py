"""Let the C library keep the memory that a network frees, for its next intermediate result.

A network on a processor asks for and frees the same tens of megabytes thousands of times. By
default glibc returns much of that to the system at once, which must clear every page again when
it is next asked for: that costs large transformers up to a tenth of their time.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

#: Parameters of glibc's mallopt(3), from <malloc.h>, and what they are set to (bytes).
_SOME = {
    -3: 32 << 20,  # M_MMAP_THRESHOLD: larger blocks are mapped, and unmapped when freed
    -1: 512 << 20,  # M_TRIM_THRESHOLD: how much free memory at the end of the heap is kept
    -2: 64 << 20,  # M_TOP_PAD: how much more than needed is asked for
}
_ALL = {
    -4: 0,  # M_MMAP_MAX: no block is mapped, however large it is
    -1: -1,  # M_TRIM_THRESHOLD: all free memory is kept
    -2: 64 << 20,
    -8: 1,  # M_ARENA_MAX: one heap, for gradients come from a thread whose own would be too small
}


@cache
def keep_freed_memory() -> bool:
    """Keep up to half a gigabyte of freed memory in this process; tell whether that took effect.

    It works best before the weights are loaded: what reading them leaves behind is kept, too.
    Only glibc knows how: elsewhere nothing changes.
    """
    return _told(_SOME)


@cache
def keep_all_freed_memory() -> bool:
    """Keep all freed memory in this process, for training; tell whether that took effect.

    A training step needs the blocks of the step before again, and most are larger than those that
    `keep_freed_memory` keeps. Only glibc knows how: elsewhere nothing changes.
    """
    return _told(_ALL)


def _told(options: dict[int, int]) -> bool:
    """Set options of the C library; tell whether it took all of them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if _is_linux() else None
    return mallopt is not None and all(mallopt(key, value) for key, value in options.items())


def release_freed_memory() -> None:
    """Return what was freed and kept to the system: for a process that waits, not one that works.

    Only glibc knows how: elsewhere nothing changes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _is_linux() else None
    if trim is not None:
        trim(0)


def _is_linux() -> bool:
    return sys.platform.startswith("linux")
