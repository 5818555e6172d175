"""The folders of data: those that travel with the program, the user's own, the cache.

In a checkout, an editable install and an sdist they stand beside the package (`models/`,
`configs/`); in a wheel they lie inside it (`separator/_models`, `separator/_configs`), so that
nothing called `models` is ever installed at the top level.
"""

import os
from pathlib import Path

from separator.errors import ConfigError

#: The model that came with this installation.
DEFAULT_MODEL = "pocket"
_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """Return the folder `name` ("models" or "configs") that came with this installation.

    Raises:
        ConfigError: the installation is incomplete.

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
    """Return the folder of the user's own cards; it need not exist."""
    chosen = os.environ.get("SEPARATOR_MODELS")
    return Path(chosen) if chosen else Path.home() / ".config" / "separator" / "models"


def cache_dir() -> Path:
    """Return the folder of downloaded weights: `$SEPARATOR_CACHE`, or the platform's cache."""
    chosen = os.environ.get("SEPARATOR_CACHE")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("separator"))
