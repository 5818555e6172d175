"""Several streams of blocks in step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from separator.errors import ModelError


def in_step(streams: Sequence[Iterable[Tensor]]) -> Iterator[list[Tensor]]:
    """Cut several streams into pieces of equal length `(..., time)`, until the first one ends.

    What another stream has beyond that is dropped. Streams that share a source through
    `itertools.tee` stay within a segment of each other.

    Raises:
        ModelError: Where another stream ends before the first.
    """
    iterators = [(block for block in stream if block.shape[-1]) for stream in streams]
    heads = [next(iterator, None) for iterator in iterators]
    while heads[0] is not None:
        present = [head for head in heads if head is not None]
        if len(present) < len(heads):
            raise ModelError("A stream ended before the one that it goes with.")
        size = min(head.shape[-1] for head in present)
        yield [head[..., :size] for head in present]
        heads = [
            head[..., size:] if head.shape[-1] > size else next(iterator, None)
            for head, iterator in zip(present, iterators, strict=True)
        ]
