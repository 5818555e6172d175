"""One model in memory per device, shared by all users."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from separator.errors import Cancelled
from separator.heap import keep_freed_memory, release_freed_memory
from separator.zoo.describe import models_of

if TYPE_CHECKING:
    from separator.api import Separator
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
        *,
        precision: str = "auto",
        overlap: float | None = None,
        shifts: int = 0,
    ) -> Separator:
        """Return a separator for a card, loading the network only if another one is held.

        Raises:
            ModelError: The weights are missing, damaged or don't fit.
            ConfigError: A value that isn't allowed.
        """
        from separator.api import Separator
        from separator.ensemble.assemble import Settings
        from separator.stream.runner import pick_device

        cards = (card, *models_of(card))
        key = (*(each.model_dump_json() for each in cards), precision)
        with self._lock:
            if self._held is None or self._held[0] != key:
                self._drop()
                if pick_device(self.device).type == "cpu":
                    keep_freed_memory()  # before the weights: what reading them frees stays, too
                separator = Separator(card, device=self.device, precision=precision)
                self._held = (key, separator)
            separator = self._held[1]
        return separator.with_settings(Settings(overlap=overlap, shifts=shifts))

    def _drop(self) -> None:
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
