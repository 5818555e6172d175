"""The zoo: find a model by its name, get its weights, build its network.

Cards are searched in the folder that came with the program and in the user's own,
`~/.config/separator/models` unless `$SEPARATOR_MODELS` says otherwise. A card never replaces
another silently: two cards of one name are an error.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from separator.cards import Card, read_card
from separator.errors import ConfigError, ModelError, nearest
from separator.resources import data_folder

DEFAULT_MODEL = "pocket"


def user_folder() -> Path:
    """Return the folder of the user's own cards; it need not exist."""
    chosen = os.environ.get("SEPARATOR_MODELS")
    return Path(chosen) if chosen else Path.home() / ".config" / "separator" / "models"


def list_cards(folders: Sequence[Path] | None = None) -> list[Card]:
    """Read every card of `folders` (default: the bundled ones and the user's), sorted by name.

    Raises:
        ConfigError: a card breaks the schema, or two have the same name.
    """
    return [read_card(path) for _, path in sorted(_card_paths(folders).items())]


def find_card(name: str, folders: Sequence[Path] | None = None) -> Card:
    """Find a card by name, or read it from the path of a `.yaml` file or of a folder with one.

    Raises:
        ConfigError: the card breaks the schema, or two have the same name.
        ModelError: there is no such model.
    """
    paths = _card_paths(folders)
    if name in paths:
        return read_card(paths[name])
    path = Path(name).expanduser()
    if path.is_dir():
        return read_card(_only_card(path))
    if path.suffix in (".yaml", ".yml"):
        return read_card(path)
    hint = nearest(name, paths) or " `separator models` lists them."
    raise ModelError(f"Unknown model '{name}'; {len(paths)} are known.{hint}")


def _card_paths(folders: Sequence[Path] | None) -> dict[str, Path]:
    """Map the names of all cards to their files."""
    paths: dict[str, Path] = {}
    for folder in (data_folder("models"), user_folder()) if folders is None else folders:
        for path in sorted(folder.glob("*.yaml")):
            if path.stem in paths:
                raise ConfigError(
                    f"Two cards are called '{path.stem}': '{paths[path.stem]}' and '{path}'. "
                    "Rename one (its file and its 'name')."
                )
            paths[path.stem] = path
    return paths


def _only_card(folder: Path) -> Path:
    paths = sorted(folder.glob("*.yaml"))
    if len(paths) != 1:
        raise ModelError(f"'{folder}' holds {len(paths)} cards (.yaml), expected exactly one.")
    return paths[0]
