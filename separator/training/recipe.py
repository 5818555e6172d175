"""Recipes: one YAML file says everything about a training run.

```
description: Debugging, in a minute on a processor
network: bs_roformer                  # as in a card: a key of separator.networks.NETWORKS
parameters: {dim: 16, depth: 1}       # its keyword arguments
stems: [drums, bass, other, vocals]
data: {segment: 2.0, batch: 2, synthetic: {songs: 8}}
loss: {l1: 1.0}
optimizer: {name: adamw, rate: 1e-3}
schedule: {name: cosine, warmup: 10}
steps: 100
```

Every key is checked, and what a file leaves out has one default, here. Files don't inherit from
each other. A recipe that starts from a model (`start: pocket`) takes what it doesn't say about the
network from that model's card. The resolved recipe is part of every checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from separator.errors import ConfigError
from separator.resources import data_folder
from separator.schema import FROM_LIST, SAFE_LOADER, Count, Positive, Strict, read_yaml, validate
from separator.training.data.augmentation import MIXTURE_EFFECTS, AugmentationOptions
from separator.training.data.build import DataOptions
from separator.training.guide import GuideOptions
from separator.training.losses import LossOptions
from separator.training.optimizers import OptimizerOptions
from separator.training.schedules import ScheduleOptions
from separator.words import nearest
from separator.zoo.cards import NOT_STATED, Card, Overlap, Seconds, Stem, Text

Factor = Annotated[float, Field(ge=0)]
Names = Annotated[tuple[str, ...], FROM_LIST]


class Loader(SAFE_LOADER):  # type: ignore[misc]
    """The safe loader that also takes `1e-3` for a number, as YAML 1.2 does.

    And refuses a key that is there twice, of which the last would count.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"'{key.value}' is there twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class LoraOptions(Strict):
    """Low-rank updates of linear layers in place of all weights; see `training.lora`.

    Attributes:
        rank: rank of the updates.
        alpha: the updates are scaled by `alpha / rank`; the rank unless given.
        layers: parts of the names of the layers that get one; every linear layer unless given.
        also: parts of the names of other parameters that are trained as they are.
    """

    rank: Count = 8
    alpha: Positive | None = None
    layers: Names = ()
    also: Names = ()


class HeldOut(Strict):
    """Data set for validation; see `separator.datasets.open_dataset`."""

    path: Text
    kind: Text = "auto"
    split: Text = "validation"


class Generated(Strict):
    """Generated songs for validation: of timbres and seeds that training doesn't use."""

    songs: Count = 2
    duration: Annotated[float, Field(ge=1)] = 20.0
    first: Annotated[int, Field(ge=0)] = 1_000_000
    timbres: Literal["train", "heldout", "any"] = "heldout"
    plain: bool = True


class ValidationOptions(Strict):
    """Times and data at which the SDR of whole tracks is measured.

    Attributes:
        every: steps between validations.
        folder, generated: where the tracks come from; exactly one of them.
        tracks: how many are used; all unless given.
        segment: seconds, as users will separate with it; that of training unless given.
        overlap: share of a segment that the next one covers again.
        batch: segments at once.
        excerpt: seconds of the first track that are logged as audio and spectrograms.
    """

    every: Count = 1000
    folder: HeldOut | None = None
    generated: Generated | None = None
    tracks: Count | None = None
    segment: Seconds | None = None
    overlap: Overlap = 0.25
    batch: Count = 1
    excerpt: Annotated[float, Field(ge=0)] = 8.0

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.folder is None) == (self.generated is None):
            raise ValueError("give either 'folder' or 'generated'")
        return self


class LogOptions(Strict):
    """Reports, and where they go.

    Attributes:
        every: steps between reports of loss, rates and speed.
        tensorboard: write event files into the run's folder.
        wandb: project of Weights & Biases, whose package must be installed.
    """

    every: Count = 50
    tensorboard: bool = True
    wandb: Text | None = None


class SaveOptions(Strict):
    """Times of checkpoints: the last one to resume from, the best ones by SDR."""

    every: Count = 500
    best: Annotated[int, Field(ge=0)] = 3


class HardwareOptions(Strict):
    """Place where training runs; these are arguments of Lightning's `Trainer`.

    Attributes:
        devices: processes on each computer.
        nodes: computers; start the program on each with torchrun or SLURM.
        strategy: "ddp" copies the network to every process, "fsdp" shares its weights, gradients
            and averages among them (see `training.sharding`); "auto" takes ddp.
    """

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: Count = 1
    nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"


class Recipe(Strict):
    """Complete description of a training run; see the module and `configs/`.

    Attributes:
        source: where the facts come from.
        stems: what the network estimates.
        background: stems that are part of the mixtures, and that it doesn't estimate.
        guide: a model that listens first; what it finds is what the network hears.
        start: a card (name or path) whose weights training starts from.
        grow: the network is larger than that card's, or has only the first of its stems.
        initial_scale: factors of initial parameters, by parts of their names.
        steps: updates of the weights, at most.
        minutes: limit of training, after which it ends before that; the schedule follows the clock.
        accumulate: batches whose gradients are added before an update.
        clip: largest norm of all gradients together.
        precision: type of matrix products; weights, STFT and losses stay in float32.
        compile: compile the network's core with `torch.compile`.
        checkpointing: compute activations again in the backward pass in place of keeping them.
        ema: decay of the weights' moving average, which is what is validated and exported.
        patience: validations without a better SDR after which training stops.
        allow_partial: use the good songs of a data set that has bad ones.
    """

    description: Text
    source: Text = NOT_STATED
    network: Text
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    stems: Annotated[tuple[Stem, ...], FROM_LIST, Field(min_length=1)]
    background: Names = ()
    sample_rate: Count = 44100
    channels: Count = 2
    guide: GuideOptions | None = None
    start: Text | None = None
    grow: bool = False
    initial_scale: Annotated[dict[str, Factor], Field(default_factory=dict)]
    lora: LoraOptions | None = None
    data: DataOptions
    augmentation: AugmentationOptions = AugmentationOptions()
    loss: LossOptions
    optimizer: OptimizerOptions
    schedule: ScheduleOptions = ScheduleOptions()
    steps: Count
    minutes: Positive | None = None
    accumulate: Count = 1
    clip: Positive | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    checkpointing: bool = False
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    validation: ValidationOptions | None = None
    patience: Count | None = None
    save: SaveOptions = SaveOptions()
    log: LogOptions = LogOptions()
    hardware: HardwareOptions = HardwareOptions()
    allow_partial: bool = False
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("parameters")
    @classmethod
    def _own_fields(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in ("stems", "sample_rate", "channels"):
            if name in parameters:
                raise ValueError(f"'{name}' is a field of the recipe itself, not a parameter")
        return parameters

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = (*self.stems, *self.background)
        if len(set(names)) < len(names):
            raise ValueError(f"stems and background need different names ({', '.join(names)})")
        changed = any(getattr(self.augmentation, effect) for effect in MIXTURE_EFFECTS)
        if len(names) == 1 and not changed:
            raise ValueError(
                f"mixtures of '{names[0]}' alone hold nothing to separate; name what else is in "
                "them in 'background', as in [instrumental]"
            )
        if self.patience and not self.validation:
            raise ValueError("'patience' counts validations, and there is no 'validation'")
        if self.hardware.strategy == "fsdp" and self.precision == "float16":
            raise ValueError("'fsdp' takes the precisions float32 and bfloat16, not float16")
        if self.lora and not self.start:
            raise ValueError("'lora' changes a trained model; name it in 'start'")
        if self.grow and not self.start:
            raise ValueError("'grow' needs a smaller model to start from; name it in 'start'")
        return self

    @property
    def inputs(self) -> int:
        """Signals that the network hears."""
        return len(self.guide.input) if self.guide else 1

    @property
    def segment(self) -> float:
        """Seconds of audio that users' segments have."""
        chosen = self.validation.segment if self.validation else None
        return chosen or self.data.segment


def list_recipes() -> list[str]:
    """Return the names of the recipes that came with the program."""
    return sorted(path.stem for path in data_folder("configs").glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Find a recipe by the name of a bundled one, or by its path.

    Raises:
        ConfigError: There is no such recipe.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = list_recipes()
    if name not in known:
        raise ConfigError(
            f"Unknown recipe '{name}'; known: {', '.join(known)}, or the path of a .yaml file."
            f"{nearest(name, known)}"
        )
    return data_folder("configs") / f"{name}.yaml"


def load_recipe(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and change it.

    Args:
        name: name of a bundled recipe, or the path of a `.yaml` file.
        changes: `key=value` or `section.key=value`, values in YAML.

    Raises:
        ConfigError: One line that names the file and the field.
        ModelError: The model to start from is unknown.
    """
    path = find_recipe(name)
    data = read_yaml(path, Loader)
    for change in changes:
        apply_change(data, change)
    return resolve(data, path.name)


_OF_A_NETWORK = {"network", "parameters", "stems", "sample_rate", "channels"}


def resolve(data: dict[str, Any], where: str) -> Recipe:
    """Check a mapping; what it leaves open about the network comes from the card it starts from.

    Raises:
        ConfigError: One line that names `where` and the field.
        ModelError: The model to start from is unknown.
    """
    start = data.get("start")
    if isinstance(start, str) and not data.keys() >= _OF_A_NETWORK:  # a saved recipe has all
        card = _network_of(start, where)
        parameters = data.get("parameters", {})
        if data.get("network", card["network"]) == card["network"] and isinstance(parameters, dict):
            data = {**data, "parameters": {**card["parameters"], **parameters}}
        data = {**card, **data}
    return validate(Recipe, data, where)


def _network_of(start: str, where: str) -> dict[str, Any]:
    from separator.zoo.load import read_model
    from separator.zoo.search import find_card

    card = find_card(start)
    if not isinstance(card, Card):
        raise ConfigError(f"{where}: 'start': '{start}' is an ensemble; name one of its models.")
    if card.weights.format == "demucs":  # the file knows its hyper-parameters, the card may not
        card, _ = read_model(card)
    return {field: getattr(card, field) for field in _OF_A_NETWORK}


def apply_change(data: dict[str, Any], change: str) -> None:
    """Set a value in nested mappings and lists.

    Raises:
        ConfigError: The change isn't `key=value`, or leads through something that has no keys.

    >>> data = {"optimizer": {"rate": 0.1}}
    >>> apply_change(data, "optimizer.rate=3e-4")
    >>> data
    {'optimizer': {'rate': 0.0003}}
    """
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set is '{change}'; expected key=value, as in optimizer.rate=1e-4.")
    try:
        value = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: '{text}' is not valid YAML.") from error
    place: Any = data
    for part in parts[:-1]:
        place = _step(place, part, change)
    if isinstance(place, list):
        place[_index(place, parts[-1], change)] = value
    elif isinstance(place, dict):
        place[parts[-1]] = value
    else:
        raise ConfigError(f"--set '{change}': '{'.'.join(parts[:-1])}' has no keys.")


def _step(place: Any, part: str, change: str) -> Any:
    """Go into a mapping, which may be new, or into a list."""
    if isinstance(place, list):
        return place[_index(place, part, change)]
    if not isinstance(place, dict):
        raise ConfigError(f"--set '{change}': there is nothing below '{place}' to set.")
    if place.get(part) is None:
        place[part] = {}
    return place[part]


def _index(place: list[Any], part: str, change: str) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise ConfigError(
            f"--set '{change}': '{part}' must be the number of an entry, 0 to {len(place) - 1}."
        )
    return int(part)
