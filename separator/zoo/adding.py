"""Add models of other programs to the user's own cards, whatever their files look like."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from separator.checkpoints.family import ForeignModel
from separator.checkpoints.foreign import Bag, read_bag, read_folder, read_foreign
from separator.checkpoints.spleeter import is_spleeter, read_spleeter_model
from separator.checkpoints.states import State
from separator.errors import ConfigError, ModelError
from separator.files import whole_file
from separator.resources import user_folder
from separator.schema import validate
from separator.zoo.cards import NOT_STATED, AnyCard, Card, Ensemble, read_card
from separator.zoo.downloads import sha256_of
from separator.zoo.search import free_name
from separator.zoo.writing import write_card


def add_path(
    path: Path,
    config: Path | None = None,
    *,
    stems: Sequence[str] = (),
    name: str | None = None,
    folder: Path | None = None,
    copy: bool = False,
    recipe: str | None = None,
) -> AnyCard:
    """Add a checkpoint, a bag of Demucs files (its YAML), a folder of Open-Unmix or of Spleeter.

    Args:
        path: what to add.
        config: the YAML or JSON file that belongs to a checkpoint.
        stems: names of a checkpoint's estimates, where nothing else names them.
        name: name of the model; made from that of the path unless given.
        folder: where cards go, the user's folder unless given.
        copy: copy weights next to the card; those of Open-Unmix and Spleeter always are, in one
            file.
        recipe: how a checkpoint's tracks are cut, see `separator.stream.segments`; as in the
            program that it was made for unless given.

    Raises:
        ModelError: A file can't be read, is hostile, or doesn't fit; or a card can't be written.
        ConfigError: Settings lack something, or the name is taken or not allowed.
    """
    folder = folder or user_folder()
    if path.is_dir() and (found := sorted(path.glob("*.index"))):
        path = found[0]
    if is_spleeter(path):
        return add_spleeter(path, config, name=name, folder=folder)
    if path.is_dir():
        return add_folder(path, name=name, folder=folder)
    if path.suffix in (".yaml", ".yml"):
        if config is not None:
            raise ConfigError(f"'{path}' is a YAML; the checkpoint comes first, then its YAML.")
        return add_bag(path, name=name, folder=folder, copy=copy)
    return add_model(path, config, stems=stems, name=name, folder=folder, copy=copy, recipe=recipe)


def add_model(
    checkpoint: Path,
    config: Path | None = None,
    *,
    stems: Sequence[str] = (),
    name: str | None = None,
    folder: Path | None = None,
    copy: bool = False,
    recipe: str | None = None,
) -> Card:
    """Add a checkpoint of another program; see `separator.checkpoints.foreign`.

    Args:
        checkpoint: the weights; they are read, checked against the network, and hashed.
        config: the YAML or JSON file that belongs to them, if there is one.
        stems: names of the estimates, where nothing else names them.
        name: name of the model; made from the checkpoint's name unless given.
        folder: where the card goes, the user's folder unless given.
        copy: copy the checkpoint next to the card; otherwise the card points to where it is.
        recipe: as in `add_path`.

    Raises:
        ModelError: The checkpoint can't be read or doesn't fit, or the card can't be written.
        ConfigError: The YAML lacks something, or the name is taken or not allowed.
    """
    folder = folder or user_folder()
    name = free_name(name or plain_name(checkpoint), folder)
    model = read_foreign(checkpoint, config, tuple(stems))
    if recipe is not None:
        model = replace(model, recipe=recipe)
    return write_foreign(model, checkpoint, name, folder, copy=copy)


def add_folder(path: Path, *, name: str | None, folder: Path) -> Card:
    """Add a folder of Open-Unmix as one network; its files are put into one beside the card.

    Raises:
        ModelError, ConfigError: As in `add_path`.
    """
    name = free_name(name or plain_name(path.resolve()), folder)
    return _write_state(*read_folder(path), name, folder)


def add_spleeter(path: Path, config: Path | None, *, name: str | None, folder: Path) -> Card:
    """Add a TensorFlow checkpoint of Spleeter; its weights are put into one file beside the card.

    Raises:
        ModelError, ConfigError: As in `add_path`.
    """
    named = path.resolve().parent if path.suffix == ".index" else path
    name = free_name(name or plain_name(Path(named.name.removesuffix(".tar.gz"))), folder)
    return _write_state(*read_spleeter_model(path, config), name, folder)


def _write_state(model: ForeignModel, state: State, name: str, folder: Path) -> Card:
    """Write weights beside their card."""
    from safetensors.torch import save_file

    weights = folder / "weights" / f"{name}.safetensors"
    with all_or_nothing(folder) as made:
        made.append(weights)
        weights.parent.mkdir(exist_ok=True)
        save_file({key: value.contiguous().clone() for key, value in state.items()}, weights)
        return write_foreign(model, weights, name, folder)


def add_bag(path: Path, *, name: str | None, folder: Path, copy: bool = False) -> Ensemble:
    """Add the files of a bag, each as a model of its own, and an ensemble of them: all or none.

    Raises:
        ModelError, ConfigError: As in `add_path`.
    """
    bag = read_bag(path)
    name = free_name(name or plain_name(path), folder)
    names = {file: f"{name}-{plain_name(file)}" for file in dict.fromkeys(bag.files)}
    for own in names.values():
        free_name(own, folder)
    with all_or_nothing(folder) as made:
        cards: dict[Path, Card] = {}
        for file, own in names.items():
            cards[file] = card = add_model(file, name=own, folder=folder, copy=copy)
            made += filter(None, (card.path, card.bundled if copy else None))
        members = [_member(bag, index, cards[file]) for index, file in enumerate(bag.files)]
        return _write_ensemble(name, path, cards[bag.files[0]], members, folder)


def _write_ensemble(
    name: str, path: Path, first: Card, members: list[dict[str, object]], folder: Path
) -> Ensemble:
    fields = {
        "name": name,
        "description": f"{', '.join(first.stems)} (added from {path.name})",
        "stems": first.stems,
        "sample_rate": first.sample_rate,
        "channels": first.channels,
        "members": members,
        "licence": NOT_STATED,
    }
    card = read_card(write_card(validate(Ensemble, fields, f"{name}.yaml"), folder))
    assert isinstance(card, Ensemble)
    return card


def _member(bag: Bag, index: int, card: Card) -> dict[str, object]:
    member: dict[str, object] = {"model": card.name}
    if bag.weights is not None:
        row = bag.weights[index]
        if len(row) != len(card.stems):
            raise ConfigError(
                f"Row {index + 1} of the bag's weights has {len(row)} of them, "
                f"'{card.name}' {len(card.stems)} stems."
            )
        shares = {stem: share for stem, share in zip(card.stems, row, strict=True) if share}
        member |= {"stems": {stem: stem for stem in shares}, "weights": shares}
    if bag.segment is not None:
        # A Transformer can't see more at once than it was trained on.
        longest = card.segment if card.network == "htdemucs" else bag.segment
        member["segment"] = min(bag.segment, longest)
    return member


def plain_name(path: Path) -> str:
    """Make the name of a card out of a file's.

    >>> plain_name(Path("My Model (v2).ckpt"))
    'my-model-v2'
    """
    return re.sub(r"[^a-z0-9.]+", "-", path.stem.lower()).strip("-.")


def write_foreign(
    model: ForeignModel, weights: Path, name: str, folder: Path, *, copy: bool = False
) -> Card:
    """Write the card of a foreign model whose weights have been checked.

    Raises:
        ModelError: The card can't be written.
        ConfigError: The name or a stem's is not allowed.
    """
    file = folder / "weights" / f"{name}{weights.suffix}" if copy else weights.resolve()
    beside = copy or file.parent == (folder / "weights").resolve()
    fields = asdict(model)
    fields |= {
        "name": name,
        "description": f"{', '.join(model.stems)} (added from {weights.name})",
        "weights": {
            "file": f"weights/{file.name}" if beside else str(file),
            "sha256": sha256_of(weights),
            "bytes": weights.stat().st_size,
            "format": fields.pop("format"),
        },
        "licence": NOT_STATED,
    }
    card = validate(Card, fields, f"{name}.yaml")
    with all_or_nothing(folder) as made:
        if copy and not (file.exists() and file.samefile(weights)):
            made.append(file)
            file.parent.mkdir(exist_ok=True)
            with whole_file(file) as part:
                shutil.copyfile(weights, part)
        written = read_card(write_card(card, folder))
    assert isinstance(written, Card)
    return written


@contextmanager
def all_or_nothing(folder: Path) -> Iterator[list[Path]]:
    """Make files of a model in `folder`; if one can't be made, delete those in the list as well.

    Raises:
        ModelError: A file can't be written.
    """
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield made
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            problem = f"Can't write to '{folder}': {error.strerror or error}."
            raise ModelError(problem) from error
        raise
