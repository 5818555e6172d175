import itertools
import threading

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
    ahead, too_far = threading.Event(), threading.Event()

    def source():
        for made in itertools.count(1):
            for event, count in ((ahead, 5), (too_far, 7)):
                if made == count:
                    event.set()
            yield made

    stream = prefetch(source(), depth=4)
    assert next(stream) == 1
    assert ahead.wait(300)  # four lie ready
    assert not too_far.wait(0.1)  # a fifth in hand, no more
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
