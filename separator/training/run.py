"""Train by a recipe, in a folder that holds everything about the run.

runs/pocket/recipe.yaml      what was done, every option resolved
            last.ckpt        where to go on
            best/            the checkpoints with the highest SDR
            events...        for TensorBoard
            failed-....      the batch on which the loss wasn't finite, if that happened
            run.lock         held by the process that trains here
"""

from __future__ import annotations

import errno
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from separator.errors import Cancelled, ConfigError, ModelError
from separator.heap import keep_all_freed_memory
from separator.schema import validate
from separator.stream.runner import is_out_of_memory
from separator.training.callbacks import (
    LAST,
    Changes,
    Patience,
    Report,
    Reporter,
    Samples,
    Saver,
    Stopped,
)
from separator.training.hardware import check_devices
from separator.training.recipe import Recipe
from separator.training.sharding import Sharded
from separator.training.shortage import what_to_change
from separator.training.task import RECIPE, SCORE, Task

_PRECISIONS: dict[str, Any] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}

#: What can't change on the way: what was learnt wouldn't fit, or would mean something else.
_FIXED = {"network", "parameters", "stems", "sample_rate", "channels", "lora", "optimizer.name"}


@dataclass(frozen=True)
class Result:
    """Outcome of a run.

    Attributes:
        step: updates that were made in all.
        sdr: the last mean SDR over the stems in dB; None without validation.
        folder: folder of the run.
        first: whether this process is the first of the run's, which speaks for all.
    """

    step: int
    sdr: float | None
    folder: Path
    first: bool = True


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    until: int | None = None,
    report: Callable[[Report], None] | None = None,
) -> Result:
    """Train, from the beginning or from where the run was left.

    Args:
        recipe: says everything.
        folder: folder of the run.
        resume: go on from the last checkpoint in the folder.
        until: stop after this update; the recipe's `steps` unless given.
        report: called every now and then, in the first process.

    Raises:
        ConfigError: There is a run in the folder already, or none to resume, or one that the recipe
            doesn't fit; a data set, a hyper-parameter or a device that can't be used.
        ModelError: The loss isn't finite, or memory or the disk is too small.
        Stopped: The run was asked to stop, and has saved everything.
    """
    last = folder / LAST
    if not resume:
        check_new(folder)
    if resume and not last.exists():
        raise ConfigError(f"There is nothing to resume: '{last}' doesn't exist.")
    check_devices(recipe)
    keep_all_freed_memory()
    reporter = Reporter(report, recipe.log.every, changes_since(last, recipe) if resume else {})
    saver = Saver(folder, recipe.save.every, threading.Event())
    trainer = _trainer(recipe, folder, until, [reporter, *_callbacks(recipe, folder), saver])
    with _occupied(folder) if trainer.is_global_zero else nullcontext():
        write_recipe(recipe, folder)
        task = Task(recipe, folder, fresh=not resume)
        task.cancel = saver.cancel
        _fit(trainer, task, saver, last if resume else None)
    sdr = trainer.callback_metrics.get(SCORE)
    score = None if sdr is None else float(sdr)
    return Result(trainer.global_step, score, folder, trainer.is_global_zero)


def _fit(trainer: Trainer, task: Task, saver: Saver, checkpoint: Path | None) -> None:
    """Let Lightning train, and say in our words what ends it."""
    try:
        with warnings.catch_warnings():
            # Lightning's advice on loaders, folders and intervals, all of them chosen here
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            trainer.fit(task, ckpt_path=checkpoint, weights_only=True)
    except Cancelled as error:  # in a validation
        raise Stopped(trainer.global_step, saver.asked) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(what_to_change(task.recipe, str(task.device))) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ModelError(
            f"There is no room left for '{error.filename2 or error.filename or task.folder}'. "
            + ("Make some, and go on with --resume." if saver.path.exists() else "Make some.")
        ) from error
    except SystemExit as error:  # what Lightning makes of Ctrl-C before the first step
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
    finally:
        task.close()


def check_new(folder: Path) -> None:
    """Refuse a folder in which there is a run.

    Raises:
        ConfigError: There is one.
    """
    if (folder / LAST).exists():
        raise ConfigError(
            f"There is a run in '{folder}' already. Go on with --resume, or choose another folder."
        )


@contextmanager
def _occupied(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the lock ends with the process, however that ends.

    Raises:
        ConfigError: There is another one, or the folder can't be written to.
    """
    lock = FileLock(folder / "run.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"Another process trains in '{folder}'. Wait until it ends, or choose another --output."
        ) from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _trainer(recipe: Recipe, folder: Path, until: int | None, callbacks: list[Any]) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    hardware = recipe.hardware
    validates = recipe.validation is not None
    interval = recipe.validation.every * recipe.accumulate if recipe.validation else None
    return Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=Sharded() if hardware.strategy == "fsdp" else hardware.strategy,
        precision=_PRECISIONS[recipe.precision],
        max_epochs=-1,
        max_steps=min(until or recipe.steps, recipe.steps),
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip,
        val_check_interval=interval,
        check_val_every_n_epoch=None,
        limit_val_batches=None if validates else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=recipe.log.every,
        logger=_loggers(recipe, folder),
        callbacks=callbacks,
        default_root_dir=folder,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _callbacks(recipe: Recipe, folder: Path) -> list[Any]:
    callbacks: list[Any] = []
    if recipe.validation is None:
        return callbacks
    if recipe.validation.excerpt:
        callbacks.append(Samples(recipe.validation.excerpt))
    if recipe.patience:
        patience = Patience(SCORE, mode="max", patience=recipe.patience, check_finite=False)
        callbacks.append(patience)
    if recipe.save.best:
        best = ModelCheckpoint(
            folder / "best",
            "step-{step}-sdr-{" + SCORE + ":.3f}",
            monitor=SCORE,
            mode="max",
            save_top_k=recipe.save.best,
            auto_insert_metric_name=False,
            enable_version_counter=False,  # a validation that is repeated has the same name
        )
        callbacks.append(best)
    return callbacks


def _loggers(recipe: Recipe, folder: Path) -> list[Logger]:
    loggers: list[Logger] = []
    if recipe.log.tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version=""))
    if recipe.log.wandb is not None:
        try:
            loggers.append(WandbLogger(folder.name, folder, project=recipe.log.wandb))
        except ModuleNotFoundError as error:
            raise ConfigError("'log.wandb' needs the package wandb: pip install wandb.") from error
    return loggers


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe where people look for it.

    Raises:
        ConfigError: The folder can't be written to.
    """
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"Can't write to '{folder}': {error.strerror or error}. Choose another --output."
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours; it holds tensors and plain values, and nothing is run.

    Raises:
        ModelError: The file can't be read, or isn't a checkpoint of a training run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"Can't read '{path}': {error.strerror or error}.") from error
    except Exception as error:  # a damaged file can end in any of them
        raise ModelError(
            f"'{path}' is damaged or no checkpoint ({type(error).__name__})."
        ) from error
    if not isinstance(state, dict) or RECIPE not in state:
        raise ModelError(f"'{path}' is no checkpoint of a training run: it holds no recipe.")
    return state


def changes_since(checkpoint: Path, recipe: Recipe) -> Changes:
    """Return in which options a recipe differs from a checkpoint's: what they were, and are.

    Raises:
        ConfigError: What was learnt doesn't fit the recipe.
        ModelError: It isn't a checkpoint of a training run.
    """
    was = _flat(saved_recipe(checkpoint).model_dump(mode="json"))
    now = _flat(recipe.model_dump(mode="json"))
    keys = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    changes = {key: (was.get(key), now.get(key)) for key in keys}
    for key, pair in changes.items():
        section = key.partition(".")[0]
        if key in _FIXED or section in _FIXED or (key == "ema" and None in pair):
            raise ConfigError(
                f"'{checkpoint}' was trained with {key}={pair[0]}, and the recipe says {pair[1]}: "
                "go on without --config and --set, or choose another --output."
            )
    return changes


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested options by their whole names."""
    flat: dict[str, Any] = {}
    for key, value in options.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def saved_recipe(path: Path) -> Recipe:
    """Return the recipe that a checkpoint was trained by.

    Raises:
        ModelError: It isn't a checkpoint of a training run.
        ConfigError: The recipe isn't valid any more.
    """
    return validate(Recipe, read_checkpoint(path)[RECIPE], path.name)
