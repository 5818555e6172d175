"""Understand the foreign checkpoints of one architecture: what `Family` knows, `ForeignModel` says.

A checkpoint's own keys and shapes say most about its network, and they are always right; the file
of settings beside it is asked only for what shapes can't tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from separator.checkpoints.states import State, check_fit
from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.words import nearest


class Inferred(NamedTuple):
    """What the keys and shapes of a checkpoint tell, of some also the names of the stems."""

    stems: int
    channels: int
    parameters: dict[str, Any]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: dict[str, Any]) -> Inferred:
        """Take the constants out of what a network's own reader of shapes has found."""
        parameters = dict(found)
        return cls(parameters.pop("stem_count"), parameters.pop("channels"), parameters)


@dataclass(frozen=True)
class ForeignModel:
    """A foreign model in our words; the attributes are those of a card, and of its weights."""

    network: str
    parameters: dict[str, Any]
    stems: tuple[str, ...]
    sample_rate: int
    channels: int
    segment: float
    format: str
    residual: str | None = None
    overlap: float = 0.25
    normalization: str = "none"
    recipe: str = "default"
    note: str | None = None

    def check(self, state: Mapping[str, Tensor], where: str) -> None:
        """Compare the weights with the network's, by their shapes.

        Raises:
            ConfigError: A hyper-parameter is unknown or impossible.
            ModelError: The weights don't fit, or hold numbers that aren't finite.
        """
        build = partial(
            build_network,
            self.network,
            stems=self.stems,
            sample_rate=self.sample_rate,
            channels=self.channels,
            **self.parameters,
        )
        check_fit(build, state, where=where)
        for key, value in state.items():
            if not value.isfinite().all():
                raise ModelError(f"'{where}' holds numbers that aren't finite, in '{key}'.")


def _as_it_is(state: State) -> State:
    return state


@dataclass(frozen=True)
class Family:
    """Translation of one architecture.

    Attributes:
        network: its name here, a key of `separator.networks.NETWORKS`.
        is_one: tells by its keys whether a checkpoint belongs to the family.
        infer: reads the shapes, given the translated settings and `sample_rate`.
        settings: foreign names of what shapes can't tell: our name, and the type.
        defaults: values of settings that a file may leave out, under our names.
        ignored: foreign names that change nothing here, and why.
        refused: foreign names that change the graph if they are set, and into what.
        fixed: foreign names with the one value that the network has.
        kinds: words of `training.model_type` for the family.
        audio: as `settings`, those that stand in the section `audio`.
        format: how cards name the form of the weights, see `separator.checkpoints`.
        convert: gives the parameters the names that they have here.
        usual_stems: where neither keys nor settings name them.
        segment, sample_rate: in seconds and Hz, where no settings say.
    """

    network: str
    is_one: Callable[[State], bool]
    infer: Callable[[State, Mapping[str, Any]], Inferred]
    settings: Mapping[str, tuple[str, type]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
    audio: Mapping[str, tuple[str, type]] = field(default_factory=dict)
    format: str = "msst"
    convert: Callable[[State], State] = _as_it_is
    usual_stems: tuple[str, ...] = ()
    segment: float = 10.0
    sample_rate: int = 44100

    def translate(self, foreign: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Turn foreign settings into ours.

        Raises:
            ConfigError: A name is unknown, a type is wrong, or the graph isn't supported.
        """
        ours = dict(self.defaults)
        for name, value in foreign.items():
            if name in self.refused:
                if value:
                    raise ConfigError(
                        f"{where}: '{name}: {value}' asks for {self.refused[name]}, which can't "
                        "be run."
                    )
            elif name in self.fixed:
                if value is not None and value != self.fixed[name]:
                    raise ConfigError(
                        f"{where}: '{name}: {value}' can't be run; {self.network} has "
                        f"{self.fixed[name]}."
                    )
            elif name in self.settings and value is not None:
                our_name, kind = self.settings[name]
                ours[our_name] = _checked(value, kind, f"{where}: '{name}'")
            elif name not in self.ignored and name not in self.settings:
                known = [*self.settings, *self.ignored, *self.refused, *self.fixed]
                raise ConfigError(
                    f"{where}: unknown key '{name}'.{nearest(name, known)} The checkpoint is a "
                    f"{self.network}: remove the key if that does without, or give the YAML that "
                    "belongs to it."
                )
        return ours

    def check_kind(self, kind: str | None, where: str) -> None:
        """Refuse a variant that has the same shapes.

        Raises:
            ConfigError: The file says that it is another kind of network.
        """
        if kind is not None and self.kinds and kind not in self.kinds:
            raise ConfigError(
                f"{where}: 'training.model_type: {kind}' can't be run; the checkpoint looks like "
                f"a {self.network} ({', '.join(self.kinds)})."
            )

    def translate_audio(self, foreign: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Turn the settings of the section `audio` that concern the network into ours.

        Raises:
            ConfigError: A type is wrong.
        """
        return {
            our_name: _checked(foreign[name], kind, f"{where}: '{name}'")
            for name, (our_name, kind) in self.audio.items()
            if foreign.get(name) is not None
        }

    def converted(self, state: State, where: str) -> State:
        """Give the parameters the names that they have here.

        Raises:
            ModelError: Keys that every checkpoint of the family has are missing.
        """
        try:
            return self.convert(state)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"'{where}' looks like a {self.network}, but its keys don't fit "
                f"({type(error).__name__}: {error})."
            ) from error

    def parameters(self, state: State, settings: Mapping[str, Any], where: str) -> Inferred:
        """Read the hyper-parameters off the checkpoint; `settings` fill in what it can't tell.

        Raises:
            ModelError: Keys that every checkpoint of the family has are missing.
        """
        try:
            inferred = self.infer(state, settings)
        except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
            raise ModelError(
                f"'{where}' looks like a {self.network}, but parts of it are missing or misshapen "
                f"({type(error).__name__}: {error})."
            ) from error
        own = {key: value for key, value in settings.items() if key != "sample_rate"}
        return inferred._replace(parameters=own | inferred.parameters)


def _checked(value: Any, kind: type, where: str) -> Any:
    value = list(value) if isinstance(value, tuple) else value
    if type(value) is not kind:
        raise ConfigError(f"{where} is of type {kind.__name__}, got {value!r}.")
    return value
