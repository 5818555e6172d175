"""Low-rank updates of linear layers: fine-tune a large model by training a hundredth of it.

A layer's weight `W` becomes `W + (alpha / rank) B A`, where only `A` and `B` are trained. The sum
is computed wherever the weight is used, so networks need not know, and `merge` turns it into a
plain weight again: an exported model is like any other.

Reference: Hu et al., "LoRA: low-rank adaptation of large language models", 2021, arXiv 2106.09685.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from separator.errors import ConfigError
from separator.training.recipe import LoraOptions
from separator.words import nearest


class LowRank(nn.Module):
    """Sum of a weight `(outputs, inputs)` and a product of two thin matrices, zero at first."""

    def __init__(self, outputs: int, inputs: int, rank: int, alpha: float) -> None:
        super().__init__()
        bound = 1 / sqrt(inputs)
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the updated weight."""
        return weight + self.scale * (self.up @ self.down).to(weight.dtype)


def add_lora(network: nn.Module, options: LoraOptions) -> None:
    """Freeze a network, and give its linear layers updates to train.

    Raises:
        ConfigError: No layer, or no parameter, has a name like those asked for.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear)}
    chosen = {name: layer for name, layer in layers.items() if _matches(name, options.layers)}
    if not chosen:
        parts = {part for name in layers for part in name.split(".") if not part.isdecimal()}
        raise ConfigError(
            f"No linear layer is called {' or '.join(options.layers) or 'anything'}; names have "
            f"the parts {', '.join(sorted(parts)) or '(there is none)'}."
            f"{nearest(options.layers[0], parts) if options.layers else ''}"
        )
    network.requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(bool(options.also) and _matches(name, options.also))
    for layer in chosen.values():
        update = LowRank(
            layer.out_features,
            layer.in_features,
            options.rank,
            options.alpha or float(options.rank),
        )
        parametrize.register_parametrization(layer, "weight", update)
        layer.get_parameter("parametrizations.weight.original").requires_grad_(False)


def merge(network: nn.Module) -> nn.Module:
    """Turn updated weights into plain ones, in place, and return the network."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return network


def _matches(name: str, parts: tuple[str, ...]) -> bool:
    return not parts or any(part in name for part in parts)
