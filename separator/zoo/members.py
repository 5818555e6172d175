"""Find the cards behind an ensemble, and make sure that they fit together.

Every mistake is refused by the name of its field, before any weights are fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from separator.errors import ConfigError, ModelError, SeparatorError
from separator.words import MIXTURE, nearest
from separator.zoo.cards import AnyCard, Card, Ensemble, Member, read_card
from separator.zoo.search import find_card, survey


@dataclass(frozen=True)
class Tree:
    """Card together with the trees of its members, in their order."""

    card: AnyCard
    members: tuple[Tree, ...] = ()

    @property
    def models(self) -> list[Card]:
        """The cards of all networks behind this one, each once."""
        return list({card.name: card for card in self._leaves()}.values())

    @property
    def is_network(self) -> bool:
        """Whether one network runs all of it: a model, or an ensemble that is joined into one."""
        return isinstance(self.card, Card) or self.card.domain == "network"

    @property
    def networks(self) -> list[Tree]:
        """The trees that are one network each, each once."""
        found = (tree for tree in self._nodes() if tree.is_network)
        return list({tree.card.name: tree for tree in found}.values())

    def _leaves(self) -> Iterator[Card]:
        if isinstance(self.card, Card):
            yield self.card
        for member in self.members:
            yield from member._leaves()

    def _nodes(self) -> Iterator[Tree]:
        """Yield this tree and what is below it, but nothing inside a network."""
        yield self
        for member in () if self.is_network else self.members:
            yield from member._nodes()


def find_members(card: AnyCard) -> Tree:
    """Find the members of an ensemble, and theirs; a model stands alone.

    Members are searched beside the ensemble's own card first, then among all cards.

    Raises:
        ConfigError: One line that names the card and the field: a member that is unknown or
            contains its own ensemble, another sample rate or number of channels, a stem that a
            member doesn't have or nobody gives, an input that no earlier member gives, weights
            of a stem that sum to zero.
    """
    if hears_several(card):
        raise ConfigError(
            f"'{card.name}' hears what another model finds, too: choose an ensemble that has it as "
            "a member."
        )
    return _resolve(card, ())


def hears_several(card: AnyCard) -> bool:
    """Tell whether a model wants several signals, so that it can't run alone."""
    return isinstance(card, Card) and card.inputs > 1


def usable_cards() -> tuple[list[AnyCard], list[str]]:
    """Return all cards that can be used alone, sorted by name, and a line on each faulty one.

    One bad file must hide no other model: it can't be read, or it is an ensemble whose members
    are unknown or don't fit.
    """
    cards, problems = survey()
    usable = []
    for card in cards:
        if hears_several(card):
            continue
        try:
            find_members(card)
        except SeparatorError as error:
            problems.append(str(error))
        else:
            usable.append(card)
    return usable, problems


def taken(member: Member, card: AnyCard) -> dict[str, str]:
    """Map the stems that are taken from a member to their names in the ensemble."""
    return member.stems or {stem: stem for stem in card.stems}


def given(member: Member, card: AnyCard) -> tuple[str, ...]:
    """Name all that a member gives to the ensemble."""
    residual = (member.residual,) if member.residual else ()
    return (*taken(member, card).values(), *residual)


def weight(member: Member, stem: str) -> float:
    """Return a member's weight in a stem that it gives."""
    return 1.0 if member.weights is None else member.weights.get(stem, 0.0)


def _resolve(card: AnyCard, above: tuple[str, ...]) -> Tree:
    if isinstance(card, Card):
        return Tree(card)
    path = (*above, card.name)
    members = []
    known: list[str] = []  # what the members so far give
    for i, member in enumerate(card.members):
        where = f"{card.name}: 'members.{i}"
        found = _find(card, member, where)
        if found.name in path:
            circle = " -> ".join((*path[path.index(found.name) :], found.name))
            raise ConfigError(f"{where}.model': an ensemble can't contain itself ({circle}).")
        members.append(_resolve(found, path))
        _check_form(card, found, where)
        _check_stems(member, found, where)
        _check_inputs(member, found, known, where)
        known += given(member, found)
    _check_outcome(card, members)
    if card.domain == "network":
        _check_alike(card, members)
    return Tree(card, tuple(members))


def _find(card: Ensemble, member: Member, where: str) -> AnyCard:
    beside = card.folder / f"{member.model}.yaml"
    if card.path and beside.is_file():
        return read_card(beside)
    try:
        return find_card(member.model)
    except ModelError as error:
        raise ConfigError(f"{where}.model': {error}") from error


def _check_form(card: Ensemble, found: AnyCard, where: str) -> None:
    for field, unit in (("sample_rate", " Hz"), ("channels", "")):
        own, other = getattr(card, field), getattr(found, field)
        if own != other:
            raise ConfigError(
                f"{where}.model': '{found.name}' has {field} {other}{unit}, the ensemble "
                f"{own}{unit}; all members need the same."
            )


def _check_stems(member: Member, found: AnyCard, where: str) -> None:
    for stem in member.stems or ():
        if stem not in found.stems:
            raise ConfigError(
                f"{where}.stems': '{found.name}' has no stem '{stem}'; it has: "
                f"{', '.join(found.stems)}.{nearest(stem, found.stems)}"
            )
    names = given(member, found)
    if len(set(names)) < len(names) or MIXTURE in names:
        raise ConfigError(
            f"{where}.stems': stems and residual need different names, and none may be "
            f"'{MIXTURE}'; got {', '.join(names)}."
        )
    for stem in member.weights or ():
        if stem not in names:
            raise ConfigError(
                f"{where}.weights': this member doesn't give '{stem}'; it gives: "
                f"{', '.join(names)}.{nearest(stem, names)}"
            )


def _check_inputs(member: Member, found: AnyCard, known: list[str], where: str) -> None:
    wanted = found.inputs if isinstance(found, Card) else 1
    if len(member.input) != wanted:
        raise ConfigError(
            f"{where}.input': '{found.name}' hears {wanted} signal(s), got {len(member.input)}: "
            f"{', '.join(member.input)}; name as many."
        )
    for name in member.input:
        _check_input(name, known, where)


def _check_input(name: str, known: list[str], where: str) -> None:
    if name == MIXTURE:
        return
    count = known.count(name)
    if count == 0:
        allowed = ", ".join(dict.fromkeys((MIXTURE, *known)))
        raise ConfigError(
            f"{where}.input': no earlier member gives '{name}'; allowed: {allowed}."
            f"{nearest(name, known)}"
        )
    if count > 1:
        raise ConfigError(
            f"{where}.input': {count} earlier members give '{name}', so it isn't clear "
            "which one is meant; put them into an ensemble of their own and name that as a member."
        )


def _check_outcome(card: Ensemble, members: list[Tree]) -> None:
    """Make sure that every stem of the ensemble comes from somewhere."""
    parts = [
        (member, given(member, tree.card))
        for member, tree in zip(card.members, members, strict=True)
    ]
    known = dict.fromkeys(name for _, names in parts for name in names)
    for stem in card.stems:
        if stem not in known:
            raise ConfigError(
                f"{card.name}: 'stems': no member gives '{stem}'; they give: {', '.join(known)}."
                f"{nearest(stem, known)}"
            )
        if not sum(weight(member, stem) for member, names in parts if stem in names):
            raise ConfigError(
                f"{card.name}: 'members': the weights of '{stem}' sum to zero; "
                "at least one member needs a positive weight."
            )


def _check_alike(card: Ensemble, members: list[Tree]) -> None:
    """Make sure that the members can be one network: alike in all but stems and weights."""
    first = members[0].card
    taken_by: dict[str, str] = {}
    for i, member in enumerate(tree.card for tree in members):
        where = f"{card.name}: 'members.{i}.model'"
        if not isinstance(member, Card) or not isinstance(first, Card):
            raise ConfigError(f"{where}: the domain 'network' joins models, not ensembles.")
        for field in ("network", "parameters", "segment", "overlap", "normalization", "recipe"):
            own, other = getattr(first, field), getattr(member, field)
            if own != other:
                raise ConfigError(
                    f"{where}: '{member.name}' has {field} {other}, '{first.name}' {own}; "
                    "members that run as one network need the same."
                )
        for stem in member.stems:
            if stem in taken_by:
                raise ConfigError(
                    f"{where}: '{member.name}' and '{taken_by[stem]}' both give '{stem}'; in one "
                    "network each stem comes from one member."
                )
            taken_by[stem] = member.name
