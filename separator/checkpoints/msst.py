"""Read models in the format of Music-Source-Separation-Training: a checkpoint and a YAML file.

The YAML names the stems, the length of the pieces and a few things that the checkpoint's shapes
don't tell; where the two disagree, the shapes are right. `!!python/tuple` is read as a tuple, any
other Python object in the YAML is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from separator.checkpoints.demucs_formats import NAMES, from_demucs_kwargs
from separator.checkpoints.families import family_of
from separator.checkpoints.family import ForeignModel, Inferred
from separator.checkpoints.states import State, read_state
from separator.errors import ConfigError
from separator.schema import Count, Positive, read_yaml, validate

_NO_ZERO_DC = (
    "Its YAML doesn't set zero_dc. It is true here, as in Music-Source-Separation-Training since "
    "September 2025; programs that take it for false differ by 1 % below 100 Hz."
)
_SEGMENT = 11.0  # seconds of a Demucs' training examples, where its YAML doesn't say


class _Section(BaseModel):
    """A part of the YAML; it holds much that only matters for training."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Audio(_Section):
    sample_rate: Count = 44100
    chunk_size: Count | None = None


class _Training(_Section):
    instruments: Annotated[list[str], Field(min_length=1)]
    target_instrument: str | None = None
    samplerate: Count = 44100
    channels: Count = 2
    segment: Positive | None = None
    model_type: str | None = None


class _Inference(_Section):
    chunk_size: Count | None = None
    num_overlap: Count = 2
    normalize: bool = False


class _Config(_Section):
    audio: _Audio
    training: _Training
    model: dict[str, Any] | str | None = None
    kwargs: dict[str, Any] | None = None
    inference: _Inference = _Inference()


class TupleLoader(yaml.SafeLoader):
    """The safe loader, and tuples."""

    def construct_tuple(self, node: yaml.SequenceNode) -> tuple[Any, ...]:
        """Read the tuples of the programs that write such files."""
        return tuple(self.construct_sequence(node))


TupleLoader.add_constructor("tag:yaml.org,2002:python/tuple", TupleLoader.construct_tuple)


def read_msst(checkpoint: Path, config: Path) -> ForeignModel:
    """Understand a checkpoint with its YAML, and check that its weights fit the network.

    Raises:
        ModelError: The checkpoint is damaged, hostile, of an unknown architecture, or doesn't
            fit; or it holds numbers that aren't finite.
        ConfigError: The YAML lacks something, or asks for what isn't supported.
    """
    sections = read_yaml(config, TupleLoader)
    settings = validate(_Config, sections, config.name)
    overlap = 1 - 1 / settings.inference.num_overlap
    normalization = "track" if settings.inference.normalize else "none"
    read = _read_demucs if isinstance(settings.model, str) else _read_family
    model, state = read(checkpoint, settings, sections, config.name)
    model = replace(model, overlap=overlap, normalization=normalization)
    model.check(state, checkpoint.name)
    return model


def _read_family(
    checkpoint: Path, settings: _Config, sections: Mapping[str, Any], where: str
) -> tuple[ForeignModel, State]:
    """Read a model whose shapes tell most of what there is to know."""
    format = "safetensors" if checkpoint.suffix == ".safetensors" else "msst"
    state = read_state(checkpoint, format)
    family = family_of(state, checkpoint.name)
    family.check_kind(settings.training.model_type, where)
    assert not isinstance(settings.model, str)
    network = settings.kwargs if settings.model is None else settings.model
    if network is None:
        raise ConfigError(f"{where}: 'model' is missing.")
    given = family.translate(network, f"{where}: model")
    given |= family.translate_audio(sections["audio"], f"{where}: audio")
    given |= {"sample_rate": settings.audio.sample_rate}
    state = family.converted(state, checkpoint.name)
    inferred = family.parameters(state, given, checkpoint.name)
    stems, residual = _stems(settings.training, inferred, where)
    chunk = settings.inference.chunk_size or settings.audio.chunk_size
    if chunk is None:
        raise ConfigError(f"{where}: 'audio.chunk_size' is missing.")
    model = ForeignModel(
        network=family.network,
        parameters=inferred.parameters,
        stems=stems,
        residual=residual,
        sample_rate=settings.audio.sample_rate,
        channels=inferred.channels,
        segment=chunk / settings.audio.sample_rate,
        format=format if family.format == "msst" else family.format,
        recipe="msst",
        note=_NO_ZERO_DC
        if "zero_dc" in family.settings and network.get("zero_dc") is None
        else None,
    )
    return model, state


def _read_demucs(
    checkpoint: Path, settings: _Config, sections: Mapping[str, Any], where: str
) -> tuple[ForeignModel, State]:
    """Read a Demucs; its YAML has a section for it that is named like its class."""
    name, training = str(settings.model), settings.training
    if name not in NAMES or not isinstance(sections.get(name), dict):
        raise ConfigError(
            f"{where}: 'model: {name}' needs a section of that name; known are {', '.join(NAMES)}."
        )
    segment = training.segment or _SEGMENT
    arguments = {
        **sections[name],
        "sources": training.instruments,
        "audio_channels": training.channels,
        "samplerate": training.samplerate,
        "segment": segment,
    }
    if arguments.get("num_subbands") == 1:  # none, that is
        del arguments["num_subbands"]
    ours = from_demucs_kwargs(name, arguments)
    model = ForeignModel(
        network=name,
        stems=tuple(stem.strip().lower() for stem in ours.pop("stems")),
        sample_rate=ours.pop("sample_rate"),
        channels=ours.pop("channels"),
        parameters=ours,
        segment=segment,
        format="safetensors" if checkpoint.suffix == ".safetensors" else "msst",
        recipe="msst-flat",
    )
    return model, read_state(checkpoint, model.format)


def _stems(
    training: _Training, inferred: Inferred, where: str
) -> tuple[tuple[str, ...], str | None]:
    """Name the estimates, and what remains of the mixture if the YAML has a word for it."""
    if inferred.names:
        return inferred.names, None
    names = tuple(name.strip().lower() for name in training.instruments)
    target = training.target_instrument
    if target and inferred.stems == 1:
        target = target.strip().lower()
        rest = [name for name in names if name != target]
        return (target,), rest[0] if len(rest) == 1 else None
    if len(names) != inferred.stems:
        raise ConfigError(
            f"{where}: 'training.instruments' names {len(names)} stems ({', '.join(names)}), the "
            f"checkpoint has {inferred.stems}. Name as many, or set 'target_instrument' if it has "
            "one."
        )
    return names, None
