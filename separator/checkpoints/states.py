"""Read weights files, ours and foreign ones, without ever running what they contain.

```
file --read_state--> {parameter: tensor} --load_state--> network
```
- `safetensors`: tensors and nothing else.
- `msst`: `.ckpt`, `.pt` and `.pth` files of Music-Source-Separation-Training, of SCNet's own
  program and of relatives: pickles, see `separator.checkpoints.pickles`.
- `demucs`: `.th` files of Demucs, quantised ones too, and its safetensors of 2026; see
  `separator.checkpoints.packages`.
- `torchaudio`: its pipelines' files of hybrid Demucs, which name the parameters otherwise.
- `open_unmix`: one stem's network of Open-Unmix.
- `bandit`: Lightning checkpoints of Bandit, both versions.
- `bytesep`: ResUNet143 of its authors, with the matrices of its Fourier transforms.
- `spleeter`: TensorFlow's checkpoint of Spleeter, or a file of its port to PyTorch for each stem.
- `onnx`: MDX-Net models of Ultimate Vocal Remover; the graph itself is the parameter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from separator.checkpoints.pickles import read_pickle
from separator.errors import ModelError, SeparatorError
from separator.words import one_line

State = dict[str, Tensor]

#: Where training programs put the parameters inside their checkpoints, the best ones first.
_WRAPPERS = ("best_state", "model_state_dict", "state_dict", "state", "model")
_MOST_WRAPPERS = 5
_CPU = torch.device("cpu")
#: What wrapping a network adds in front of every key.
_PREFIXES = ("module.", "model.")
#: Parts of keys that give away graphs which look like a supported one, and are not.
_VARIANTS = {
    "lora_": "a LoRA, which only changes another checkpoint",
    "segm.": "a HyperACE variant",
    "to_value_residual_mix": "a variant with value residuals",
    "static_alpha": "a variant with hyper-connections",
    "to_qkv.bias": "a variant with shared biases",
}


def read_state(
    path: Path, format: str, stems: Sequence[str] = (), others: Sequence[Path] = ()
) -> State:
    """Read the parameters in a weights file; their type is left as stored.

    Args:
        path: the file.
        format: one of `READERS`.
        stems: stems of the model; files of one stem are named by it.
        others: further files, where a format has one for each stem.

    Raises:
        ModelError: The file is damaged, asks for code to be run, or holds no parameters.
        ConfigError: A Demucs file's arguments ask for something that isn't supported.
    """
    with guarded(path):
        state = READERS[format](path, *others)
    problem = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if problem is not None or not state:
        found = f"'{problem}' is a {type(state[problem]).__name__}" if problem else "it is empty"
        raise ModelError(f"'{path}' holds no plain set of parameters ({found}).")
    refuse_unusual(state, path)
    _refuse_variants(state, path)
    return name_target(state, stems[0]) if format == "open_unmix" and stems else state


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or hostile file makes its reader raise into one line.

    Raises:
        ModelError: The file can't be read or understood.
    """
    try:
        yield
    except SeparatorError:
        raise
    except OSError as error:
        raise ModelError(f"Can't read '{path}': {error.strerror or error}.") from error
    except Exception as error:
        reason = one_line(error)[:120]
        raise ModelError(
            f"'{path}' is damaged, or no file of its kind ({type(error).__name__}: {reason})."
        ) from error


def check_fit(build: Callable[[], nn.Module], state: Mapping[str, Tensor], *, where: str) -> None:
    """Compare parameters with a network's by shape alone, before the network takes any memory.

    Args:
        build: Builds the network.
        state: Parameters of a file that nobody vouches for, its hyper-parameters included.
        where: Source of the parameters, for the error.

    Raises:
        ModelError: The network would have far more parameters than the file, or others.
        ConfigError: A hyper-parameter is unknown or impossible.
    """
    _compare(without_values(build, len(state), where=where), state, where)


def without_values(build: Callable[[], nn.Module], parameters: int, *, where: str) -> nn.Module:
    """Build a network that has shapes and no values.

    Args:
        build: Builds the network.
        parameters: Number of those that there are values for.
        where: Source of the hyper-parameters, for the error.

    Raises:
        ModelError: The network would have far more parameters.
        ConfigError: A hyper-parameter is unknown or impossible.
    """
    most, here = 2 * parameters + 100, threading.get_ident()
    count = 0

    def note(*_: object) -> None:
        nonlocal count
        if threading.get_ident() == here:
            count += 1
            if count > most:
                raise _TooMany

    hook = register_module_parameter_registration_hook(note)
    try:
        with torch.device("meta"):
            return build()
    except _TooMany:
        raise ModelError(
            f"The hyper-parameters of '{where}' ask for more than {most} parameters, the file has "
            f"{parameters}: it is damaged."
        ) from None
    finally:
        hook.remove()


class _TooMany(BaseException):
    """More parameters than a file can fill; no error of a network, which would be caught."""


def name_target(state: Mapping[str, Tensor], stem: str) -> State:
    """Give the parameters of one of Open-Unmix' files the names that they have beside others.

    >>> list(name_target({"fc1.weight": 0, "stft.window": 0, "sample_rate": 0}, "vocals"))
    ['target_models.vocals.fc1.weight']
    """
    derived = ("sample_rate", "stft.window", "transform.0.window")  # in files of 2019
    return {
        f"target_models.{stem}.{key}": value for key, value in state.items() if key not in derived
    }


def load_state(network: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy parameters into a network, all of them, converted to the network's types.

    Args:
        where: what the parameters came from, for the error.

    Raises:
        ModelError: Keys are missing or left over, or shapes differ.
    """
    _compare(network, state, where)
    network.load_state_dict(dict(state))


def _compare(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    own = network.state_dict()
    problems = [
        _summary("missing", [key for key in own if key not in state]),
        _summary("unknown", [key for key in state if key not in own]),
        _summary(
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
                for key in own
                if key in state and state[key].shape != own[key].shape
            ],
        ),
    ]
    if told := [problem for problem in problems if problem]:
        raise ModelError(
            f"The weights of '{where}' don't fit {type(network).__name__}: {'; '.join(told)}. "
            "Its hyper-parameters or its architecture are others."
        )


def _summary(what: str, keys: list[str], limit: int = 3) -> str:
    if not keys:
        return ""
    more = ", ..." if len(keys) > limit else ""
    count = "1 parameter" if len(keys) == 1 else f"{len(keys)} parameters"
    return f"{count} {what} ({', '.join(keys[:limit])}{more})"


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"'{path}' is damaged or not a safetensors file ({error}).") from error


def _read_torch(path: Path) -> dict[str, Any]:
    return _unwrap(read_pickle(path))


def _read_either(path: Path) -> dict[str, Any]:
    is_safe = path.suffix == ".safetensors"
    return _unwrap(_read_safetensors(path)) if is_safe else _read_torch(path)


def _read_demucs(path: Path) -> dict[str, Any]:
    from separator.checkpoints.packages import read_package

    return read_package(path).state


def _read_torchaudio(path: Path) -> dict[str, Any]:
    from separator.checkpoints.demucs_formats import from_torchaudio

    return _translated(path, from_torchaudio)


def _read_bandit(path: Path) -> dict[str, Any]:
    from separator.checkpoints.bandit import from_bandit

    return _translated(path, from_bandit)


def _read_bytesep(path: Path) -> dict[str, Any]:
    from separator.networks.resunet import from_bytesep

    return _translated(path, from_bytesep)


def _read_spleeter(*paths: Path) -> dict[str, Any]:
    from separator.checkpoints.spleeter import read_spleeter

    return dict(read_spleeter(*paths))


def _read_onnx(path: Path) -> dict[str, Any]:
    from separator.checkpoints.mdx_onnx import read_graph

    return dict(read_graph(path))


def _translated(path: Path, translate: Callable[[State], State]) -> State:
    state = _read_either(path)
    try:
        return translate(state)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"'{path}' lacks the keys of its format ({type(error).__name__}: {error})."
        ) from error


#: How files become parameters under the names used here.
READERS: dict[str, Callable[..., dict[str, Any]]] = {
    "safetensors": lambda path: _unwrap(_read_safetensors(path)),
    "msst": _read_torch,
    "demucs": _read_demucs,
    "torchaudio": _read_torchaudio,
    "open_unmix": _read_either,
    "bandit": _read_bandit,
    "bytesep": _read_bytesep,
    "spleeter": _read_spleeter,
    "onnx": _read_onnx,
}


def _unwrap(data: Any) -> dict[str, Any]:
    """Find the parameters inside a training checkpoint, and give them their plain names."""
    for _ in range(_MOST_WRAPPERS):  # one may hold itself
        if not isinstance(data, Mapping):
            break
        inner = next((data[key] for key in _WRAPPERS if isinstance(data.get(key), Mapping)), None)
        if inner is None:
            break
        data = inner
    if not isinstance(data, Mapping):
        return {"": data}
    state = {str(key): value for key, value in data.items()}
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def refuse_unusual(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that aren't a plain stretch of the file: they may grow when they are used.

    Raises:
        ModelError: A tensor is sparse, repeats its values, or has none.
    """
    for key, value in state.items():
        plain = value.layout == torch.strided and not value.is_quantized and value.device == _CPU
        if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ModelError(
                f"'{path}' holds '{key}' in a form that no training program writes (sparse, "
                "repeated or without values); save it as plain tensors."
            )


def _refuse_variants(state: State, path: Path) -> None:
    for mark, meaning in _VARIANTS.items():
        found = next((key for key in state if mark in key), None)
        if found:
            raise ModelError(
                f"'{path}' is {meaning} (it has '{found}'), which can't be run. Use the plain "
                "checkpoint of the same author, if there is one."
            )
