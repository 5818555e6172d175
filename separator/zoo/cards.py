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
  package:                          # instead of the download, where it is installed (optional)
    name: some-package
    files: [{path: some_package/weights.bin, sha256: 64 digits, bytes: 12345678}]
licence: MIT
```

A card with `members` instead of a network describes an ensemble of other cards' models:

```
name: best-of-two
description: Vocals from two models, everything else from what they leave
stems: [vocals, drums, bass, other]
members:                            # in this order
- model: kim                        # the name of a card, an ensemble's too
  stems: {Vocals: vocals}           # what is taken, under other names if need be (default: all)
  weights: {vocals: 3}              # share in the mean (default: 1 in all of its stems)
- model: viperx
  weights: {vocals: 1}
  overlap: 0.5                      # instead of the card's own; `segment` and `shifts` as well
  residual: instrumental            # name for what its stems leave of its input
- model: demucs
  input: instrumental               # a stem of an earlier member instead of the mixture, or several
  stems: [drums, bass, other]
algorithm: mean                     # or median, min, max: see separator.ensemble.combine
domain: time                        # or stft: bin by bin; or network: as one network
wiener: 0                           # iterations of the multi-channel Wiener filter after it
consistency: energy                 # spread what is left of the mixture over the stems; or none
licence: MIT                        # of the members' weights together
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator
from typing_extensions import Self

from separator.errors import ConfigError
from separator.schema import FROM_LIST, Count, Strict, read_yaml, validate
from separator.words import MIXTURE, nearest

NOT_STATED = "not stated"


def _as_list(value: object) -> object:
    """Let a name stand for a list of one."""
    return (value,) if isinstance(value, str) else value


def _as_names(value: object) -> object:
    """Let a list stand for a mapping of names to themselves."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: name for name in value}
    return value


# A stem's name becomes part of a file's name, so it must not hold a path separator.
Stem = Annotated[str, Field(pattern=r"^\w[\w .&()+-]*$", max_length=64)]
Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0)]
Overlap = Annotated[float, Field(ge=0, lt=1)]
Decibels = dict[str, float]

_SHA256_DIGITS = 64


class PackagedFile(Strict):
    """File in an installed package, by its path from where packages lie."""

    path: Annotated[str, Field(pattern=r"^\w[\w-]*(/\w[\w.-]*)+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Count


class PythonPackage(Strict):
    """Python package that holds a model's weights: it is looked into, and never imported.

    Attributes:
        name: as it is installed by.
        files: one, or one for each stem where the format has such files.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    files: Annotated[tuple[PackagedFile, ...], FROM_LIST, Field(min_length=1)]


class Weights(Strict):
    """Place of a model's weights, and how to know that they are the right ones.

    Attributes:
        file: path relative to the card's folder, or an absolute one.
        urls: where to download the file; the second and later ones are mirrors.
        package: what is used instead of a download where it is installed.
        sha256: 64 lower-case hexadecimal digits of the file; of one that is downloaded, as many
            of the first ones as its publisher tells (at least 8), or None.
        bytes: size of the file; None where a download's isn't known.
        format: how the file is read, see `separator.checkpoints`.
    """

    file: Text | None = None
    urls: Annotated[tuple[Text, ...], FROM_LIST] = ()
    package: PythonPackage | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")] | None = None
    bytes: Count | None = None
    format: Literal[
        "safetensors",
        "msst",
        "demucs",
        "torchaudio",
        "open_unmix",
        "bandit",
        "bytesep",
        "spleeter",
        "onnx",
    ]

    @model_validator(mode="after")
    def _one_place(self) -> Weights:
        if bool(self.file) == bool(self.urls):
            raise ValueError("give either 'file' (bundled) or 'urls' (downloaded)")
        if self.file and self.package:
            raise ValueError("a 'package' stands for a download, so give 'urls', not 'file'")
        if self.package and len(self.package.files) > 1 and self.format != "spleeter":
            raise ValueError(f"the format '{self.format}' has all stems in one file")
        return self

    @model_validator(mode="after")
    def _verifiable(self) -> Weights:
        whole = self.sha256 is not None and len(self.sha256) == _SHA256_DIGITS
        if self.file and not (whole and self.bytes):
            raise ValueError("of a bundled file, give 'sha256' (64 digits) and 'bytes'")
        return self

    @property
    def doubt(self) -> str | None:
        """What a download can't be held against; None if all is known."""
        if self.sha256 is None and self.bytes is None:
            return (
                "nobody publishes its hash or its size: that it fits its network is checked, and "
                "that later downloads are the same"
            )
        if self.sha256 is None:
            return (
                "nobody publishes its hash: its size is checked, and that later downloads are "
                "the same"
            )
        if len(self.sha256) < _SHA256_DIGITS:
            return f"only {len(self.sha256)} digits of its hash are published: they are checked"
        return None

    @field_validator("urls")
    @classmethod
    def _web_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"only http and https addresses are fetched, not '{url}'")
        return urls


class Score(Strict):
    """Published results on one data set, in dB.

    Attributes:
        definition: "uSDR" is 10 log10(|s|^2 / |s - e|^2) over a whole track, mean over tracks;
            "cSDR" is BSSEval v4, median over frames of 1 s, then median over tracks; "author" is
            a number that its author gives without saying how it was measured.
    """

    dataset: Text
    definition: Literal["uSDR", "cSDR", "author"]
    values: Decibels
    source: Text


class Entry(Strict):
    """Fields of every card, of a model or of an ensemble.

    Attributes:
        stems: names of the estimates; a model's in the network's order.
        residual: name for the mixture minus all stems, where that means something.
        sample_rate: Hz.
        note: what a user ought to know before using it, doubtful provenance for example.
        recommended: false where nobody should be led to it, because of its origin for example.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
    description: Text
    stems: Annotated[tuple[Stem, ...], FROM_LIST, Field(min_length=1)]
    residual: Stem | None = None
    sample_rate: Count = 44100
    channels: Count = 2
    licence: Text
    note: Text | None = None
    recommended: bool = True
    training_data: Text = NOT_STATED
    source: Text = NOT_STATED
    scores: Annotated[tuple[Score, ...], FROM_LIST] = ()

    _path: Path | None = PrivateAttr(default=None)

    @field_validator("stems", mode="before")
    @classmethod
    def _ordered(cls, stems: object) -> object:
        if stems == "unordered":
            raise ValueError("models whose stems have no fixed order can't be run yet")
        return stems

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [*self.stems, *([self.residual] if self.residual else [])]
        if len(set(names)) < len(names):
            raise ValueError(f"stems and residual need different names ({', '.join(names)})")
        return self

    @property
    def path(self) -> Path | None:
        """The file that the card was read from."""
        return self._path

    @property
    def folder(self) -> Path:
        """The folder that the card's relative paths start from."""
        return self._path.parent if self._path else Path()


class Card(Entry):
    """Description of one ready-to-use model: a network, its hyper-parameters and its weights.

    Attributes:
        parameters: the network's keyword arguments except stems, sample_rate and channels; files
            of the format `demucs` bring their own, which are right where these differ.
        segment: length of the pieces that the network sees at once, in seconds.
        overlap: fraction of a segment that it shares with the next, in [0, 1).
        normalization: "none", or "track": the whole track's mono mean is subtracted and its
            standard deviation divided out before the network, and both restored after.
        recipe: where segments lie and how they are weighed, see `separator.stream.segments`.
        gflops: billions of operations for a second of music in one pass without overlap.
    """

    network: Text
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    segment: Seconds
    overlap: Overlap = 0.25
    normalization: Literal["none", "track"] = "none"
    recipe: Literal["default", "demucs", "msst", "msst-flat", "spleeter"] = "default"
    gflops: Annotated[float, Field(gt=0)] | None = None
    weights: Weights

    @model_validator(mode="after")
    def _recipe_of_its_own(self) -> Card:
        if self.recipe == "spleeter" and self.network != "spleeter":
            raise ValueError("'recipe': only the network 'spleeter' can be cut like that")
        return self

    @field_validator("parameters")
    @classmethod
    def _own_fields(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name in ("stems", "sample_rate", "channels"):
            if name in parameters:
                raise ValueError(f"'{name}' is a field of the card itself, not a parameter")
        return parameters

    @property
    def inputs(self) -> int:
        """Signals that the network hears; one that hears several runs in ensembles only."""
        return int(self.parameters.get("inputs", 1))

    @property
    def segment_samples(self) -> int:
        """Return the segment's length in samples."""
        return round(self.segment * self.sample_rate)

    @property
    def bundled(self) -> Path | None:
        """Return the local weights that the card points to, or None if they are downloaded."""
        return None if self.weights.file is None else self.folder / self.weights.file

    @property
    def file_name(self) -> str:
        """Return the name of the weights' file, wherever it comes from."""
        place = self.weights.file or self.weights.urls[0]
        return PurePosixPath(place.split("?")[0]).name


class Member(Strict):
    """Contribution of a model to an ensemble.

    Attributes:
        model: name of its card.
        input: what it separates: the mixture, or a stem or residual of an earlier member; several
            for a model that hears several, of which it separates the first.
        stems: the stems that are taken from it, and their names in the ensemble; None for all,
            under their own names. Those that nobody asks for are not computed.
        residual: name for the input minus these stems, where that is wanted too.
        weights: its share in the stems of the ensemble; those left out weigh nothing. None
            stands for a weight of 1 in each.
        segment: seconds, instead of the card's; likewise `overlap` and `shifts`.
    """

    model: Text
    input: Annotated[
        tuple[Stem, ...], BeforeValidator(_as_list), FROM_LIST, Field(min_length=1)
    ] = (MIXTURE,)
    stems: Annotated[dict[Stem, Stem], BeforeValidator(_as_names), Field(min_length=1)] | None = (
        None
    )
    residual: Stem | None = None
    weights: dict[Stem, Annotated[float, Field(ge=0)]] | None = None
    segment: Seconds | None = None
    overlap: Overlap | None = None
    shifts: Annotated[int, Field(ge=0)] = 0


class Ensemble(Entry):
    """Models that work together; see `separator.zoo.members` for what must fit.

    Attributes:
        members: in the order in which they run; one may separate what an earlier one gives.
        algorithm: how several estimates of a stem become one, see `separator.ensemble.combine`.
        domain: where that happens: sample by sample, bin by bin, or inside one network that is
            made of the members' parameters, before it returns to the time domain.
        wiener: iterations of the multi-channel Wiener filter over the stems; 0 for none.
        consistency: "energy" spreads the mixture minus all stems over the stems, "none" keeps it.
    """

    members: Annotated[tuple[Member, ...], FROM_LIST, Field(min_length=1)]
    algorithm: Literal["mean", "median", "min", "max"] = "mean"
    domain: Literal["time", "stft", "network"] = "time"
    wiener: Annotated[int, Field(ge=0)] = 0
    consistency: Literal["none", "energy"] = "none"

    @model_validator(mode="after")
    def _weights_mean_something(self) -> Self:
        for i, member in enumerate(self.members):
            for stem, weight in (member.weights or {}).items():
                field = f"members.{i}.weights.{stem}"
                if stem not in self.stems:
                    known = ", ".join(self.stems)
                    close = nearest(stem, self.stems).removesuffix("?")
                    raise ValueError(f"'{field}' is no stem of the ensemble ({known}){close}")
                if self.algorithm != "mean" and weight not in (0, 1):
                    raise ValueError(
                        f"'{field}' is {weight:g}; with the algorithm '{self.algorithm}' a member "
                        "takes part (1) or not (0)"
                    )
        return self

    @model_validator(mode="after")
    def _members_run_as_one(self) -> Self:
        if self.domain != "network":
            return self
        for i, member in enumerate(self.members):
            if own := member.model_fields_set - {"model"}:
                raise ValueError(
                    f"'members.{i}.{min(own)}' can't be set with the domain 'network': its "
                    "members run as one network, each with all of its stems"
                )
        if self.consistency != "none":
            raise ValueError("'consistency' needs the domain 'time' or 'stft'")
        return self

    @model_validator(mode="after")
    def _enough_stems(self) -> Self:
        if self.wiener and len(self.stems) < 2:
            raise ValueError("'wiener' weighs stems against each other and needs at least two")
        return self


AnyCard: TypeAlias = Card | Ensemble


def parse_card(data: dict[str, Any], where: str) -> AnyCard:
    """Check a mapping against the schema: of an ensemble where it has members.

    Raises:
        ConfigError: One line that names `where` and the field.
    """
    if "members" in data:
        return validate(Ensemble, data, where)
    return validate(Card, data, where)


def read_card(path: Path) -> AnyCard:
    """Read a card from a YAML file, whose name must be the card's name.

    Raises:
        ConfigError: One line that names the file and the field.
    """
    card = parse_card(read_yaml(path), path.name)
    if card.name != path.stem:
        raise ConfigError(f"{path.name}: 'name' must be the file's name, got '{card.name}'.")
    card._path = path
    return card


def leftover_name(card: AnyCard, stems: Sequence[str]) -> str:
    """Name what chosen stems leave of the mixture: the card's word, or what people call it.

    What all of its stems leave may have a name in the card; what vocals leave is the instrumental.
    """
    if card.residual and set(stems) == set(card.stems):
        return card.residual
    return "instrumental" if {stem.lower() for stem in stems} == {"vocals"} else "residual"


def output_names(
    model: str, known: Sequence[str], stems: Sequence[str] | None, residual: str | None
) -> tuple[str, ...]:
    """Return the names of what a model gives: the chosen stems (default: all), and the residual.

    Raises:
        ConfigError: A stem that the model doesn't know, or a name used twice.

    >>> output_names("pocket", ["drums", "vocals"], ["vocals"], "instrumental")
    ('vocals', 'instrumental')
    """
    chosen = tuple(stems) if stems else tuple(known)
    for name in chosen:
        if name not in known:
            raise ConfigError(
                f"Unknown stem '{name}'; '{model}' has: {', '.join(known)}.{nearest(name, known)}"
            )
    names = (*chosen, residual) if residual else chosen
    if len(set(names)) < len(names):
        raise ConfigError(f"Each output needs a name of its own; asked for {', '.join(names)}.")
    return names
