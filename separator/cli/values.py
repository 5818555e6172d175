"""Turn what people type into values."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from separator.errors import ConfigError
from separator.words import nearest


def one_of(value: str, allowed: Sequence[str], option: str) -> str:
    """Return the value if it is allowed.

    Raises:
        ConfigError: It isn't; with the nearest one that is.
    """
    if value not in allowed:
        raise ConfigError(
            f"{option} is '{value}'; allowed: {', '.join(allowed)}.{nearest(value, allowed)}"
        )
    return value


def paths(inputs: Sequence[str]) -> list[Path]:
    """Return the files and folders that are named; where the shell left patterns, what they match.

    Raises:
        ConfigError: A pattern that nothing matches.
    """
    found: list[Path] = []
    for text in inputs:
        if glob.has_magic(text) and not Path(text).exists():  # a name may hold brackets, too
            matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207, absolute ones too
            if not matches:
                raise ConfigError(f"Nothing is called '{text}'; name files or folders.")
            found += map(Path, matches)
        else:
            found.append(Path(text))
    return found


def make_folder(folder: Path) -> None:
    """Make a folder for results, so that a mistake shows now and not after hours of work.

    Raises:
        ConfigError: It can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of this name" if folder.exists() else error.strerror
        raise ConfigError(
            f"The folder '{folder}' can't be made: {reason}. Choose another one."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"The folder '{folder}' can't be written to. Choose another one.")
