"""Let the C library keep the memory that a network frees, for its next intermediate result.

A network on a processor asks for and frees the same tens of megabytes thousands of times. By
default glibc returns much of that to the system at once, which must clear every page again when
it is next asked for: that costs large transformers up to a tenth of their time.
"""

import ctypes
import sys
from functools import cache

#: Parameters of glibc's mallopt(3), from <malloc.h>, and what they are set to (bytes).
_OPTIONS = {
    -3: 32 << 20,  # M_MMAP_THRESHOLD: larger blocks are mapped, and unmapped when freed
    -1: 512 << 20,  # M_TRIM_THRESHOLD: how much free memory at the end of the heap is kept
    -2: 64 << 20,  # M_TOP_PAD: how much more than needed is asked for
}


@cache
def keep_freed_memory() -> bool:
    """Keep up to half a gigabyte of freed memory in this process; tell whether that took effect.

    It works best before the weights are loaded: what reading them leaves behind is kept, too.
    Only glibc knows how: elsewhere nothing changes.
    """
    if not _is_linux():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(key, size) for key, size in _OPTIONS.items())


def release_freed_memory() -> None:
    """Return what was freed and kept to the system: for a process that waits, not one that works.

    Only glibc knows how: elsewhere nothing changes.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _is_linux() else None
    if trim is not None:
        trim(0)


def _is_linux() -> bool:
    return sys.platform.startswith("linux")
