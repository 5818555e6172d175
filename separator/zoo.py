"""The zoo: find a model by its name, get its weights, build its network.

Cards are searched in the folder that came with the program and in the user's own,
`~/.config/separator/models` unless `$SEPARATOR_MODELS` says otherwise. A card never replaces
another silently: two cards of one name are an error.

```
find_card(name) -> Card -> weights_path(card) -> load_network(card)
                           bundled, cached or downloaded; always verified
```
"""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from separator.cards import AnyCard, Card, Ensemble, read_card
from separator.downloads import Progress, fetch, megabytes, sha256_of
from separator.errors import ConfigError, ModelError, nearest
from separator.resources import data_folder

if TYPE_CHECKING:  # listing models must not wait for torch
    from torch import nn

    from separator.checkpoints.states import State

DEFAULT_MODEL = "pocket"


def user_folder() -> Path:
    """Return the folder of the user's own cards; it need not exist."""
    chosen = os.environ.get("SEPARATOR_MODELS")
    return Path(chosen) if chosen else Path.home() / ".config" / "separator" / "models"


def list_cards(folders: Sequence[Path] | None = None) -> list[AnyCard]:
    """Read every card of `folders` (default: the bundled ones and the user's), sorted by name.

    Raises:
        ConfigError: a card breaks the schema, or two have the same name.
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

    Raises:
        ConfigError: the card breaks the schema, or two have the same name.
        ModelError: there is no such model.
    """
    paths = _card_paths(folders)
    if name in paths:
        return read_card(_only_one(paths[name]))
    path = Path(name)
    if path.is_dir():
        return read_card(_only_card(path))
    if path.suffix in (".yaml", ".yml"):
        return read_card(path)
    hint = nearest(name, paths) or " `separator models` lists them."
    raise ModelError(f"Unknown model '{name}'; {len(paths)} are known.{hint}")


def cache_dir() -> Path:
    """Return the folder of downloaded weights: `$SEPARATOR_CACHE`, or the platform's cache."""
    chosen = os.environ.get("SEPARATOR_CACHE")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("separator"))


def is_offline() -> bool:
    """Tell whether `$SEPARATOR_OFFLINE` forbids downloads."""
    return os.environ.get("SEPARATOR_OFFLINE", "").lower() not in ("", "0", "false", "no")


def local_path(card: Card) -> Path:
    """Return where the weights of `card` are, or will be once downloaded."""
    if bundled := card.bundled:
        return bundled
    suffix = PurePosixPath(card.file_name).suffix
    # Part of the hash is in the name: a card with other weights never finds the old ones.
    mark = (card.weights.sha256 or str(card.weights.bytes or "unknown"))[:8]
    return cache_dir() / f"{card.name}-{mark}{suffix}"


def is_available(card: Card) -> bool:
    """Tell whether the weights are here, by their size; no hash is computed."""
    path = local_path(card)
    return path.is_file() and path.stat().st_size == (card.weights.bytes or path.stat().st_size)


def weights_path(
    card: Card,
    *,
    offline: bool | None = None,
    verify: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return the verified weights of `card`, downloaded if they are not here yet.

    Args:
        offline: never download; None asks `$SEPARATOR_OFFLINE`.
        verify: compute the hash again even if this very file has been verified before.
        progress: called with (bytes that arrived, bytes in total) during a download.

    Raises:
        ModelError: the weights are missing, can't be downloaded, or are not the right ones.
    """
    path = local_path(card)
    if path.is_file():
        _check(path, card, verify)
        return path
    if card.bundled:
        raise ModelError(f"The weights of '{card.name}' are missing: there is no file '{path}'.")
    if is_offline() if offline is None else offline:
        raise ModelError(
            f"The weights of '{card.name}' ({megabytes(card.weights.bytes)}) are not here and "
            f"downloads are off. Run `separator models download {card.name}` while online."
        )
    return download(card, progress=progress)


def download(card: Card, *, progress: Progress | None = None) -> Path:
    """Fetch the weights of `card` into the cache: resumed if cut before, verified, whole.

    Raises:
        ModelError: no address gives the right bytes, or the disk doesn't take them.
    """
    if card.bundled:
        return weights_path(card)
    weights = card.weights
    path = fetch(
        weights.urls,
        local_path(card),
        sha256=weights.sha256,
        size=weights.bytes,
        progress=progress,
    )
    if weights.sha256 is not None:
        _remember(path, weights.sha256)
    return path


def load_network(
    card: Card, *, offline: bool | None = None, progress: Progress | None = None
) -> "nn.Module":
    """Build the network of `card` with its weights, in float32, ready for inference.

    Raises:
        ModelError: the weights can't be had, can't be read, or don't fit the network.
        ConfigError: the network or one of its hyper-parameters is unknown.
    """
    return _built(*read_model(card, offline=offline, progress=progress))


def load_joined(
    ensemble: Ensemble, cards: Sequence[Card], *, offline: bool | None = None
) -> "nn.Module":
    """Build one network out of models that are alike in all but their stems and weights.

    Its parameters are theirs together, and its Wiener filter is the ensemble's.

    Raises:
        ModelError, ConfigError: as in `load_network`; such a network can't be made of these.
    """
    parts = [read_model(card, offline=offline) for card in cards]
    joined = {
        "name": ensemble.name,
        "stems": tuple(stem for card, _ in parts for stem in card.stems),
        "parameters": parts[0][0].parameters | {"wiener_iterations": ensemble.wiener},
    }
    state = {key: value for _, own in parts for key, value in own.items()}
    return _built(parts[0][0].model_copy(update=joined), state)


def _built(card: Card, state: "State") -> "nn.Module":
    from separator.checkpoints.states import load_state

    network = build(card)
    load_state(network, state, where=card.name)
    return network.eval()


def read_model(
    card: Card, *, offline: bool | None = None, progress: Progress | None = None
) -> "tuple[Card, State]":
    """Return a model's card, with the hyper-parameters that stand in its file, and its weights.

    Raises:
        ModelError: the weights can't be had or can't be read, or are another network's.
    """
    path = weights_path(card, offline=offline, progress=progress)
    if card.weights.format == "demucs":
        return _unpacked(card, path)
    from separator.checkpoints.states import read_state

    return card, read_state(path, card.weights.format, card.stems)


def _unpacked(card: Card, path: Path) -> "tuple[Card, State]":
    """Read a Demucs file, and the card with the hyper-parameters that stand in the file."""
    from separator.checkpoints.packages import read_package

    try:
        package = read_package(path)
    except OSError as error:
        raise ModelError(f"Can't read '{path}': {error.strerror or error}.") from error
    if package.network != card.network:
        raise ModelError(
            f"'{path}' holds the network '{package.network}', '{card.name}' says '{card.network}'."
        )
    own = ("stems", "sample_rate", "channels")
    parameters = {k: value for k, value in package.hyperparameters.items() if k not in own}
    return card.model_copy(update={"parameters": parameters}), package.state


def build(card: Card) -> "nn.Module":
    """Build the network of `card` with random weights.

    Raises:
        ConfigError: the network or one of its hyper-parameters is unknown.
    """
    from separator.networks import build_network

    return build_network(
        card.network,
        stems=card.stems,
        sample_rate=card.sample_rate,
        channels=card.channels,
        **card.parameters,
    )


def free_name(name: str, folder: Path) -> str:
    """Return a name that no card has.

    Raises:
        ConfigError: one has.
    """
    taken = _card_paths(None) | _card_paths((folder,))
    if name in taken:
        raise ConfigError(f"There is a model '{name}' already ('{taken[name][0]}'). Choose a name.")
    return name


def _check(path: Path, card: Card, verify: bool) -> None:
    """Make sure that the file is the one that the card describes, as far as it does."""
    weights = card.weights
    size = path.stat().st_size
    if size != (weights.bytes or size):
        problem = f"expected {weights.bytes} bytes, got {size}"
    elif weights.sha256 is None or (not verify and _is_remembered(path, weights.sha256)):
        return
    elif not (found := sha256_of(path)).startswith(weights.sha256):
        problem = f"expected sha256 {weights.sha256}, got {found}"
    else:
        _remember(path, weights.sha256)
        return
    advice = "Put the right file in its place"
    if not card.bundled:
        path.unlink()
        advice = "It was removed; run again to download it"
    raise ModelError(f"'{path}' is not the file that '{card.name}' describes: {problem}. {advice}.")


def _stamp(path: Path) -> dict[str, Any]:
    """Return what changes when a file is replaced or written to."""
    status = path.stat()
    return {"path": str(path.resolve()), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_remembered(path: Path, sha256: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        remembered = json.loads((cache_dir() / "verified" / f"{sha256}.json").read_text())
        return bool(remembered == _stamp(path))
    return False


def _remember(path: Path, sha256: str) -> None:
    """Note that a file was verified, so that the next run need not read all of it."""
    folder = cache_dir() / "verified"
    with contextlib.suppress(OSError):  # a cache that can't be written only costs time
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sha256}.json").write_text(json.dumps(_stamp(path)))


def _card_paths(folders: Sequence[Path] | None) -> dict[str, list[Path]]:
    """Map the names of all cards to their files, which should be one each."""
    paths: dict[str, list[Path]] = {}
    for path in _card_files(folders):
        paths.setdefault(path.stem, []).append(path)
    return paths


def _only_one(paths: Sequence[Path]) -> Path:
    """Return the card of a name.

    Raises:
        ConfigError: there are two.
    """
    if len(paths) > 1:
        raise ConfigError(_twins(*paths[:2]))
    return paths[0]


def _card_files(folders: Sequence[Path] | None) -> list[Path]:
    """List the files of all cards, folder by folder."""
    chosen = (data_folder("models"), user_folder()) if folders is None else folders
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
