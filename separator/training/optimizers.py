"""Optimizers by name, and one that gives matrices to Muon and the rest to AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Muon, Optimizer, RMSprop
from typing_extensions import Self

from separator.errors import ConfigError
from separator.networks.positions import PolarEmbedding
from separator.schema import FROM_LIST, Positive, Strict

Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimizerOptions(Strict):
    """Rule by which weights follow gradients.

    Attributes:
        rate: highest learning rate; the schedule scales it.
        matrix_rate: rate of the matrices, which Muon updates; AdamW updates the rest at `rate`.
        weight_decay: decoupled for AdamW and Muon (whose rest has none), an L2 penalty otherwise.
        betas: betas of Adam and AdamW, also of the AdamW beside Muon.
        momentum: momentum of RMSprop (0 by default) and Muon (0.95).
        eps: added to denominators.
    """

    name: Literal["adamw", "adam", "rmsprop", "muon"] = "adamw"
    rate: Rate
    matrix_rate: Rate | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: Annotated[tuple[Fraction, Fraction], FROM_LIST] = (0.9, 0.999)
    momentum: Fraction | None = None
    eps: Positive = 1e-8

    @model_validator(mode="after")
    def _fits_the_name(self) -> Self:
        if (self.matrix_rate is not None) != (self.name == "muon"):
            problem = "needs" if self.name == "muon" else "doesn't take"
            raise ValueError(f"'{self.name}' {problem} a 'matrix_rate', the rate of the matrices")
        if self.momentum is not None and self.name in ("adam", "adamw"):
            raise ValueError(f"'{self.name}' takes 'betas', not 'momentum'")
        return self


class Together(Optimizer):
    """Several optimizers as one, so that loops, schedules and checkpoints see only one.

    The parts share its groups and its state: each owns some of the groups.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)
        counts = [len(part.param_groups) for part in parts]
        self._borders = list(accumulate(counts, initial=0))
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        for part, (start, stop) in zip(self.parts, pairwise(self._borders), strict=True):
            part.param_groups = self.param_groups[start:stop]
            part.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a state that was loaded."""
        super().__setstate__(state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters; a closure computes the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def is_matrix(module: nn.Module, parameter: Tensor) -> bool:
    """Tell whether Muon may update a parameter of a module: a matrix, though not a look-up table.

    Vectors, convolutions, and the matrices that bands share one tensor for are AdamW's, as are the
    angles of polar positions.
    """
    return parameter.ndim == 2 and not isinstance(module, nn.Embedding | PolarEmbedding)


def build_optimizer(
    options: OptimizerOptions, modules: Iterable[nn.Module], *, fused: bool = False
) -> Optimizer:
    """Return the optimizer for the parameters that are trained.

    Args:
        options: from a recipe.
        modules: all modules that hold parameters of their own, as `nn.Module.modules` lists them.
        fused: let Adam and AdamW pass over memory once instead of a dozen times; PyTorch chooses
            otherwise. Lightning doesn't clip gradients for such optimizers in half precision.

    Raises:
        ConfigError: Nothing is trained, or Muon finds no matrix.
    """
    matrices: dict[Tensor, None] = {}
    others: dict[Tensor, None] = {}
    for module in modules:
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad:
                (matrices if is_matrix(module, parameter) else others)[parameter] = None
    everything = [*matrices, *others]
    if not everything:
        raise ConfigError("Nothing is trained: all parameters of the network are frozen.")
    decay, betas, eps = options.weight_decay, options.betas, options.eps
    if options.name == "muon":
        if not matrices:
            raise ConfigError("Muon updates matrices, and this network has none; use 'adamw'.")
        parts: list[Optimizer] = [
            Muon(
                list(matrices),
                lr=options.matrix_rate or options.rate,
                weight_decay=decay,
                momentum=0.95 if options.momentum is None else options.momentum,
                adjust_lr_fn="match_rms_adamw",
            )
        ]
        if others:
            rest = AdamW(
                list(others), options.rate, betas, eps, weight_decay=0.0, fused=fused or None
            )
            parts.append(rest)
        return Together(parts)
    if options.name == "rmsprop":
        return RMSprop(
            everything,
            options.rate,
            eps=eps,
            weight_decay=decay,
            momentum=options.momentum or 0.0,
        )
    adam = AdamW if options.name == "adamw" else Adam
    return adam(everything, options.rate, betas, eps, decay, fused=fused or None)
