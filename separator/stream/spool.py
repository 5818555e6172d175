"""Read a stream twice without holding it in memory.

stream ──> file ──┬──> first copy, which runs ahead
                  └──> second copy, as late as it likes
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import tee

import numpy as np
import torch
from torch import Tensor

from separator.errors import ModelError


def copies(blocks: Iterable[Tensor], *, far: bool) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    """Return two iterators over a stream of float32 tensors on the CPU.

    Args:
        blocks: The stream; shapes may differ.
        far: Whether one copy may be read to its end while the other waits: blocks then lie in a
            temporary file. Otherwise they stay in memory until both copies have had them.

    Raises:
        ModelError: While the copies are read: the file can't be written.
    """
    if not far:
        first, second = tee(blocks)
        return first, second
    shared = _Spool(iter(blocks))
    return shared.play(), shared.play()


class _Spool:
    def __init__(self, blocks: Iterator[Tensor]) -> None:
        self._blocks = blocks
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed when the last copy is gone
        self._shapes: list[torch.Size] = []
        weakref.finalize(self, self._file.close)

    def play(self) -> Iterator[Tensor]:
        """Yield all blocks: those of the file first, then new ones, which go there."""
        position = 0  # in the file, in bytes
        index = 0
        while True:
            if index < len(self._shapes):
                block = self._read(position, self._shapes[index])
            elif (new := next(self._blocks, None)) is None:
                return
            else:
                block = new
                self._write(position, block)
            index += 1
            position += 4 * block.numel()
            yield block

    def _write(self, position: int, block: Tensor) -> None:
        try:
            self._file.seek(position)
            self._file.write(np.ascontiguousarray(block.numpy(), dtype=np.float32).tobytes())
        except OSError as error:
            raise ModelError(
                f"Can't keep the song in '{tempfile.gettempdir()}': {error.strerror or error}. "
                "Free some space there, or choose another folder with $TMPDIR."
            ) from error
        self._shapes.append(block.shape)

    def _read(self, position: int, shape: torch.Size) -> Tensor:
        self._file.seek(position)
        data = np.frombuffer(self._file.read(4 * shape.numel()), dtype=np.float32)
        return torch.from_numpy(data.copy()).reshape(shape)
