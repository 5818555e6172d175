import threading
import time

import pytest

from separator.stream.prefetch import prefetch


def test_order_is_kept():
    assert list(prefetch(range(1000), depth=3)) == list(range(1000))


def test_error_comes_after_the_items_before_it():
    def source():
        yield 1
        yield 2
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        for item in prefetch(source()):
            seen.append(item)
    assert seen == [1, 2]


def test_source_works_ahead_but_not_far():
    made = 0

    def source():
        nonlocal made
        while True:
            made += 1
            yield made

    stream = prefetch(source(), depth=4)
    next(stream)
    time.sleep(0.3)
    assert 4 <= made <= 7
    stream.close()


def test_closing_stops_the_thread_and_the_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    stream = prefetch(source(), depth=2)
    next(stream)
    stream.close()
    assert closed.is_set()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
