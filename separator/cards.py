"""Model cards: one YAML file pins everything that is needed to reproduce a model's result.

```
name: pocket                        # the file's name without .yaml
description: Four stems, small, trained on synthetic music only
network: bs_roformer                # a key of separator.networks.NETWORKS
parameters: {dim: 96, depth: 4}     # its keyword arguments, all of them
stems: [drums, bass, other, vocals] # in the order of the network's output
sample_rate: 44100                  # Hz
channels: 2
segment: 8.0                        # seconds
overlap: 0.25                       # fraction of a segment
weights:
  file: weights/pocket.safetensors  # beside the card, or `urls: [first, mirror, ...]`
  sha256: 64 hexadecimal digits
  bytes: 12345678
  format: safetensors
licence: MIT
```
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from separator.errors import ConfigError
from separator.schema import Strict, read_yaml, validate

NOT_STATED = "not stated"


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


# A stem's name becomes part of a file's name, so it must not hold a path separator.
Stem = Annotated[str, Field(pattern=r"^\w[\w .&()+-]*$", max_length=64)]
Text = Annotated[str, Field(min_length=1)]
Decibels = dict[str, float]


class Weights(Strict):
    """Say where a model's weights are, and how to know that they are the right ones.

    Attributes:
        file: path relative to the card's folder, or an absolute one.
        urls: where to download the file; the second and later ones are mirrors.
        sha256: of the file, 64 lower-case hexadecimal digits.
        bytes: size of the file.
        format: how the file is read, see `separator.checkpoints`.
    """

    file: Text | None = None
    urls: Annotated[tuple[Text, ...], BeforeValidator(_as_tuple)] = ()
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0)]
    format: Literal["safetensors", "msst"]

    @model_validator(mode="after")
    def _one_place(self) -> "Weights":
        if bool(self.file) == bool(self.urls):
            raise ValueError("give either 'file' (bundled) or 'urls' (downloaded)")
        return self

    @field_validator("urls")
    @classmethod
    def _web_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"only http and https addresses are fetched, not '{url}'")
        return urls


class Score(Strict):
    """Report published results on one data set, in dB.

    Attributes:
        definition: "uSDR" is 10 log10(|s|^2 / |s - e|^2) over a whole track, mean over tracks;
            "cSDR" is BSSEval v4, median over frames of 1 s, then median over tracks; "author" is
            a number that its author gives without saying how it was measured.
    """

    dataset: Text
    definition: Literal["uSDR", "cSDR", "author"]
    values: Decibels
    source: Text


class Card(Strict):
    """Describe one ready-to-use model: a network, its hyper-parameters and its weights.

    Attributes:
        parameters: the network's keyword arguments except stems, sample_rate and channels.
        stems: names of the estimates, in the network's order.
        residual: name for the mixture minus all stems, where that means something.
        sample_rate: Hz.
        segment: length of the pieces that the network sees at once, in seconds.
        overlap: fraction of a segment that it shares with the next, in [0, 1).
        normalization: "none", or "track": the whole track's mono mean is subtracted and its
            standard deviation divided out before the network, and both restored after.
        note: what a user ought to know before using it, doubtful provenance for example.
        latency: look-ahead in seconds, for models made for live use.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
    description: Text
    network: Text
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    stems: Annotated[tuple[Stem, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
    residual: Stem | None = None
    sample_rate: Annotated[int, Field(gt=0)] = 44100
    channels: Annotated[int, Field(gt=0)] = 2
    segment: Annotated[float, Field(gt=0)]
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    normalization: Literal["none", "track"] = "none"
    latency: Annotated[float, Field(ge=0)] | None = None
    weights: Weights
    licence: Text
    note: Text | None = None
    training_data: Text = NOT_STATED
    source: Text = NOT_STATED
    scores: Annotated[tuple[Score, ...], BeforeValidator(_as_tuple)] = ()

    _path: Path | None = PrivateAttr(default=None)

    @field_validator("stems", mode="before")
    @classmethod
    def _ordered(cls, stems: object) -> object:
        if stems == "unordered":
            raise ValueError("models whose stems have no fixed order can't be run yet")
        return stems

    @field_validator("parameters")
    @classmethod
    def _own_fields(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in ("stems", "sample_rate", "channels"):
            if name in parameters:
                raise ValueError(f"'{name}' is a field of the card itself, not a parameter")
        return parameters

    @model_validator(mode="after")
    def _names_differ(self) -> "Card":
        names = [*self.stems, *([self.residual] if self.residual else [])]
        if len(set(names)) < len(names):
            raise ValueError(f"stems and residual need different names ({', '.join(names)})")
        return self

    @property
    def path(self) -> Path | None:
        """The file that the card was read from."""
        return self._path

    @property
    def segment_samples(self) -> int:
        """Return the segment's length in samples."""
        return round(self.segment * self.sample_rate)

    @property
    def bundled(self) -> Path | None:
        """Return the local weights that the card points to, or None if they are downloaded."""
        if self.weights.file is None:
            return None
        folder = self._path.parent if self._path else Path()
        return folder / self.weights.file

    @property
    def file_name(self) -> str:
        """Return the name of the weights' file, wherever it comes from."""
        place = self.weights.file or self.weights.urls[0]
        return PurePosixPath(place.split("?")[0]).name


def parse_card(data: dict[str, Any], where: str) -> Card:
    """Check a mapping against the schema.

    Raises:
        ConfigError: one line that names `where` and the field.
    """
    if "members" in data:
        raise ConfigError(f"{where}: an ensemble (it has 'members'), which can't be run yet.")
    return validate(Card, data, where)


def read_card(path: Path) -> Card:
    """Read a card from a YAML file, whose name must be the card's name.

    Raises:
        ConfigError: one line that names the file and the field.
    """
    card = parse_card(read_yaml(path), path.name)
    if card.name != path.stem:
        raise ConfigError(f"{path.name}: 'name' must be the file's name, got '{card.name}'.")
    card._path = path
    return card


class _Inline(dict[str, Any]):
    """A mapping that is written on one line."""


class _InlineList(list[Any]):
    """A list that is written on one line."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Inline,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True),
)
_Dumper.add_representer(
    _InlineList,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)


def write_card(card: Card, folder: Path) -> Path:
    """Write a card into `folder` as `<name>.yaml`, without the fields left at their defaults."""
    data = card.model_dump(mode="json", exclude_defaults=True)
    data["stems"] = _InlineList(data["stems"])
    if "parameters" in data:
        data["parameters"] = _Inline(data["parameters"])
    for score in data.get("scores", ()):
        score["values"] = _Inline(score["values"])
    path = folder / f"{card.name}.yaml"
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(text, encoding="utf-8")
    return path
