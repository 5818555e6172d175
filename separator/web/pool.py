"""One model in memory per device, shared by all users."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from separator.errors import Cancelled
from separator.heap import keep_freed_memory, release_freed_memory
from separator.zoo.describe import models_of

if TYPE_CHECKING:
    from separator.api import Separator
    from separator.ensemble.knobs import Knobs
    from separator.zoo.cards import AnyCard


class ModelPool:
    """Model that was used last, given up for another.

    Args:
        device: Where models run; see `separator.stream.runner.pick_device`.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = device
        self._held: tuple[tuple[str, ...], Separator] | None = None
        self._lock = threading.Lock()

    def get(
        self,
        card: AnyCard,
        knobs: Knobs | None = None,
    ) -> Separator:
        """Return a separator for a card, loading the network only if another one is held.

        Args:
            card: Card of a model or of an ensemble.
            knobs: Choices for the run; the device is that of the pool.

        Raises:
            ModelError: The weights are missing, damaged or don't fit.
            ConfigError: A value that isn't allowed.
        """
        from separator.api import Separator
        from separator.ensemble.knobs import Knobs
        from separator.stream.runner import pick_device

        knobs = replace(knobs or Knobs(), device=self.device)
        cards = (card, *models_of(card))
        key = (*(each.model_dump_json() for each in cards), knobs.precision)
        with self._lock:
            if self._held is None or self._held[0] != key:
                self._drop()
                if pick_device(self.device).type == "cpu":
                    keep_freed_memory()  # before the weights: what reading them frees stays, too
                separator = Separator(card, knobs)
                self._held = (key, separator)
            separator = self._held[1]
        return separator.with_knobs(knobs)

    def _drop(self) -> None:
        if self._held is not None:  # looking for what is unused takes a while
            self._held = None
            release_memory()


def release_memory() -> None:
    """Give back what intermediate results took, on all devices; models stay."""
    import torch

    gc.collect()
    release_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def interruptible(separator: Separator, cancel: threading.Event) -> Iterator[None]:
    """Let `cancel` stop the network between two of its layers, not only between segments.

    A segment of a large model takes many seconds on a CPU; nobody waits for that.
    """

    def check(*_: Any) -> None:
        if cancel.is_set():
            raise Cancelled("Cancelled.")

    hooks = [module.register_forward_pre_hook(check) for module in separator.network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
