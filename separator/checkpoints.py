"""Read weights files, ours and foreign ones, without ever running what they contain.

```
file --read_state--> {parameter: tensor} --load_state--> network
```
- `safetensors`: tensors and nothing else.
- `msst`: `.ckpt`, `.pt` and `.pth` files of Music-Source-Separation-Training and relatives. They
  are pickles, which could run any code when read; here tensors, plain containers and numpy
  numbers are let through, and a file that asks for anything else is refused.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from separator.errors import ModelError

State = dict[str, Tensor]

#: Where training programs put the parameters inside their checkpoints.
_WRAPPERS = ("model_state_dict", "state_dict", "state")
#: What wrapping a network adds in front of every key.
_PREFIXES = ("module.", "model.")
#: Parts of keys that give away graphs which look like a supported one, and are not.
_VARIANTS = {
    "lora_": "a LoRA, which only changes another checkpoint",
    "segm.": "a HyperACE variant",
    "to_value_residual_mix": "a variant with value residuals",
    "static_alpha": "a variant with hyper-connections",
    "pope_embed": "a variant with PoPE positions",
    "to_qkv.bias": "a variant with shared biases",
}
_SCALAR: Any = np.float64(0).__reduce__()[0]
#: Training programs store scores as numpy numbers; these names are all that such a number needs.
_ALLOWED: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]


def read_state(path: Path, format: str) -> State:
    """Read the parameters in a weights file; their type is left as stored.

    Args:
        path: the file.
        format: "safetensors" or "msst".

    Raises:
        ModelError: the file is damaged, asks for code to be run, or holds no parameters.
    """
    try:
        data = _read_safetensors(path) if format == "safetensors" else _read_torch(path)
    except OSError as error:
        raise ModelError(f"Can't read '{path}': {error.strerror or error}.") from error
    state = _unwrap(data)
    problem = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if problem is not None or not state:
        found = f"'{problem}' is a {type(state[problem]).__name__}" if problem else "it is empty"
        raise ModelError(f"'{path}' holds no plain set of parameters ({found}).")
    _refuse_variants(state, path)
    return state


def load_state(network: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy parameters into a network, all of them, converted to the network's types.

    Args:
        where: what the parameters came from, for the error.

    Raises:
        ModelError: keys are missing or left over, or shapes differ.
    """
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
    network.load_state_dict(dict(state))


def _summary(what: str, keys: list[str], limit: int = 3) -> str:
    if not keys:
        return ""
    more = ", ..." if len(keys) > limit else ""
    return f"{len(keys)} parameters {what} ({', '.join(keys[:limit])}{more})"


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"'{path}' is damaged or not a safetensors file ({error}).") from error


def _read_torch(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    if not is_zip:
        _require_old_torch_file(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except OSError:
        raise
    except Exception as error:  # a damaged or hostile pickle can end in any of them
        if asked := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ModelError(
                f"'{path}' asks to run '{asked[1]}' when it is read, and was refused. Get the "
                "weights as .safetensors, or as a file that holds parameters only."
            ) from None
        reason = " ".join(str(error).split())[:120]
        raise ModelError(
            f"'{path}' is damaged or not a PyTorch checkpoint ({type(error).__name__}: {reason}). "
            "Download it again."
        ) from error


def _require_old_torch_file(path: Path) -> None:
    """Refuse, before unpickling, what can't be a checkpoint: a web page, a cut zip file."""
    with path.open("rb") as file:
        start = file.read(24)
    if start.startswith(b"PK"):
        raise ModelError(f"'{path}' is cut short. Download it again.")
    if not start.startswith(b"\x80\x02"):  # pickle protocol 2, which torch.save writes
        raise ModelError(
            f"'{path}' is not a PyTorch checkpoint: it begins with {start!r}. Download it again."
        )


def _unwrap(data: Any) -> dict[str, Any]:
    """Find the parameters inside a training checkpoint, and give them their plain names."""
    while isinstance(data, Mapping):
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


def _refuse_variants(state: State, path: Path) -> None:
    for mark, meaning in _VARIANTS.items():
        found = next((key for key in state if mark in key), None)
        if found:
            raise ModelError(
                f"'{path}' is {meaning} (it has '{found}'), which can't be run. Use the plain "
                "checkpoint of the same author, if there is one."
            )
