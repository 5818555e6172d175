"""Network architectures, one a file, built by name.

A network is an `nn.Module` with keyword arguments, the attributes `stems`, `sample_rate` and
`channels`, and `forward(mixture, *, stems=None) -> estimates`: `(batch, channels, time)` of any
length to `(batch, stems, channels, time)` of the same length. A new network is one file and one
line in `NETWORKS`.
"""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import Any, get_type_hints

from torch import nn

from separator.errors import ConfigError, ModelError
from separator.words import nearest

NETWORKS = {
    "bs_roformer": "separator.networks.roformer:BSRoformer",
    "mel_band_roformer": "separator.networks.roformer:MelBandRoformer",
    "scnet": "separator.networks.scnet:SCNet",
    "open_unmix": "separator.networks.open_unmix:OpenUnmix",
    "x_umx": "separator.networks.open_unmix:CrossUnmix",
    "spleeter": "separator.networks.spleeter:Spleeter",
    "bsrnn": "separator.networks.bsrnn:BandSplitRNN",
    "tfc_tdf": "separator.networks.tfc_tdf:TfcTdf",
    "tfc_tdf_v2": "separator.networks.tfc_tdf_v2:TfcTdfV2",
    "mdx_net": "separator.networks.mdx_net:MdxNet",
    "mdx_onnx": "separator.networks.mdx_onnx:MdxOnnx",
    "vr_aspp": "separator.networks.vr_aspp:VrAsppNet",
    "vr_lstm": "separator.networks.vr_lstm:VrLstmNet",
    "demucs": "separator.networks.demucs:Demucs",
    "hdemucs": "separator.networks.hdemucs:HDemucs",
    "htdemucs": "separator.networks.htdemucs:HTDemucs",
    "conv_tasnet": "separator.networks.conv_tasnet:ConvTasNet",
    "wave_unet": "separator.networks.wave_unet:WaveUNet",
    "resunet": "separator.networks.resunet:ResUNet",
    "complex_unet": "separator.networks.complex_unet:ComplexUNet",
}


def network_class(name: str) -> type[nn.Module]:
    """Import the class of a network.

    Raises:
        ModelError: There is no network of this name.
    """
    if name not in NETWORKS:
        raise ModelError(
            f"Unknown network '{name}'; known: {', '.join(NETWORKS)}.{nearest(name, NETWORKS)}"
        )
    module, _, attribute = NETWORKS[name].partition(":")
    cls: type[nn.Module] = getattr(import_module(module), attribute)
    return cls


def build_network(name: str, **hyperparameters: Any) -> nn.Module:
    """Build a network with random weights.

    Raises:
        ModelError: There is no network of this name.
        ConfigError: A hyper-parameter is unknown, missing, of a wrong type or has an impossible
            value.
    """
    cls = network_class(name)
    known = signature(cls).parameters
    for key in hyperparameters:
        if key not in known:
            raise ConfigError(
                f"Network '{name}' has no hyper-parameter '{key}'; it has: {', '.join(known)}."
                f"{nearest(key, known)}"
            )
    missing = [k for k, p in known.items() if p.default is p.empty and k not in hyperparameters]
    if missing:
        raise ConfigError(f"Network '{name}' needs the hyper-parameter(s) {', '.join(missing)}.")
    _check_types(name, cls, hyperparameters)
    try:
        return cls(**hyperparameters)
    except (TypeError, ValueError, ArithmeticError, IndexError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"Network '{name}' can't be built with these hyper-parameters ({reason})."
        ) from error


def _check_types(name: str, cls: type[nn.Module], hyperparameters: dict[str, Any]) -> None:
    """Hold the values against the annotations of the constructor."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    hints = get_type_hints(cls.__init__)
    for key, value in hyperparameters.items():
        try:
            TypeAdapter(hints[key], config=ConfigDict(strict=True)).validate_python(value)
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Input ")
            raise ConfigError(f"Network '{name}': '{key}' {problem}; got {value!r}.") from error
