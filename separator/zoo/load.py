"""From a card to its network with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from separator.errors import ModelError
from separator.zoo.cards import Card, Ensemble
from separator.zoo.downloads import ByteProgress
from separator.zoo.weights import weights_files

if TYPE_CHECKING:  # listing models must not wait for torch
    from torch import nn

    from separator.checkpoints.states import State


def load_network(
    card: Card, *, offline: bool | None = None, progress: ByteProgress | None = None
) -> nn.Module:
    """Build the network of `card` with its weights, in float32, ready for inference.

    Raises:
        ModelError: The weights can't be had, can't be read, or don't fit the network.
        ConfigError: The network or one of its hyper-parameters is unknown.
    """
    return _built(*read_model(card, offline=offline, progress=progress))


def load_joined(
    ensemble: Ensemble, cards: Sequence[Card], *, offline: bool | None = None
) -> nn.Module:
    """Build one network out of models that are alike in all but their stems and weights.

    Its parameters are theirs together, and its Wiener filter is the ensemble's.

    Raises:
        ModelError, ConfigError: As in `load_network`; such a network can't be made of these.
    """
    parts = [read_model(card, offline=offline) for card in cards]
    joined = {
        "name": ensemble.name,
        "stems": tuple(stem for card, _ in parts for stem in card.stems),
        "parameters": parts[0][0].parameters | {"wiener_iterations": ensemble.wiener},
    }
    state = {key: value for _, own in parts for key, value in own.items()}
    return _built(parts[0][0].model_copy(update=joined), state)


def _built(card: Card, state: State) -> nn.Module:
    from separator.checkpoints.states import load_state

    network = build_from_card(card)
    load_state(network, state, where=card.name)
    return network.eval()


def read_model(
    card: Card, *, offline: bool | None = None, progress: ByteProgress | None = None
) -> tuple[Card, State]:
    """Return a model's card, with the hyper-parameters that stand in its file, and its weights.

    Raises:
        ModelError: The weights can't be had or can't be read, or are another network's.
    """
    path, *others = weights_files(card, offline=offline, progress=progress)
    if card.weights.format == "demucs":
        return _unpacked(card, path)
    from separator.checkpoints.states import read_state

    return card, read_state(path, card.weights.format, card.stems, others)


def _unpacked(card: Card, path: Path) -> tuple[Card, State]:
    """Read a Demucs file, and the card with the hyper-parameters that stand in the file."""
    from separator.checkpoints.packages import read_package
    from separator.checkpoints.states import check_fit, guarded

    with guarded(path):
        package = read_package(path)
    if package.network != card.network:
        raise ModelError(
            f"'{path}' holds the network '{package.network}', '{card.name}' says '{card.network}'."
        )
    own = ("stems", "sample_rate", "channels")
    parameters = {k: value for k, value in package.hyperparameters.items() if k not in own}
    found = card.model_copy(update={"parameters": parameters})
    check_fit(lambda: build_from_card(found), package.state, where=card.name)
    return found, package.state


def build_from_card(card: Card) -> nn.Module:
    """Build the network of `card` with random weights.

    Raises:
        ConfigError: The network or one of its hyper-parameters is unknown.
    """
    from separator.networks import build_network

    return build_network(
        card.network,
        stems=card.stems,
        sample_rate=card.sample_rate,
        channels=card.channels,
        **card.parameters,
    )
