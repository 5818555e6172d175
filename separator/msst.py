"""Read models in the format of Music-Source-Separation-Training: a checkpoint and a YAML file.

The YAML names the stems, the length of the pieces and a few things that the checkpoint's shapes
don't tell; where the two disagree, the shapes are right. `!!python/tuple` is read as a tuple, any
other Python object in the YAML is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from separator.checkpoints import State, load_state, read_state
from separator.errors import ConfigError, ModelError
from separator.families import Family, Inferred, family_of
from separator.networks import build_network
from separator.schema import read_yaml, validate

Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    """A part of the YAML; it holds much that only matters for training."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Audio(_Section):
    sample_rate: Positive = 44100
    chunk_size: Positive | None = None


class _Training(_Section):
    instruments: Annotated[list[str], Field(min_length=1)]
    target_instrument: str | None = None


class _Inference(_Section):
    chunk_size: Positive | None = None
    num_overlap: Positive = 2
    normalize: bool = False


class _Config(_Section):
    audio: _Audio
    training: _Training
    model: dict[str, Any]
    inference: _Inference = _Inference()


@dataclass(frozen=True)
class ForeignModel:
    """A foreign model in our words; the attributes are those of a card."""

    network: str
    parameters: dict[str, Any]
    stems: tuple[str, ...]
    residual: str | None
    sample_rate: int
    channels: int
    segment: float
    overlap: float
    normalization: str


class _Loader(yaml.SafeLoader):
    """The safe loader, and tuples."""


_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node)),  # type: ignore[arg-type]
)


def read_msst(checkpoint: Path, config: Path) -> ForeignModel:
    """Understand a checkpoint with its YAML, and check that its weights fit the network.

    Raises:
        ModelError: the checkpoint is damaged, hostile, of an unknown architecture, or doesn't
            fit; or it holds numbers that aren't finite.
        ConfigError: the YAML lacks something, or asks for what isn't supported.
    """
    settings = validate(_Config, read_yaml(config, _Loader), config.name)
    format = "safetensors" if checkpoint.suffix == ".safetensors" else "msst"
    state = read_state(checkpoint, format)
    family = family_of(state, checkpoint.name)
    inferred = _hyperparameters(family, state, settings, checkpoint.name, f"{config.name}: model")
    stems, residual = _stems(settings.training, inferred.stems, config.name)
    chunk = settings.inference.chunk_size or settings.audio.chunk_size
    if chunk is None:
        raise ConfigError(f"{config.name}: 'audio.chunk_size' is missing.")
    model = ForeignModel(
        network=family.network,
        parameters=inferred.parameters,
        stems=stems,
        residual=residual,
        sample_rate=settings.audio.sample_rate,
        channels=inferred.channels,
        segment=chunk / settings.audio.sample_rate,
        overlap=1 - 1 / settings.inference.num_overlap,
        normalization="track" if settings.inference.normalize else "none",
    )
    _check(model, state, checkpoint)
    return model


def _hyperparameters(
    family: Family, state: State, settings: _Config, checkpoint: str, where: str
) -> Inferred:
    given = family.translate(settings.model, where) | {"sample_rate": settings.audio.sample_rate}
    return family.parameters(state, given, checkpoint)


def _stems(training: _Training, count: int, where: str) -> tuple[tuple[str, ...], str | None]:
    """Name the estimates, and what remains of the mixture if the YAML has a word for it."""
    names = tuple(name.strip().lower() for name in training.instruments)
    target = training.target_instrument
    if target and count == 1:
        target = target.strip().lower()
        rest = [name for name in names if name != target]
        return (target,), rest[0] if len(rest) == 1 else None
    if len(names) != count:
        raise ConfigError(
            f"{where}: 'training.instruments' names {len(names)} stems ({', '.join(names)}), the "
            f"checkpoint has {count}. Name as many, or set 'target_instrument' if it has one."
        )
    return names, None


def _check(model: ForeignModel, state: State, checkpoint: Path) -> None:
    network = build_network(
        model.network,
        stems=model.stems,
        sample_rate=model.sample_rate,
        channels=model.channels,
        **model.parameters,
    )
    load_state(network, state, where=checkpoint.name)
    for key, value in state.items():
        if not value.isfinite().all():
            raise ModelError(f"'{checkpoint}' holds numbers that aren't finite, in '{key}'.")
