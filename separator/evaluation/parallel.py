"""Work on many small chunks of tensors at once.

Torch splits every single operation among threads that wait for each other at its end. On short
operations that costs more than it brings, and on a busy machine very much more. Here each thread
takes a whole chunk instead, and none waits. The memory of a chunk serves the next one: to ask the
system for it anew would cost a fifth of all time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from separator.heap import keep_freed_memory

ParallelMap = Callable[..., Iterator[Any]]


@contextmanager
def parallel_map(device: torch.device) -> Iterator[ParallelMap]:
    """Give a `map` that uses as many threads as torch may use, each for whole calls.

    On a GPU, or if torch may use one thread, it is the ordinary `map`.

    >>> with parallel_map(torch.device("cpu")) as work:
    ...     list(work(lambda x: x + 1, [1, 2, 3]))
    [2, 3, 4]
    """
    if device.type == "cpu":
        keep_freed_memory()
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield map
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(threads)  # the threads above changed what new threads start with
