"""`separator info`: what this installation has, and what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from separator.cli.console import line, show, table
from separator.errors import ConfigError
from separator.version import __version__

_LIBRARIES = ("torch", "numpy", "soundfile", "av", "soxr", "scipy", "pydantic", "typer")
_PARTS = {  # module: what it is for, and the extra that brings it
    "gradio": ("web app", "app"),
    "lightning": ("training", "train"),
    "torchaudio": ("reference networks", "train"),
    "museval": ("evaluation with BSSEval v4", "evaluate"),
    "matplotlib": ("plots", "evaluate"),
}


def info() -> None:
    """Show versions, devices, folders, and what is missing and how to get it."""
    rows = table("", "")
    rows.show_header = False
    for key, value in (*_versions(), *_devices(), *_folders()):
        rows.add_row(key, value)
    show(rows)
    missing = list(_missing())
    line("Nothing is missing." if not missing else "Missing, where you want it:")
    for text in missing:
        line(f"  {text}")


def _versions() -> Iterator[tuple[str, str]]:
    yield "separator", __version__
    yield "Python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    for name in _LIBRARIES:
        yield name, _version(name)


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    from separator.stream.runner import pick_device, pick_precision

    device = pick_device()
    precision = str(pick_precision("auto", device)).removeprefix("torch.")
    yield "device", f"{device} in {precision} (what auto takes)"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if torch.backends.mps.is_available():
        yield "mps", "Apple GPU"
    yield "threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"


def _folders() -> Iterator[tuple[str, str]]:
    from separator.resources import cache_dir, card_folders
    from separator.words import megabytes
    from separator.zoo.members import usable_cards
    from separator.zoo.weights import is_offline

    folders = " and ".join(map(str, card_folders()))
    yield "models", f"{len(usable_cards()[0])} in {folders}"
    try:
        cache = cache_dir()
        files = [path for path in cache.rglob("*") if path.is_file()] if cache.is_dir() else []
        yield "weights", f"{megabytes(sum(path.stat().st_size for path in files))} in {cache}"
    except ConfigError as error:
        yield "weights", str(error)
    yield "downloads", "off (SEPARATOR_OFFLINE)" if is_offline() else "on, where asked for"


def _missing() -> Iterator[str]:
    if not shutil.which("ffmpeg"):
        yield "ffmpeg (evaluation only): apt install ffmpeg, or brew install ffmpeg"
    for name, (purpose, extra) in _PARTS.items():
        if find_spec(name) is None:
            yield f"{name} ({purpose}): pip install 'separator[{extra}]'"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
