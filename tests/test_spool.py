"""Copies of a stream: equal, in any order of reading, and not in memory."""

import tracemalloc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from separator.errors import ModelError
from separator.stream import spool
from separator.stream.spool import copies

BLOCKS = [torch.arange(float(size)).reshape(2, -1) + size for size in (6, 0, 2, 20)]


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("order", ["first ahead", "second ahead", "in step"])
def test_copies_are_equal(far: bool, order: str) -> None:
    first, second = copies(iter(BLOCKS), far=far)
    if order == "second ahead":
        first, second = second, first
    pairs = zip(first, second, strict=True) if order == "in step" else ()
    found = list(zip(*pairs, strict=True)) or [list(first), list(second)]
    for copy in found:
        assert len(copy) == len(BLOCKS)
        assert all(block.equal(wanted) for block, wanted in zip(copy, BLOCKS, strict=True))


def test_overtaking_copies_read_the_stream_once() -> None:
    first, second = copies(iter(BLOCKS), far=True)
    assert next(first).equal(BLOCKS[0])
    assert [next(second).shape for _ in range(3)] == [block.shape for block in BLOCKS[:3]]
    assert [len(list(copy)) for copy in (first, second)] == [3, 1]


def test_a_copy_that_waits_takes_no_memory() -> None:
    def blocks() -> Iterator[Tensor]:
        for _ in range(100):
            yield torch.from_numpy(torch.ones(2, 10_000).numpy().copy())

    first, second = copies(blocks(), far=True)
    tracemalloc.start()
    count = sum(1 for _ in first)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == sum(1 for _ in second) == 100
    assert peak < 50 * 80_000  # of 100 blocks


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, position: int) -> None: ...

        def close(self) -> None: ...

        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", Full)
    first, _ = copies(iter(BLOCKS), far=True)
    with pytest.raises(ModelError, match=r"No space left on device\. Free some space"):
        next(first)
