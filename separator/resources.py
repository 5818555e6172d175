"""The folders of data: those that travel with the program, the user's own, the cache.

In a checkout, an editable install and an sdist they stand beside the package (`models/`,
`configs/`); in a wheel they lie inside it (`separator/_models`, `separator/_configs`), so that
nothing called `models` is ever installed at the top level.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from separator.errors import ConfigError

#: The model of who asks for none: the best of four stems that needs no download.
DEFAULT_MODEL = "starter"
_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """Return the folder `name` ("models" or "configs") that came with this installation.

    Raises:
        ConfigError: The installation is incomplete.

    >>> (data_folder("models") / "weights").is_dir()
    True
    """
    inside, beside = _PACKAGE / f"_{name}", _PACKAGE.parent / name
    if inside.is_dir():
        return inside
    # An installed package's neighbour of this name would be somebody else's.
    if beside.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return beside
    raise ConfigError(
        f"The folder '{name}' is missing from this installation (there is neither '{inside}' nor "
        f"'{beside}'). Install separator again."
    )


def user_folder() -> Path:
    """Return the folder for the user's own cards: `$SEPARATOR_MODELS`, or that of the system.

    It need not exist.

    Raises:
        ConfigError: Nothing tells where it is: there is no home folder.
    """
    chosen = os.environ.get("SEPARATOR_MODELS")
    if chosen:
        return Path(chosen)
    import platformdirs

    return _placed(platformdirs.user_config_path, "SEPARATOR_MODELS") / "models"


def card_folders() -> list[Path]:
    """Return the folders that cards are read from: the program's own, and the user's.

    Where the system has another place for settings, cards in `~/.config` are read, too: they went
    there in earlier versions.
    """
    folders = [data_folder("models")]
    with suppress(ConfigError):  # without a home there are no cards of one's own
        folders.append(user_folder())
    if not os.environ.get("SEPARATOR_MODELS"):
        with suppress(RuntimeError):
            earlier = Path.home() / ".config" / "separator" / "models"
            if earlier not in folders and earlier.is_dir():
                folders.append(earlier)
    return folders


def cache_dir() -> Path:
    """Return the folder of downloaded weights: `$SEPARATOR_CACHE`, or the system's for caches.

    Raises:
        ConfigError: Nothing tells where it is: there is no home folder.
    """
    chosen = os.environ.get("SEPARATOR_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return _placed(platformdirs.user_cache_path, "SEPARATOR_CACHE")


def _placed(find: Callable[[str], Path], variable: str) -> Path:
    """Find a folder of this program; older libraries call an unknown home '~', right here."""
    with suppress(RuntimeError):
        folder = find("separator")
        if folder.is_absolute():
            return folder
    raise ConfigError(
        "This user has no home folder, so there is no place for models and settings; "
        f"set HOME, or {variable} to a folder."
    )
