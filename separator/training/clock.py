"""A run that ends by the clock, and whose learning rates follow it."""

from __future__ import annotations

from time import monotonic
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class Clock(Callback):
    """Measure of how much of its time a run has used, over all its resumptions.

    Only training counts, validations don't. Processes agree: each takes the mean of all clocks.

    Args:
        minutes: time for the whole run; None for any.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.elapsed = 0.0  # seconds
        self._since = 0.0

    @property
    def share(self) -> float:
        """Used share of the time, 1 at the end."""
        return min(self.elapsed / (60.0 * self.minutes), 1.0) if self.minutes else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the time that was used."""
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.elapsed = state["elapsed"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._since = monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start it again."""
        self._since = monotonic()

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        """Read the clock, before the learning rates of the next update follow from it."""
        now = monotonic()
        spent = torch.tensor(now - self._since, device=trainer.strategy.root_device)
        self.elapsed += float(trainer.strategy.reduce(spent, reduce_op="mean"))
        self._since = now
        if self.minutes and self.share == 1.0:
            trainer.should_stop = True
