"""Read the files of Demucs: weights together with the class and the arguments that they need.

- `.th`: a pickled dictionary of `klass`, `args`, `kwargs` and `state`, in float16 or quantised by
  DiffQ; files of 2020 hold a tuple of these. The class is read as a name, see
  `separator.checkpoints.pickles`.
- `.safetensors`, published in 2026: the same as tensors and JSON in the file's metadata.

As in Demucs itself, arguments that its classes no longer know are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separator.checkpoints.demucs_formats import from_demucs_kwargs, from_demucs_v2, known_kwargs
from separator.checkpoints.diffq import dequantize, is_quantized
from separator.checkpoints.pickles import StandIn, read_pickle
from separator.checkpoints.states import refuse_unusual, without_values
from separator.errors import ModelError
from separator.networks import build_network

_NETWORKS = {
    "demucs.model.Demucs": "demucs",
    "demucs.demucs.Demucs": "demucs",
    "demucs.hdemucs.HDemucs": "hdemucs",
    "demucs.wdemucs.WDemucs": "hdemucs",
    "demucs.htdemucs.HTDemucs": "htdemucs",
}
#: What the class of 2020 does where its arguments say nothing.
_VERSION_2 = {
    "dconv_mode": 0,
    "gelu": False,
    "lstm_layers": 2,
    "context": 3,
    "norm_starts": 99,
    "resample": True,
    "normalize": False,
}
_STEMS = ("drums", "bass", "other", "vocals")
#: Seconds that a model was trained on, where its file doesn't say.
_SEGMENT = 10.0


@dataclass(frozen=True)
class Package:
    """A Demucs file in our words.

    Attributes:
        network: its name here.
        hyperparameters: the network's keyword arguments, stems and sample rate among them.
        segment: length of the pieces that the network sees at once, in seconds.
        state: the parameters, in the type in which they are stored, or float32 where quantised.
    """

    network: str
    hyperparameters: dict[str, Any]
    segment: float
    state: dict[str, Tensor]


def read_package(path: Path) -> Package:
    """Read a Demucs file.

    Raises:
        ModelError: The file is damaged, hostile, or no Demucs file.
        ConfigError: Its arguments ask for something that isn't supported.
        OSError: It can't be read.
    """
    data = _read_safetensors(path) if _is_safetensors(path) else read_pickle(path)
    try:
        class_name, args, kwargs, state = _fields(data)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"'{path}' is no Demucs file: it needs 'klass', 'args', 'kwargs' and 'state' "
            f"({type(error).__name__}: {error})."
        ) from error
    if class_name not in _NETWORKS:
        raise ModelError(f"'{path}' is of the class '{class_name}'; known: {', '.join(_NETWORKS)}.")
    network = _NETWORKS[class_name]
    arguments = {"sources": args[0] if args else _STEMS, **kwargs}
    if class_name == "demucs.model.Demucs":
        arguments, state = _VERSION_2 | arguments, from_demucs_v2(state)
    known = known_kwargs(network)
    hyperparameters = from_demucs_kwargs(
        network, {key: value for key, value in arguments.items() if key in known}
    )
    if is_quantized(state):
        shapes = _shapes(network, hyperparameters, _count(state), path.name)
        state = dequantize(state, shapes)
    elif tensors := {key: value for key, value in state.items() if isinstance(value, Tensor)}:
        refuse_unusual(tensors, path)
    return Package(network, hyperparameters, float(kwargs.get("segment", _SEGMENT)), dict(state))


def is_package(path: Path) -> bool:
    """Tell whether a file is one of Demucs'; others end in `.th` too.

    Raises:
        ModelError: It ends so, and is damaged or hostile.
        OSError: It can't be read.
    """
    if _is_safetensors(path):
        return "klass" in _metadata(path)
    if path.suffix != ".th":
        return False
    data = read_pickle(path)
    return isinstance(data, tuple) or (isinstance(data, Mapping) and "klass" in data)


def _fields(data: Any) -> tuple[str, Sequence[Any], Mapping[str, Any], Mapping[str, Any]]:
    keys = ("klass", "args", "kwargs", "state")
    klass, args, kwargs, state = data if isinstance(data, tuple) else (data[key] for key in keys)
    name = klass if isinstance(klass, str) else _name(klass)
    if len(args) > 1:
        raise ValueError(f"{len(args)} arguments have no name, one may")
    return name, list(args), dict(kwargs), dict(state)


def _name(klass: Any) -> str:
    if not (isinstance(klass, type) and issubclass(klass, StandIn)):
        raise TypeError(f"'klass' is a {type(klass).__name__}")
    return klass.name


def _count(state: Mapping[str, Any]) -> int:
    """Count the parameters of a quantised state."""
    return sum(len(state.get(key) or ()) for key in ("quantized", "others", "float16"))


def _shapes(
    network: str, hyperparameters: dict[str, Any], parameters: int, where: str
) -> dict[str, torch.Size]:
    build = partial(build_network, network, **hyperparameters)
    built = without_values(build, parameters, where=where)
    return {key: value.shape for key, value in built.state_dict().items()}


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"  # after the header's length, 8 bytes


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ModelError(f"'{path}' is damaged or not a safetensors file ({error}).") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    metadata = _metadata(path)
    state: Any = load_file(path)
    try:
        fields = {key: _plain(json.loads(metadata[key])) for key in ("args", "kwargs")}
        if "structure" in metadata:
            state = _nested(json.loads(metadata["structure"]), state)
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise ModelError(
            f"'{path}' has metadata that can't be read ({type(error).__name__}: {error})."
        ) from error
    return {**fields, "klass": metadata.get("klass"), "state": state}


def _plain(value: Any) -> Any:
    """Turn fractions, which stand in JSON as mappings, into numbers."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return value["numerator"] / value["denominator"]
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _nested(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Rebuild the containers that a safetensors file can't hold; classes become their names."""
    if not isinstance(node, dict):
        return node
    kind, content = next(iter(node.items()))
    if kind == "_tensor":
        return tensors[content]
    if kind == "_class":
        return content
    if kind == "_dict":
        return {key: _nested(item, tensors) for key, item in content}
    if kind in ("_list", "_tuple"):
        return [_nested(item, tensors) for item in content]
    raise ValueError(f"unknown node '{kind}'")
