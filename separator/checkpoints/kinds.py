"""What a file of weights is, by its first bytes and its end."""

from __future__ import annotations

import zipfile
from pathlib import Path

from separator.errors import ModelError


def check_kind(path: Path) -> str:
    """Return what kind of weights a file holds, whatever its name.

    Raises:
        ModelError: It is none that can be read, such as a web page or a file that was cut short.
    """
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise ModelError("it is cut short")
        return "torch"
    if start.startswith(b"\x80\x02"):  # pickle protocol 2, which torch.save writes
        return "torch, old"
    if start[8:9] == b"{":
        _check_safetensors(path)
        return "safetensors"
    if start.startswith(b"\x1f\x8b"):
        return "archive"
    if start.startswith(b"\x08") and start[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return "onnx"
    raise ModelError(f"it is no file of weights: it begins with {start!r}")


def _check_safetensors(path: Path) -> None:
    """Read the header, which is held against the file's length."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ModelError(f"it is damaged ({error})") from error
