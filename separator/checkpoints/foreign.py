"""Understand the models of other programs: what they are, from their files.

- a checkpoint and the YAML of Music-Source-Separation-Training: see `separator.checkpoints.msst`;
- a Demucs file, which holds all that is needed: see `separator.checkpoints.packages`;
- an MDX-Net of Ultimate Vocal Remover, whose checksum tells all that its graph doesn't;
- one of its older networks, see `separator.checkpoints.vocal_remover`;
- a checkpoint whose shapes tell the rest, such as one of torchaudio's pipelines;
- a bag of Demucs files, that is a YAML that names them and their weights;
- a folder of Open-Unmix: a file for each stem, and `separator.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from separator.checkpoints.families import family_of
from separator.checkpoints.family import ForeignModel
from separator.checkpoints.mdx_onnx import identify
from separator.checkpoints.msst import read_msst
from separator.checkpoints.packages import is_package, read_package
from separator.checkpoints.states import State, guarded, name_target, read_state
from separator.checkpoints.vocal_remover import is_cascade, read_cascade
from separator.errors import ConfigError, ModelError
from separator.networks.open_unmix import infer_hyperparameters
from separator.schema import Strict, read_yaml, validate


def read_foreign(
    checkpoint: Path, config: Path | None = None, stems: tuple[str, ...] = ()
) -> ForeignModel:
    """Understand one checkpoint, and check that its weights fit the network.

    Args:
        checkpoint: the weights.
        config: the YAML that belongs to them, or the JSON, where their program has one.
        stems: names of the estimates, where neither the files nor their program name them.

    Raises:
        ModelError: The checkpoint is damaged, hostile, of an unknown architecture, or doesn't fit.
        ConfigError: Something is missing that only the user knows, or isn't supported.
    """
    with guarded(checkpoint):
        if config is not None and config.suffix == ".json":
            return _cascade(checkpoint, config, stems)
        if config is not None:
            return _renamed(read_msst(checkpoint, config), stems, checkpoint)
        model, state = _reader(checkpoint)(checkpoint, stems)
        model.check(state, checkpoint.name)
    return model


def _cascade(checkpoint: Path, config: Path, stems: tuple[str, ...]) -> ForeignModel:
    """Read a network of Ultimate Vocal Remover with the JSON of its bands."""
    format = "safetensors" if checkpoint.suffix == ".safetensors" else "msst"
    state = read_state(checkpoint, format)
    if not is_cascade(state):
        raise ConfigError(
            f"'{config.name}' is for networks of vocal-remover, '{checkpoint.name}' is none. Give "
            "the YAML that belongs to it."
        )
    model = read_cascade(checkpoint, state, config, stems)
    model.check(state, checkpoint.name)
    return replace(model, format=format)


def _reader(checkpoint: Path) -> Callable[[Path, tuple[str, ...]], tuple[ForeignModel, State]]:
    if checkpoint.suffix == ".onnx":
        return _from_onnx
    return _from_package if is_package(checkpoint) else _from_shapes


def _from_onnx(checkpoint: Path, stems: tuple[str, ...]) -> tuple[ForeignModel, State]:
    stem, parameters = identify(checkpoint)
    model = ForeignModel(
        network="mdx_onnx",
        parameters=parameters,
        stems=(stem,),
        sample_rate=44100,
        channels=2,
        segment=10.0,
        format="onnx",
    )
    return _renamed(model, stems, checkpoint), read_state(checkpoint, "onnx")


def _from_package(checkpoint: Path, stems: tuple[str, ...]) -> tuple[ForeignModel, State]:
    package = read_package(checkpoint)
    ours = {"sample_rate": 44100, "channels": 2} | package.hyperparameters
    model = ForeignModel(
        network=package.network,
        stems=tuple(ours.pop("stems")),
        sample_rate=ours.pop("sample_rate"),
        channels=ours.pop("channels"),
        parameters=ours,
        segment=package.segment,
        format="demucs",
        normalization="track",
        recipe="demucs",
    )
    return _renamed(model, stems, checkpoint), package.state


def _from_shapes(checkpoint: Path, stems: tuple[str, ...]) -> tuple[ForeignModel, State]:
    format = "safetensors" if checkpoint.suffix == ".safetensors" else "msst"
    state = read_state(checkpoint, format)
    if "fc1.weight" in state and "output_mean" in state:
        return _from_target(checkpoint, state, stems)
    if is_cascade(state):
        return replace(read_cascade(checkpoint, state, None, stems), format=format), state
    family = family_of(state, checkpoint.name)
    state = family.converted(state, checkpoint.name)
    given = {**family.defaults, "sample_rate": family.sample_rate}
    found = family.parameters(state, given, checkpoint.name)
    names = found.names or stems or family.usual_stems
    if len(names) != found.stems:
        raise ConfigError(
            f"'{checkpoint.name}' has {found.stems} stems, "
            f"{f'named are {len(names)}' if names else 'and nothing names them'}. Give the YAML "
            "file that belongs to it, or as many names with --stems."
        )
    model = ForeignModel(
        network=family.network,
        parameters=found.parameters,
        stems=names,
        sample_rate=family.sample_rate,
        channels=found.channels,
        segment=family.segment,
        format=format if family.format == "msst" else family.format,
    )
    return model, state


def _from_target(
    checkpoint: Path, state: State, stems: tuple[str, ...]
) -> tuple[ForeignModel, State]:
    """Read one of Open-Unmix' networks; unless told, its file is named after the stem."""
    stem = stems[0] if stems else checkpoint.stem.split("-")[0].split("_")[0]
    return _unmix({stem: state}, sample_rate=44100, format="open_unmix")


def _unmix(
    states: dict[str, State], *, sample_rate: int, format: str, **parameters: Any
) -> tuple[ForeignModel, State]:
    """Put networks of Open-Unmix, by stem, together."""
    state = {
        key: value for stem, own in states.items() for key, value in name_target(own, stem).items()
    }
    try:
        found = infer_hyperparameters(state)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ModelError(
            f"'{next(iter(states))}' is no network of Open-Unmix ({error})."
        ) from error
    del found["stem_count"]
    model = ForeignModel(
        network="open_unmix",
        stems=tuple(found.pop("stems")),
        channels=found.pop("channels"),
        sample_rate=sample_rate,
        parameters={"hop_length": found["n_fft"] // 4} | found | parameters,
        segment=10.0,
        format=format,
    )
    return model, state


def _renamed(model: ForeignModel, stems: tuple[str, ...], checkpoint: Path) -> ForeignModel:
    if not stems or stems == model.stems:
        return model
    if len(stems) != len(model.stems) or model.format == "bandit":
        raise ConfigError(
            f"'{checkpoint.name}' has the stems {', '.join(model.stems)}; "
            f"{', '.join(stems)} can't take their names."
        )
    return replace(model, stems=stems)


class _Bag(Strict):
    models: Annotated[list[str], Field(min_length=1)]
    weights: list[list[Annotated[float, Field(ge=0)]]] | None = None
    segment: Annotated[float, Field(gt=0)] | int | None = None


@dataclass(frozen=True)
class Bag:
    """Several Demucs files that work together.

    Attributes:
        files: their paths, one more than once where the bag repeats it.
        weights: weights of each file's stems, in their order; None for equal ones.
        segment: seconds, instead of what the files say.
    """

    files: tuple[Path, ...]
    weights: tuple[tuple[float, ...], ...] | None
    segment: float | None


def read_bag(path: Path) -> Bag:
    """Read the YAML of a bag of Demucs models, whose files lie beside it.

    Raises:
        ConfigError: The YAML isn't one of a bag.
        ModelError: A file is missing.
    """
    bag = validate(_Bag, read_yaml(path), path.name)
    if bag.weights is not None and len(bag.weights) != len(bag.models):
        raise ConfigError(
            f"{path.name}: 'weights' has {len(bag.weights)} rows for {len(bag.models)} models."
        )
    return Bag(
        files=tuple(_beside(path, signature) for signature in bag.models),
        weights=None if bag.weights is None else tuple(map(tuple, bag.weights)),
        segment=None if bag.segment is None else float(bag.segment),
    )


def _beside(path: Path, signature: str) -> Path:
    """Find `signature.safetensors`, `signature.th` or `signature-hash.th`."""
    if signature.isalnum():
        for pattern in ("{}.safetensors", "{}.th", "{}-*.th"):
            if found := sorted(path.parent.glob(pattern.format(signature))):
                return found[0]
    raise ModelError(
        f"'{path.name}' names the model '{signature}', but beside it there is no file "
        f"'{signature}.safetensors' or '{signature}-....th'. Put it there."
    )


class _Separator(Strict):
    """The part of Open-Unmix' `separator.json` that shapes don't tell."""

    sample_rate: Annotated[float, Field(gt=0)] | int = 44100
    nhop: Annotated[int, Field(gt=0)] = 1024


def read_folder(folder: Path) -> tuple[ForeignModel, State]:
    """Read a folder of Open-Unmix: `separator.json`, and for each stem `NAME.json`, `NAME....pth`.

    Raises:
        ModelError: A file is missing, damaged or hostile, or the networks don't go together.
        ConfigError: `separator.json` can't be read.
    """
    with guarded(folder):
        return _read_folder(folder)


def _read_folder(folder: Path) -> tuple[ForeignModel, State]:
    settings = _settings(folder)
    names = sorted(path.stem for path in folder.glob("*.json") if path.stem != "separator")
    found = {name: sorted(folder.glob(f"{name}*.pth")) for name in names}
    files = {name: paths[0] for name, paths in found.items() if paths}
    if not files:
        raise ModelError(f"'{folder}' holds no stem: there is no NAME.pth with its NAME.json.")
    model, state = _unmix(
        {name: read_state(path, "open_unmix") for name, path in files.items()},
        sample_rate=int(settings.sample_rate),
        format="safetensors",
        hop_length=settings.nhop,
    )
    model.check(state, folder.name)
    return model, state


def _settings(folder: Path) -> _Separator:
    path = folder / "separator.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"'{folder}' is no folder of Open-Unmix: can't read '{path.name}' ({error.strerror})."
        ) from error
    except ValueError as error:
        raise ConfigError(f"'{path}' is not valid JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ConfigError(f"'{path}' holds {type(data).__name__}, expected a mapping.")
    known = _Separator.model_fields
    return validate(_Separator, {key: data[key] for key in known if key in data}, path.name)
