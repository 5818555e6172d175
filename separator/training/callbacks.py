"""What accompanies a training run: checkpoints, reports, samples to listen to."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from separator.datasets import Problem
from separator.errors import SeparatorError
from separator.spectral.stft import STFT
from separator.training.sharding import gathered
from separator.training.task import Task
from separator.training.validation import excerpt

LAST = "last.ckpt"
_ASK_EVERY = 10  # steps between questions whether another process was asked to stop
_FLOOR_DB = -80.0  # of spectrograms in the log


Changes = dict[str, tuple[Any, Any]]


class Stopped(SeparatorError):
    """End after a checkpoint, because the program was asked to stop."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.signal = step, signal.Signals(number)
        super().__init__(f"Stopped at step {step} by {self.signal.name}; everything is saved.")


class Saver(Checkpoint):
    """Writer of the last checkpoint: every so many updates, at the end, and when asked to stop.

    Also before a validation, which is made up for if the run ends in it, and after it, with what
    the other callbacks make of it: Lightning calls a `Checkpoint` after those, in their order.

    SIGTERM and SIGINT end the run after the step that they come in, or in the middle of a
    validation. A checkpoint is written under another name first: an interrupted write leaves the
    one before.

    Args:
        folder: folder of the run.
        every: number of updates, after multiples of which to save.
        cancel: set when the run is asked to stop, for a validation to notice.
    """

    def __init__(self, folder: Path, every: int, cancel: threading.Event) -> None:
        self.path = folder / LAST
        self.every = every
        self.cancel = cancel
        self.due = False  # whether a validation comes next
        self.asked = 0  # the signal
        self._alone = True
        self._saved = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, in place of Lightning, which would end a step in its middle.

        Then validate, if the run was left before it could.
        """
        self._saved = trainer.global_step
        self._alone = trainer.world_size == 1
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        if self.due:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True

    def state_dict(self) -> dict[str, Any]:
        """Return what is part of a checkpoint besides the run's state."""
        return {"due": self.due}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.due = state["due"]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no longer."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:  # a second one doesn't wait
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = number
        if self._alone:  # several processes must agree first
            self.cancel.set()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time, after an update.

        Raises:
            Stopped: The run was asked to stop.
        """
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        stop = self._asked_anywhere(trainer, step)
        self.due = (batch_idx + 1) % (trainer.val_check_batch or math.inf) == 0
        if stop or self.due or step % self.every == 0:
            self.save(trainer)
        if stop:
            raise Stopped(step, stop)

    def _asked_anywhere(self, trainer: Trainer, step: int) -> int:
        """Return the signal that came, to whichever process; all of them must agree."""
        if trainer.world_size == 1:
            return self.asked
        if step % _ASK_EVERY:
            return 0
        asked = torch.tensor(float(self.asked), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(asked, reduce_op="max"))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save which checkpoints are the best, and how long there was no better one."""
        self.due = False
        self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, unless it is."""
        if self._saved != trainer.global_step:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint."""
        part = self.path.with_suffix(".part")
        try:
            trainer.save_checkpoint(part)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        if trainer.is_global_zero:
            part.replace(self.path)
        trainer.strategy.barrier()
        self._saved = trainer.global_step


class Patience(EarlyStopping):
    """Limit of validations without a better score, which is what the recipe says now."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        super().load_state_dict({**state_dict, "patience": self.patience})


@dataclass(frozen=True)
class Report:
    """News of a run.

    Attributes:
        step: updates so far, of `steps`.
        metrics: means since the last report, or scores after a validation; "loss" and "sdr/..."
        speed: audio-seconds per second, of all processes; 0 after a validation.
        waiting: share of the time in which the network waited for data.
        problems: before the first step, what is wrong with songs of the data.
        changes: before the first step of a run that goes on, in which options the recipe differs
            from the checkpoint's: what they were, and are.
    """

    step: int
    steps: int
    metrics: dict[str, float]
    speed: float = 0.0
    waiting: float = 0.0
    problems: tuple[Problem, ...] = ()
    changes: Changes = field(default_factory=dict)


@dataclass
class Reporter(Callback):
    """Caller of `report` every so many updates and after validations, in the first process.

    And before the first update, if something is wrong with the data that is allowed, or if the
    recipe isn't the checkpoint's.

    Speed and waiting go into the log, too.
    """

    report: Callable[[Report], None] | None
    every: int
    changes: Changes = field(default_factory=dict)
    _losses: list[Tensor] = field(default_factory=list)
    _began: float = 0.0
    _ended: float = 0.0
    _waited: float = 0.0
    _audio: float = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the recipe and the data, and start the clock."""
        assert isinstance(pl_module, Task)
        start = Report(trainer.global_step, trainer.max_steps, {})
        if self.changes:
            self._tell(trainer, replace(start, changes=self.changes))
        if problems := tuple(pl_module.problems):
            self._tell(trainer, replace(start, problems=problems))
        self._restart()

    def _restart(self) -> None:
        self._began = self._ended = time.perf_counter()
        self._waited = self._audio = 0.0
        self._losses.clear()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int
    ) -> None:
        """Count the time since the batch before, in which data was loaded."""
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Tensor, batch_idx: int
    ) -> None:
        """Count the batch, and report where it is time."""
        seconds = batch.shape[-1] / pl_module.recipe.sample_rate
        self._audio += len(batch) * seconds * trainer.world_size
        self._losses.append(outputs["loss"].detach())
        done = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if done and trainer.global_step % self.every == 0:
            # The mean waits for the device: only now may the clock be read.
            loss = torch.stack(self._losses).mean().item() * trainer.accumulate_grad_batches
            spent = time.perf_counter() - self._began
            metrics = {"loss": loss}
            speed, waiting = self._audio / spent, self._waited / spent
            pl_module.log("speed", speed)
            pl_module.log("waiting", waiting)
            self._tell(
                trainer, Report(trainer.global_step, trainer.max_steps, metrics, speed, waiting)
            )
            self._restart()
        self._ended = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the scores."""
        scores = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("sdr/")
        }
        if scores and not trainer.sanity_checking:
            self._tell(trainer, Report(trainer.global_step, trainer.max_steps, scores))
        self._restart()

    def _tell(self, trainer: Trainer, report: Report) -> None:
        if self.report is not None and trainer.is_global_zero:
            self.report(report)


class Samples(Callback):
    """Log of what the first track sounds and looks like after each validation."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write audio and spectrograms to every logger."""
        assert isinstance(pl_module, Task)
        if not pl_module.tracks:
            return
        with torch.no_grad(), gathered(pl_module.best_network):
            if not trainer.is_global_zero:
                return
            signals = excerpt(
                pl_module.tracks[0], pl_module.recipe.stems, pl_module.separate, self.seconds
            )
        rate, step = pl_module.recipe.sample_rate, trainer.global_step
        for name, signal_ in signals.items():
            picture = spectrogram_picture(signal_)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    audio = signal_.mean(0, keepdim=True)  # TensorBoard's audio is mono
                    logger.experiment.add_audio(name, audio.clamp(-1, 1), step, rate)
                    logger.experiment.add_image(name, picture, step)
                elif isinstance(logger, WandbLogger):
                    logger.log_audio(name, [signal_.T.numpy()], step, sample_rate=[rate])
                    logger.log_image(name, [picture[0].numpy()], step)


def spectrogram_picture(signal_: Tensor, height: int = 256) -> Tensor:
    """Return a grey picture of a signal `(channels, time)`: `(1, height, frames)` in [0, 1].

    Low frequencies are at the bottom; white is the loudest point, black 80 dB below it.
    """
    n_fft = 2048
    power = STFT(n_fft, n_fft // 4)(signal_[None])[0].abs().square().mean(0)  # (freq, frames)
    power = power[: n_fft // 2].unflatten(0, (height, -1)).mean(1)
    level = 10 * torch.log10(power / power.max().clamp_min(1e-20) + 10 ** (_FLOOR_DB / 10))
    return (1 - level / _FLOOR_DB).clamp(0, 1).flip(0)[None]
