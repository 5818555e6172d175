"""A stream of batches that can be left and entered anywhere."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch: TypeAlias = Tensor | npt.NDArray[np.float32]


class BatchSource(Protocol):
    """Batch of every position: `(batch, stems, channels, time)`."""

    def __getitem__(self, position: int) -> Tensor:
        """Return the batch; a pure function of the position."""


class Batches:
    """A stream of batches that can be left and entered anywhere.

    An iteration ends with the epoch, the next one goes on behind it. `position` counts the batches
    that were handed out since the run began.
    """

    def __init__(self, source: BatchSource, steps_per_epoch: int, workers: int = 0) -> None:
        self.source = source
        self.steps_per_epoch = steps_per_epoch
        self.position = 0
        self._loader = None if workers == 0 else _loader(source, _Rest(self), workers)

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.position // self.steps_per_epoch

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Tensor]:
        """Yield what is left of the epoch; count a batch before it is used."""
        batches: Iterable[Batch] = map(self.source.__getitem__, _Rest(self))
        if self._loader is not None:
            batches = self._loader
        for batch in batches:
            self.position += 1
            yield torch.as_tensor(batch)

    def close(self) -> None:
        """End the processes that load.

        Left to themselves they would outlive the one signal that Python sends them at its end, and
        which it then waits for.
        """
        iterator = None if self._loader is None else self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, int]:
        """Return what is needed to go on."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another stream, with the same options and seed, was left."""
        self.position = state["position"]


class _Rest:
    """The positions from now to the end of the epoch, asked for when an iteration begins."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[int]:
        start, steps = self.batches.position, self.batches.steps_per_epoch
        return iter(range(start, (start // steps + 1) * steps))


class _Items(Dataset[Batch]):
    """A source in the shape that workers know.

    Batches travel in shared memory, where there is room: containers have 64 MB of it. Others are
    written to a pipe. Left to its loader, torch would find out in a thread that loses the batch.
    """

    def __init__(self, source: BatchSource) -> None:
        self.source = source

    def __getitem__(self, position: int) -> Batch:
        batch = self.source[position]
        try:
            batch.share_memory_()
        except RuntimeError:
            return batch.numpy()
        return batch


def outlive_one_signal(_worker: int) -> None:
    """Let a worker live on when everybody is asked to stop, for as long as the run needs it.

    Clusters and terminals send such signals to all processes at once, and a training run that
    loses its workers can't finish its step. A second signal, from the loader itself, ends a worker.
    """

    def ignore(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ignore)


def _as_it_is(batch: Any) -> Any:
    return batch


def _loader(source: BatchSource, positions: Iterable[int], workers: int) -> DataLoader[Batch]:
    return DataLoader(
        _Items(source),
        batch_size=None,
        collate_fn=_as_it_is,
        sampler=positions,
        num_workers=workers,
        persistent_workers=True,
        worker_init_fn=outlive_one_signal,
        multiprocessing_context="spawn",  # a fork of a process with threads may hang
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader draws a seed: not from everybody's generator
    )
