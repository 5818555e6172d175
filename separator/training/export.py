"""Turn a checkpoint into a model like any other: a card and float16 safetensors."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from separator.checkpoints.states import load_state
from separator.errors import ConfigError, ModelError
from separator.files import whole_file
from separator.schema import validate
from separator.training.building import initial_network
from separator.training.callbacks import LAST
from separator.training.lora import merge
from separator.training.recipe import Recipe
from separator.training.run import read_checkpoint
from separator.training.task import RECIPE
from separator.zoo.cards import NOT_STATED, Card
from separator.zoo.writing import write_card

_AVERAGE, _NETWORK = "average.module.", "network."


def trained_network(state: dict[str, Any], where: str) -> tuple[Recipe, nn.Module]:
    """Return the recipe of a checkpoint and its network: of averaged weights where there are any.

    Raises:
        ModelError: The weights don't fit the recipe.
        ConfigError: The recipe isn't valid any more.
    """
    recipe = validate(Recipe, state[RECIPE], where)
    weights: dict[str, Tensor] = state["state_dict"]
    prefix = _NETWORK if recipe.ema is None else _AVERAGE
    own = {key.removeprefix(prefix): v for key, v in weights.items() if key.startswith(prefix)}
    network = initial_network(recipe, fresh=False)
    load_state(network, own, where=where)
    return recipe, merge(network).eval()


def export(
    source: Path,
    folder: Path,
    *,
    name: str | None = None,
    licence: str = NOT_STATED,
    description: str | None = None,
) -> Card:
    """Write the card and the weights of a trained network.

    Args:
        source: a checkpoint, or the folder of a run, whose last one is taken.
        folder: folder of cards; the weights go to `weights` in it.
        name: name of the model; the run's unless given.
        licence: licence of the weights.
        description: one line; the recipe's unless given.

    Raises:
        ModelError: There is no checkpoint, it is damaged, or a weight has no float16.
        ConfigError: The name isn't allowed, or there is a card of this name already.
    """
    path = source / LAST if source.is_dir() else source
    name = name or re.sub(r"[^a-z0-9.]+", "-", _run_folder(path).name.lower()).strip("-.")
    if (folder / f"{name}.yaml").exists():
        raise ConfigError(f"There is a card '{name}' in '{folder}' already. Choose another --name.")
    state = read_checkpoint(path)
    recipe, network = trained_network(state, path.name)
    return write_model(
        recipe,
        network,
        folder,
        name=name,
        source=describe_training(recipe, state["global_step"]),
        licence=licence,
        description=description,
    )


def write_model(
    recipe: Recipe,
    network: nn.Module,
    folder: Path,
    *,
    name: str,
    source: str,
    licence: str = NOT_STATED,
    description: str | None = None,
) -> Card:
    """Write a network of a recipe as a card and its weights; `source` says how it came to be.

    Raises:
        ModelError: A weight has no float16, or the folder can't be written to.
        ConfigError: The name isn't allowed.
    """
    file = folder / "weights" / f"{name}.safetensors"
    weights = save(_half(network), metadata={"format": "pt"})
    card = validate(
        Card,
        {
            "name": name,
            "description": description or recipe.description,
            "network": recipe.network,
            "parameters": recipe.parameters,
            "stems": list(recipe.stems),
            "sample_rate": recipe.sample_rate,
            "channels": recipe.channels,
            "segment": recipe.segment,
            "overlap": recipe.validation.overlap if recipe.validation else 0.25,
            "weights": {
                "file": f"weights/{file.name}",
                "sha256": sha256(weights).hexdigest(),
                "bytes": len(weights),
                "format": "safetensors",
            },
            "licence": licence,
            "training_data": describe_data(recipe),
            "source": source,
        },
        f"{name}.yaml",
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as part:
            part.write_bytes(weights)
        write_card(card, folder)
    except OSError as error:
        raise ModelError(f"Can't write to '{folder}': {error.strerror or error}.") from error
    return card


def _run_folder(path: Path) -> Path:
    """Return the folder of the run that a checkpoint belongs to."""
    folder = path.resolve().parent
    return folder.parent if folder.name == "best" else folder


def _half(network: nn.Module) -> dict[str, Tensor]:
    """Return the state with its weights in float16; constants, as of positions, stay exact.

    Raises:
        ModelError: A weight is too large for that, or isn't finite.
    """
    constants = {id(buffer) for buffer in network.buffers()}
    state = {}
    for key, value in network.state_dict(keep_vars=True).items():
        stored = value.detach() if id(value) in constants else value.detach().to(torch.float16)
        if stored.is_floating_point() and not stored.isfinite().all():
            raise ModelError(f"'{key}' has values that float16 can't hold; train with a 'clip'.")
        state[key] = stored.contiguous()
    return state


def describe_data(recipe: Recipe) -> str:
    """Say what a network was trained on.

    A fine-tuned one was trained on what its start was trained on, too.
    """
    data = recipe.data
    if data.synthetic or data.studio:
        text = "Synthetic music only: songs composed and played by a seeded generator"
    elif data.folders:
        text = ", ".join(f"{Path(f.path).name} ({f.split})" for f in data.folders)
    else:
        text = "a bank of packed samples"
    return f"{text}; before that, what '{recipe.start}' was trained on" if recipe.start else text


def describe_training(recipe: Recipe, step: int) -> str:
    """Summarise the recipe in a line."""
    processes = recipe.hardware.devices * recipe.hardware.nodes
    batch = recipe.data.batch * recipe.accumulate * processes
    losses = " + ".join(f"{term.weight:g} {name}" for name, term in recipe.loss.chosen.items())
    parts = [
        f"separator train: {step} steps of {batch} x {recipe.data.segment:g} s",
        f"{recipe.optimizer.name} at {recipe.optimizer.rate:g}, {recipe.schedule.name}",
        f"loss {losses}",
        recipe.precision,
        f"EMA {recipe.ema:g}" if recipe.ema else "no EMA",
        f"LoRA of rank {recipe.lora.rank}" if recipe.lora else "",
        f"from '{recipe.start}'" if recipe.start else "",
        f"seed {recipe.seed}",
    ]
    return ", ".join(part for part in parts if part)
