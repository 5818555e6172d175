"""Let a source work ahead in a thread of its own, so that decoding overlaps with the network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import NoReturn, TypeVar

T = TypeVar("T")

_POLL = 0.1  # seconds between two looks at whether the consumer has gone


def prefetch(source: Iterable[T], depth: int = 4) -> Generator[T, None, None]:
    """Yield what `source` yields, while a thread runs up to `depth` items ahead.

    An error in the source is raised here, after the items before it. Closing the generator stops
    the thread and closes the source.

    >>> list(prefetch(range(3)))
    [0, 1, 2]
    """
    results: queue.Queue[Callable[[], T] | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(result: Callable[[], T] | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                results.put(result, timeout=_POLL)
                break

    def work() -> None:
        iterator = iter(source)
        try:
            for item in iterator:
                put(_giving(item))
                if stopped.is_set():
                    break
            put(None)
        except BaseException as error:
            put(_raising(error))
        finally:
            getattr(iterator, "close", lambda: None)()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while (result := results.get()) is not None:
            yield result()
    finally:
        stopped.set()
        thread.join()


def _giving(item: T) -> Callable[[], T]:
    return lambda: item


def _raising(error: BaseException) -> Callable[[], NoReturn]:
    def result() -> NoReturn:
        raise error

    return result
