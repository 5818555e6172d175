"""What happens in a training step and in a validation, for Lightning's loop to call.

    batch of stems -> mixture -> network -> estimates -> loss
                                    |
                                    v  after each update
                              moving average -> SDR of whole tracks

Everything random in a step follows from the seed, the step and the process, so a resumed run
repeats what an uninterrupted one would have done, bit by bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from separator.datasets import Problem, Track
from separator.errors import ModelError
from separator.training.building import checkpoint_activations, compile_core, initial_network
from separator.training.clock import Clock
from separator.training.data.augmentation import augment
from separator.training.data.build import Batches, build_data
from separator.training.guide import Guide
from separator.training.optimizers import build_optimizer
from separator.training.recipe import Recipe
from separator.training.sharding import Sharded, gathered, shard
from separator.training.validation import plan_of, track_sdr, validation_tracks

RECIPE = "recipe"  # its key in a checkpoint
SCORE = "sdr/mean"  # the metric by which checkpoints are compared


class Stream:
    """All batches from a position on, without an end."""

    def __init__(self, batches: Batches, position: int) -> None:
        self.batches = batches
        self.position = position

    def __iter__(self) -> Iterator[Tensor]:
        self.batches.load_state_dict({"position": self.position})
        while True:
            yield from self.batches


class Task(LightningModule):
    """Training of a network by a recipe.

    Args:
        recipe: says everything.
        folder: where the batch is left that a loss failed on.
        fresh: start from the weights that the recipe names; otherwise they come from a checkpoint.

    Attributes:
        network: what is trained.
        guide: makes what it hears out of the mixture, where it doesn't hear that itself.
        average: the moving average of its weights, where the recipe asks for one.
        problems: what is wrong with songs of the data, where it wasn't so much as to refuse them.
        cancel: set it to break a validation off.
        clock: what the schedule follows, where the recipe has a budget.
    """

    def __init__(self, recipe: Recipe, folder: Path, *, fresh: bool = True) -> None:
        super().__init__()
        self.recipe = recipe
        self.folder = folder
        self.network = initial_network(recipe, fresh=fresh)
        self.guide: Guide | None = None
        if recipe.guide is not None:
            self.guide = Guide(recipe.guide, recipe.sample_rate, recipe.channels)
        self.average: AveragedModel | None = None
        if recipe.ema is not None:
            average = get_ema_multi_avg_fn(recipe.ema)
            self.average = AveragedModel(self.network, multi_avg_fn=average)
            self.average.requires_grad_(False)
        if recipe.checkpointing:
            checkpoint_activations(self.network)
        if recipe.compile:
            compile_core(self.network)
        self.problems: list[Problem] = []
        self.tracks = validation_tracks(recipe, self.problems.extend)
        self.cancel = threading.Event()
        self.clock = Clock(recipe.minutes)
        self.batches: Batches | None = None
        self._options: list[dict[str, Any]] = []

    def configure_model(self) -> None:
        """Share the weights among the processes, where the recipe says so."""
        strategy = self.trainer.strategy
        if isinstance(strategy, Sharded):
            shard(self.network, strategy.device_mesh)
            if self.average is not None:
                shard(self.average.module, strategy.device_mesh)

    @property
    def best_network(self) -> nn.Module:
        """The network to validate: the averaged one where there is one."""
        network: nn.Module = self.network if self.average is None else self.average.module
        return network

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule, which advances with every update."""
        fused = self.recipe.precision == "float32"
        optimizer = build_optimizer(self.recipe.optimizer, self.network.modules(), fused=fused)
        self._options = [{**group, "params": None} for group in optimizer.param_groups]
        schedule = LambdaLR(optimizer, self._scale)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _scale(self, step: int) -> float:
        """Return the scale of the learning rates at a step, now."""
        return self.recipe.schedule.scale(step, self.recipe.steps, self.clock.share)

    def on_train_start(self) -> None:
        """Take the optimizer's options from the recipe: those of a checkpoint may be others."""
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        schedule: Any = self.lr_schedulers()
        schedule.base_lrs = [options["lr"] for options in self._options]
        scale = self._scale(schedule.last_epoch)
        for group, options in zip(optimizer.param_groups, self._options, strict=True):
            rate = options["lr"]
            group.update(options, params=group["params"], initial_lr=rate, lr=rate * scale)

    def train_dataloader(self) -> Iterable[Tensor]:
        """Return the batches from where the run is."""
        self.batches = build_data(
            self.recipe.data,
            stems=(*self.recipe.stems, *self.recipe.background),
            sample_rate=self.recipe.sample_rate,
            channels=self.recipe.channels,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            seed=self.recipe.seed,
            stretch=self.recipe.augmentation.stretch,
            device=self.device,
            allow_partial=self.recipe.allow_partial,
            tell=self.problems.extend,
        )
        return Stream(self.batches, self.global_step * self.recipe.accumulate)

    def configure_callbacks(self) -> list[Callback]:
        """Let the clock run."""
        return [self.clock]

    def close(self) -> None:
        """End what loads the batches."""
        if self.batches is not None:
            self.batches.close()

    def val_dataloader(self) -> DataLoader[list[Track]]:
        """Return one batch: this process's share of the tracks, which may be none."""
        mine = self.tracks[self.global_rank :: self.trainer.world_size]
        return DataLoader([mine], batch_size=None, collate_fn=list)  # type: ignore[arg-type]

    def training_step(self, targets: Tensor, index: int) -> Tensor:
        """Return the loss of a batch of stems and background, `(batch, stems, channels, time)`.

        Raises:
            ModelError: The loss isn't finite; the batch is in a file.
        """
        position = self.global_step * self.recipe.accumulate + index % self.recipe.accumulate
        numbers = np.random.SeedSequence([self.recipe.seed, position, self.global_rank])
        one, two = (int(number) for number in numbers.generate_state(2, np.uint64))
        torch.manual_seed(one)  # of dropout
        mixture, targets = augment(
            targets,
            self.recipe.augmentation,
            torch.Generator().manual_seed(two),
            self.recipe.sample_rate,
        )
        targets = targets[:, : len(self.recipe.stems)]
        estimates = self.network(self.heard(mixture)).float()
        terms = self.recipe.loss.terms(estimates, targets, mixture, self.recipe.sample_rate)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise self._failed(terms, mixture, targets)
        self.log("loss", loss.detach())
        for name, value in terms.items():
            self.log(f"loss/{name}", value.detach())
        self.log("rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def _failed(self, terms: dict[str, Tensor], mixture: Tensor, targets: Tensor) -> ModelError:
        """Keep what can't be trained on, and say so."""
        path = self.folder / f"failed-step-{self.global_step}-rank-{self.global_rank}.safetensors"
        tensors = {"mixture": mixture.cpu().contiguous(), "targets": targets.cpu().contiguous()}
        save_file(tensors, path, metadata={name: str(v.item()) for name, v in terms.items()})
        values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
        return ModelError(
            f"The loss isn't finite at step {self.global_step} ({values}); training stopped. Its "
            f"batch is in '{path}', the state before it in the last checkpoint. If the batch is "
            "sound, lower 'optimizer.rate', set 'clip', or choose another 'precision'."
        )

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Update the weights, and let the average follow before anything else looks at it."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def heard(self, mixture: Tensor) -> Tensor:
        """Return what the network hears of a mixture."""
        return mixture if self.guide is None else self.guide(mixture)

    def separate(self, mixture: Tensor) -> Tensor:
        """Run the network that is validated. Shape: as every network's."""
        estimates: Tensor = self.best_network(self.heard(mixture.to(self.device)))
        return estimates.float()

    def validation_step(self, tracks: list[Track], index: int) -> None:
        """Log the mean over all processes' tracks of each stem's SDR, and the mean over stems."""
        plan = plan_of(self.recipe)
        stems = self.recipe.stems
        with gathered(self.best_network):  # processes have tracks of different lengths
            rows = [track_sdr(track, stems, self.separate, plan, self.cancel) for track in tracks]
        scores = torch.stack([torch.full((len(stems),), torch.nan), *rows])  # (1 + tracks, stems)
        heard = ~scores.isnan()
        sums = torch.stack([scores.where(heard, 0.0).sum(0), heard.sum(0)]).float()
        sums = self.trainer.strategy.reduce(sums.to(self.device), reduce_op="sum")
        means = sums[0] / sums[1]
        for stem, mean in zip(stems, means, strict=True):
            self.log(f"sdr/{stem}", mean, batch_size=1)
        self.log(SCORE, means.nanmean(), batch_size=1)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move tensors; tracks are read as a stream."""
        if isinstance(batch, Tensor):
            return batch.to(device, non_blocking=True)
        return batch

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the recipe into the checkpoint."""
        checkpoint[RECIPE] = self.recipe.model_dump(mode="json")
