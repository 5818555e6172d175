"""Make the network that a recipe describes, ready to be trained."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from separator.checkpoints.states import load_state
from separator.errors import ConfigError
from separator.networks import build_network
from separator.training.growing import grow
from separator.training.lora import add_lora
from separator.training.recipe import Recipe
from separator.zoo.cards import Card
from separator.zoo.load import read_model
from separator.zoo.search import find_card


def bare_network(recipe: Recipe) -> nn.Module:
    """Build the network of a recipe with random weights, on torch's default device.

    Raises:
        ModelError: There is no network of this name.
        ConfigError: A hyper-parameter is unknown, missing or has an impossible value, or there is
            nothing to train.
    """
    network = build_network(
        recipe.network,
        stems=recipe.stems,
        sample_rate=recipe.sample_rate,
        channels=recipe.channels,
        **recipe.parameters,
    )
    hears = getattr(network, "inputs", 1)
    if hears != recipe.inputs:
        raise ConfigError(
            f"The network hears {hears} signal(s), 'guide.input' gives {recipe.inputs}; make "
            "'parameters.inputs' as many, where the network has it."
        )
    if next(network.parameters(), None) is None:
        raise ConfigError(
            f"'{recipe.network}' has no weights that can be trained; choose another network"
            f"{f', or start from another model than {recipe.start!r}' if recipe.start else ''}."
        )
    return network


def initial_network(recipe: Recipe, *, fresh: bool = True) -> nn.Module:
    """Build the network of a recipe with the weights that training starts from.

    Args:
        recipe: says which.
        fresh: load the weights that the recipe starts from; otherwise a checkpoint follows.

    Raises:
        ModelError: Unknown network, or weights that are missing or don't fit.
        ConfigError: A hyper-parameter or a parameter's name that isn't there.
    """
    torch.manual_seed(recipe.seed)
    network = bare_network(recipe)
    if recipe.start is not None and fresh:
        card = find_card(recipe.start)
        assert isinstance(card, Card)  # as the recipe has checked
        card, state = read_model(card)
        load = grow if recipe.grow else load_state
        load(network, state, where=card.name)
    scale_parameters(network, recipe.initial_scale)
    if recipe.lora is not None:
        add_lora(network, recipe.lora)
    return network


def scale_parameters(network: nn.Module, factors: dict[str, float]) -> None:
    """Multiply the parameters whose names contain a key.

    Masks that start small start near silence, which random masks of full size are worse than: the
    quickest way from there would be to shut the gates, which then let no gradient through.

    Raises:
        ConfigError: A key is part of no name.
    """
    named = dict(network.named_parameters())
    for part, factor in factors.items():
        found = [parameter for name, parameter in named.items() if part in name]
        if not found:
            raise ConfigError(f"'initial_scale': no parameter's name contains '{part}'.")
        with torch.no_grad():
            for parameter in found:
                parameter.mul_(factor)


def compile_core(network: nn.Module) -> None:
    """Let `torch.compile` translate the core of a network when it first runs.

    Raises:
        ConfigError: The processor is to run it, and there is no C++ compiler.
    """
    if next(network.parameters()).device.type == "cpu" and not torch.cuda.is_available():
        compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise ConfigError(
                f"'compile' needs a C++ compiler, and there is no '{compiler}': install it "
                "(apt-get install g++), name another in the variable CXX, or set compile=false."
            )
    network.get_submodule("core").compile()


def checkpoint_activations(network: nn.Module) -> list[nn.Module]:
    """Let the repeated blocks of a network forget what they compute until it is needed again.

    Returns those blocks.

    Raises:
        ConfigError: The network repeats nothing that could be computed twice.
    """
    blocks = [block for block in repeated_blocks(network) if not _counts_batches(block)]
    if not blocks:
        raise ConfigError(
            f"{type(network).__name__} has no repeated blocks; 'checkpointing' must be false."
        )
    for block in blocks:
        recomputed: Any = partial(checkpoint, block.forward, use_reentrant=False)
        block.forward = recomputed
    return blocks


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the outermost modules that lists of a network hold."""
    return list(_blocks(network, inside=False))


def _blocks(module: nn.Module, inside: bool) -> Iterator[nn.Module]:
    container = isinstance(module, nn.ModuleList | nn.ModuleDict)
    if inside and not container:
        yield module
        return
    for child in module.children():
        yield from _blocks(child, inside or container)


def _counts_batches(block: nn.Module) -> bool:
    """Tell whether a block has batch normalisation, which would count every batch twice."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in block.modules())
