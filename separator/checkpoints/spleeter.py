"""Read the weights of Spleeter: TensorFlow's checkpoint, and the files of its port to PyTorch.

TensorFlow numbers the layers of all U-Nets one after another, in the order of the stems; the port
has a file for each stem, a dictionary of numpy arrays. Kernels are turned by 180 degrees here, see
`separator.networks.spleeter`.

    TensorFlow                         here, of the first stem
    conv2d .. conv2d_5                 unets.0.down.0.conv .. unets.0.down.5.conv
    batch_normalization .. _5          unets.0.down.0.norm .. unets.0.down.5.norm
    conv2d_transpose .. _5             unets.0.up.0.conv .. unets.0.up.5.conv
    batch_normalization_6 .. _11       unets.0.up.0.norm .. unets.0.up.5.norm
    conv2d_6                           unets.0.mask
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from separator.checkpoints.family import ForeignModel
from separator.checkpoints.pickles import Array, read_pickle
from separator.checkpoints.states import guarded
from separator.checkpoints.tensor_bundle import read_bundle
from separator.errors import ConfigError
from separator.networks.states import numbered
from separator.schema import Count, read_json, validate

#: Stems of the public models by their number, and how they differ from the network's defaults.
_ELU = {"down_activation": "elu", "up_activation": "elu"}
_PUBLIC: dict[int, tuple[tuple[str, ...], dict[str, Any]]] = {
    2: (("vocals", "accompaniment"), {}),
    4: (("vocals", "drums", "bass", "other"), _ELU),
    5: (("vocals", "piano", "drums", "bass", "other"), {**_ELU, "softmax": True}),
}
#: Layers of a U-Net that halve the resolution.
_DEPTH = 6
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
#: What training keeps beside the parameters.
_OPTIMISER = re.compile(r"global_step|beta\d_power.*|.*/(Adam(_\d+)?|Adadelta(_\d+)?)")
_KERAS = re.compile(r"(conv2d|conv2d_transpose|batch_normalization)(?:_(\d+))?/(\w+)")
_PORT = re.compile(r"(down|up)(\d)(?:_(?:conv|act))?\.(\d)\.(\w+)")


def is_spleeter(path: Path) -> bool:
    """Tell by its name whether a file may be a TensorFlow checkpoint, or an archive of one."""
    return path.suffix == ".index" or path.name.endswith(".tar.gz")


def read_spleeter(*paths: Path) -> dict[str, Tensor]:
    """Read the U-Nets of all stems: of one checkpoint, or of a file for each stem.

    Raises:
        ModelError: A file can't be read, is damaged, asks for code to be run, or is no Spleeter.
    """
    if is_spleeter(paths[0]):
        tensors = read_bundle(paths[0])
        with guarded(paths[0]):
            return from_tensorflow(tensors)
    state: dict[str, Tensor] = {}
    for stem, path in enumerate(paths):
        with guarded(path):
            found = from_port(read_pickle(path))
        state |= {f"unets.{stem}.{key}": value for key, value in found.items()}
    return state


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Parameters(_Section):
    conv_activation: str = "LeakyReLU"
    deconv_activation: str = "ReLU"


class _Network(_Section):
    type: Literal["unet.unet", "unet.softmax_unet"]
    params: _Parameters


class _Settings(_Section):
    """What of Spleeter's own JSON its weights don't tell."""

    instrument_list: Annotated[list[str], Field(min_length=1)]
    sample_rate: Count
    frame_length: Literal[4096]
    frame_step: Literal[1024]
    T: Count
    F: Count
    separation_exponent: Annotated[float, Field(gt=0)] | Count
    mask_extension: Literal["zeros", "average"]
    model: _Network

    @property
    def parameters(self) -> dict[str, Any]:
        """Arguments of the network."""
        given = self.model.params
        down = {"ReLU": "relu", "ELU": "elu"}.get(given.conv_activation, "leaky_relu")
        up = {"LeakyReLU": "leaky_relu", "ELU": "elu"}.get(given.deconv_activation, "relu")
        return {
            "bins": self.F,
            "chunk_frames": self.T,
            "down_activation": down,
            "up_activation": up,
            "softmax": self.model.type == "unet.softmax_unet",
            "extension": self.mask_extension,
            "power": float(self.separation_exponent),
        }


def read_spleeter_model(
    path: Path, config: Path | None = None
) -> tuple[ForeignModel, dict[str, Tensor]]:
    """Understand a TensorFlow checkpoint of Spleeter.

    Args:
        path: its `.index`, or a `.tar.gz` that holds it.
        config: the JSON of its model; a public one needs none.

    Raises:
        ModelError: It can't be read, is damaged or another network's.
        ConfigError: It has as many stems as no public model, and no JSON.
    """
    state = read_spleeter(path)
    count = numbered(state, "unets.")
    rate, chunk = 44100, 512
    if config is not None:
        settings = validate(_Settings, read_json(config), config.name)
        stems, parameters = tuple(settings.instrument_list), settings.parameters
        rate, chunk = settings.sample_rate, settings.T
    elif count in _PUBLIC:
        stems, parameters = _PUBLIC[count]
    else:
        raise ConfigError(
            f"'{path.name}' has {count} stems, as no public model of Spleeter: give its JSON, too."
        )
    widths = [len(state.get(f"unets.0.down.{i}.conv.bias", ())) for i in range(_DEPTH)]
    model = ForeignModel(
        network="spleeter",
        parameters={"widths": widths, **parameters},
        stems=stems,
        sample_rate=rate,
        channels=len(state.get("unets.0.mask.bias", ())),
        segment=round(chunk * 1024 / rate, 6),
        format="safetensors",
        overlap=0.0,
        recipe="spleeter",
    )
    model.check(state, path.name)
    return model, state


def from_tensorflow(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the parameters of TensorFlow's checkpoint as here.

    Raises:
        ValueError: One belongs to another network.

    >>> import torch
    >>> list(from_tensorflow({"conv2d_13/bias": torch.ones(2), "global_step": torch.ones(1)}))
    ['unets.1.mask.bias']
    """
    state = {}
    for name, value in tensors.items():
        if _OPTIMISER.fullmatch(name):
            continue
        match = _KERAS.fullmatch(name)
        if match is None:
            raise ValueError(f"Spleeter has no '{name}'")
        layer, number, part = match[1], int(match[2] or 0), match[3]
        per_stem = {"conv2d": _DEPTH + 1, "conv2d_transpose": _DEPTH}.get(layer, 2 * _DEPTH)
        stem, index = divmod(number, per_stem)
        if layer == "batch_normalization":
            side, index = ("down", index) if index < _DEPTH else ("up", index - _DEPTH)
            if part not in _NORM:
                raise ValueError(f"Spleeter has no '{name}'")
            state[f"unets.{stem}.{side}.{index}.norm.{_NORM[part]}"] = value
            continue
        if part not in ("kernel", "bias"):
            raise ValueError(f"Spleeter has no '{name}'")
        side = "up" if layer == "conv2d_transpose" else "down"
        own = "mask" if (side, index) == ("down", _DEPTH) else f"{side}.{index}.conv"
        if part == "bias":
            state[f"unets.{stem}.{own}.bias"] = value
        elif value.ndim != 4:
            raise ValueError(f"'{name}' has {value.ndim} axes")
        else:  # height, width, then inputs and outputs; the other way round if transposed
            state[f"unets.{stem}.{own}.weight"] = _turned(value.permute(3, 2, 0, 1))
    return state


def from_port(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name the parameters of a file of the port as here, without their stem.

    Raises:
        ValueError: One belongs to another network.

    >>> import torch
    >>> list(from_port({"down2_conv.1.bias": torch.ones(2), "up1.3.weight": torch.ones(2)}))
    ['down.1.conv.bias', 'up.0.norm.weight']
    """
    state = {}
    for name, array in arrays.items():
        match = _PORT.fullmatch(name)
        if match is None:
            raise ValueError(f"Spleeter has no '{name}'")
        side, number, place, part = match[1], int(match[2]), match[3], match[4]
        kind = "norm" if (side, place) in (("down", "0"), ("up", "3")) else "conv"
        own = "mask" if (side, number) == ("up", _DEPTH + 1) else f"{side}.{number - 1}.{kind}"
        value = array.values if isinstance(array, Array) else array
        if not isinstance(value, Tensor):
            raise ValueError(f"'{name}' is a {type(value).__name__}")
        state[f"{own}.{part}"] = _turned(value) if value.ndim == 4 else value
    return state


def _turned(kernel: Tensor) -> Tensor:
    return kernel.flip(-2, -1)
