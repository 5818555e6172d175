"""Cards by their names.

Cards are searched in the folder that came with the program and in the user's own, which
`separator.resources` knows. A card never replaces
another silently: two cards of one name are an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from separator.errors import ConfigError, ModelError
from separator.resources import card_folders
from separator.words import nearest
from separator.zoo.cards import AnyCard, read_card

#: Words before the colon of an alias, and what each promises; see `separator.zoo.recommend`.
ALIASES = {
    "best": "highest published score",
    "free": "highest score under a licence that permits commercial use",
    "fast": "highest score of those faster than real time here",
    "here": "highest score of those that need no download",
}


def list_cards(folders: Sequence[Path] | None = None) -> list[AnyCard]:
    """Read every card of `folders` (default: the bundled ones and the user's), sorted by name.

    Raises:
        ConfigError: A card breaks the schema, or two have the same name.
    """
    paths = _card_paths(folders)
    return [read_card(_only_one(paths[name])) for name in sorted(paths)]


def survey(folders: Sequence[Path] | None = None) -> tuple[list[AnyCard], list[str]]:
    """Read the cards that can be read, sorted by name; return them, and a line on each other one.

    Where two have the same name, it is the first that is returned.
    """
    cards: dict[str, AnyCard] = {}
    problems = []
    for path in _card_files(folders):
        try:
            card = read_card(path)
        except ConfigError as error:
            problems.append(str(error))
            continue
        first = cards.setdefault(card.name, card)
        if first is not card and first.path:
            problems.append(_twins(first.path, path))
    return [cards[name] for name in sorted(cards)], problems


def find_card(name: str, folders: Sequence[Path] | None = None) -> AnyCard:
    """Find a card by name, or read it from the path of a `.yaml` file or of a folder with one.

    `best:vocals` and its like stand for what `separator.zoo.recommend` recommends.

    Raises:
        ConfigError: The card breaks the schema, or two have the same name.
        ModelError: There is no such model.
    """
    paths = _card_paths(folders)
    if name in paths:
        return read_card(_only_one(paths[name]))
    if folders is None and name.partition(":")[0] in ALIASES:
        from separator.zoo.recommend import resolve_alias

        return resolve_alias(name)
    path = Path(name)
    if path.is_dir():
        return read_card(_only_card(path))
    if path.suffix in (".yaml", ".yml"):
        return read_card(path)
    hint = nearest(name, paths) or " `separator models` lists them."
    raise ModelError(f"Unknown model '{name}'; {len(paths)} are known.{hint}")


def free_name(name: str, folder: Path) -> str:
    """Return a name that no card has.

    Raises:
        ConfigError: One has.
    """
    taken = _card_paths(None) | _card_paths((folder,))
    if name in taken:
        raise ConfigError(f"There is a model '{name}' already ('{taken[name][0]}'). Choose a name.")
    return name


def _card_paths(folders: Sequence[Path] | None) -> dict[str, list[Path]]:
    """Map the names of all cards to their files, which should be one each."""
    paths: dict[str, list[Path]] = {}
    for path in _card_files(folders):
        paths.setdefault(path.stem, []).append(path)
    return paths


def _only_one(paths: Sequence[Path]) -> Path:
    """Return the card of a name.

    Raises:
        ConfigError: There are two.
    """
    if len(paths) > 1:
        raise ConfigError(_twins(*paths[:2]))
    return paths[0]


def _card_files(folders: Sequence[Path] | None) -> list[Path]:
    """List the files of all cards, folder by folder."""
    chosen = card_folders() if folders is None else folders
    return [path for folder in chosen for path in sorted(folder.glob("*.yaml"))]


def _twins(first: Path, second: Path) -> str:
    return (
        f"Two cards are called '{first.stem}': '{first}' and '{second}'. "
        "Rename one (its file and its 'name')."
    )


def _only_card(folder: Path) -> Path:
    paths = sorted(folder.glob("*.yaml"))
    if len(paths) != 1:
        raise ModelError(f"'{folder}' holds {len(paths)} cards (.yaml), expected exactly one.")
    return paths[0]
