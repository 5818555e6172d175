"""Read pickled checkpoints without ever running what they contain.

A pickle is a program: it names functions and classes, and calls them. PyTorch's restricted reader
lets tensors and plain containers through; here a short list is added to it:

- numbers of numpy, which training programs store as scores;
- arrays of numpy, as inert stand-ins that hold their numbers as a tensor;
- fractions, which Demucs keeps as hyper-parameters: read as numbers, and only when they are small;
- the classes that Demucs' files name. They become inert stand-ins: a name, and no behaviour.

A file that names anything else is refused before that is looked up, let alone called.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separator.errors import ModelError


class StandIn:
    """Foreign class of which only the name is known."""

    name: str


class Array:
    """Stand-in for an array of numpy.

    Attributes:
        values: its numbers.
    """

    values: Tensor

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        if dtype.kind not in "fiu" or type(content) is not bytes:
            raise ValueError(f"an array of {dtype}, not of plain numbers")
        numbers = np.frombuffer(bytearray(content), dtype)
        ordered = numbers.reshape(shape, order="F" if is_fortran else "C")
        self.values = torch.from_numpy(ordered)


def _array(kind: type[Array], *_: Any) -> Array:
    """Stand for numpy's function that makes an empty array, to be filled later."""
    return kind()


def _latin1(text: str, encoding: str) -> bytes:
    """Stand for `codecs.encode`: pickles of Python 2's protocol hold bytes as text."""
    if encoding != "latin1":
        raise ValueError(f"bytes as text in '{encoding}'")
    return text.encode("latin1")


#: The classes that Demucs' files name, where the published ones have them.
_CLASSES = (
    "demucs.model.Demucs",
    "demucs.demucs.Demucs",
    "demucs.hdemucs.HDemucs",
    "demucs.wdemucs.WDemucs",
    "demucs.htdemucs.HTDemucs",
    "diffq.diffq.DiffQuantizer",
)
#: Digits of numerator and denominator: Python's own fractions would count to any number.
_DIGITS = re.compile(r"\d{1,9}")


def _fraction(numerator: int | str, denominator: int = 1) -> float:
    """Stand for `fractions.Fraction`, as which newer files give two numbers and older ones text."""
    parts = [numerator, denominator] if isinstance(numerator, int) else numerator.split("/")
    if len(parts) > 2 or not all(_DIGITS.fullmatch(str(part)) for part in parts):
        raise ValueError(f"'{numerator}' is not a small fraction")
    above, below = (*map(int, parts), 1)[:2]
    return above / below


_SCALAR: Any = np.float64(0).__reduce__()[0]
_ALLOWED: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_fraction, "fractions.Fraction"),
    (Array, "numpy.ndarray"),
    (_array, "numpy.core.multiarray._reconstruct"),
    (_array, "numpy._core.multiarray._reconstruct"),
    (_latin1, "_codecs.encode"),
    *((type(name.split(".")[-1], (StandIn,), {"name": name}), name) for name in _CLASSES),
]


def read_pickle(path: Path) -> Any:
    """Read a file that `torch.save` wrote, of any version.

    Returns:
        Tensors in plain containers; an `Array` for each of numpy's; for Demucs' classes, stand-ins
        that are derived from `StandIn`.

    Raises:
        ModelError: The file is damaged, isn't one of PyTorch, or asks for code to be run.
        OSError: It can't be read.
    """
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        _refuse_compressed(path)
    else:
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


def _refuse_compressed(path: Path) -> None:
    """Refuse what would be larger in memory than on disk; `torch.save` doesn't compress."""
    try:
        with zipfile.ZipFile(path) as archive:
            inflated = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"'{path}' is damaged ({error}). Download it again.") from error
    if inflated > path.stat().st_size:
        raise ModelError(
            f"'{path}' is a compressed archive, which no training program writes. Get the weights "
            "as .safetensors."
        )


def _require_old_torch_file(path: Path) -> None:
    """Refuse, before unpickling, what can't be a checkpoint: a web page, a cut zip file."""
    with path.open("rb") as file:
        start = file.read(24)
    if not start:
        raise ModelError(f"'{path}' is empty. Download it again.")
    if start.startswith(b"PK"):
        raise ModelError(f"'{path}' is cut short. Download it again.")
    if not start.startswith(b"\x80\x02"):  # pickle protocol 2, which torch.save writes
        raise ModelError(
            f"'{path}' is not a PyTorch checkpoint: it begins with {start!r}. Download it again."
        )
