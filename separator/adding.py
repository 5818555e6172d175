"""Add models of other programs to the user's own cards, whatever their files look like."""

from collections.abc import Sequence
from pathlib import Path

from separator.cards import NOT_STATED, AnyCard, Card, Ensemble, read_card, write_card
from separator.checkpoints.foreign import Bag, read_bag, read_folder
from separator.errors import ConfigError, ModelError
from separator.schema import validate
from separator.zoo import add_model, free_name, plain_name, user_folder, write_model


def add_path(
    path: Path,
    config: Path | None = None,
    *,
    stems: Sequence[str] = (),
    name: str | None = None,
    folder: Path | None = None,
    copy: bool = False,
) -> AnyCard:
    """Add a checkpoint, a bag of Demucs files (its YAML), or a folder of Open-Unmix.

    Args:
        path: what to add.
        config: the YAML file that belongs to a checkpoint.
        stems: names of a checkpoint's estimates, where nothing else names them.
        name: of the model; made from that of the path unless given.
        folder: where cards go, the user's folder unless given.
        copy: copy weights next to the card; those of Open-Unmix always are, in one file.

    Raises:
        ModelError: a file can't be read, is hostile, or doesn't fit; or a card can't be written.
        ConfigError: settings lack something, or the name is taken or not allowed.
    """
    folder = folder or user_folder()
    if path.is_dir():
        return add_folder(path, name=name, folder=folder)
    if path.suffix in (".yaml", ".yml"):
        if config is not None:
            raise ConfigError(f"'{path}' is a YAML; the checkpoint comes first, then its YAML.")
        return add_bag(path, name=name, folder=folder, copy=copy)
    return add_model(path, config, stems=stems, name=name, folder=folder, copy=copy)


def add_folder(path: Path, *, name: str | None, folder: Path) -> Card:
    """Add a folder of Open-Unmix as one network; its files are put into one beside the card.

    Raises:
        ModelError, ConfigError: as in `add_path`.
    """
    from safetensors.torch import save_file

    name = free_name(name or plain_name(path.resolve()), folder)
    model, state = read_folder(path)
    weights = folder / "weights" / f"{name}.safetensors"
    try:
        weights.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.clone() for key, value in state.items()}, weights)
    except OSError as error:
        raise ModelError(f"Can't write to '{folder}': {error.strerror or error}.") from error
    return write_model(model, weights, name, folder)


def add_bag(path: Path, *, name: str | None, folder: Path, copy: bool = False) -> Ensemble:
    """Add the files of a bag, each as a model of its own, and an ensemble of them.

    Raises:
        ModelError, ConfigError: as in `add_path`.
    """
    bag = read_bag(path)
    name = free_name(name or plain_name(path), folder)
    names = {file: f"{name}-{plain_name(file)}" for file in dict.fromkeys(bag.files)}
    for own in names.values():
        free_name(own, folder)
    cards = {
        file: add_model(file, name=own, folder=folder, copy=copy) for file, own in names.items()
    }
    first = cards[bag.files[0]]
    fields = {
        "name": name,
        "description": f"{', '.join(first.stems)} (added from {path.name})",
        "stems": first.stems,
        "sample_rate": first.sample_rate,
        "channels": first.channels,
        "members": [_member(bag, index, cards[file]) for index, file in enumerate(bag.files)],
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
