"""From a card and its networks to one model that runs: what is asked for, before what cards say."""

from __future__ import annotations

from collections.abc import Mapping

from separator.ensemble.group import Group, Part
from separator.ensemble.knobs import Knobs
from separator.errors import ConfigError
from separator.stream.inference import Plan
from separator.stream.model import Model, Solo
from separator.stream.runner import Runner
from separator.zoo.cards import AnyCard, Ensemble, Member
from separator.zoo.members import Tree, given, taken, weight


def assemble(tree: Tree, runners: Mapping[str, Runner], knobs: Knobs) -> Model:
    """Put the model of a card together from runners of the networks behind it.

    Args:
        tree: The card and its members, as `separator.zoo.members.find_members` returns them.
        runners: Runner of each tree in `tree.networks`, by its card's name.
        knobs: What is asked for, before what the cards say.

    Raises:
        ConfigError: A value that isn't allowed.
    """
    card = tree.card
    if tree.is_network:
        return _solo(tree, runners[card.name], knobs)
    assert isinstance(card, Ensemble)  # a model is a network
    parts = tuple(
        Part(
            name=below.card.name,
            model=assemble(below, runners, knobs.or_those_of(member)),
            inputs=member.input,
            names=taken(member, below.card),
            residual=member.residual,
            weights=_weights(card, member, below.card),
        )
        for member, below in zip(card.members, tree.members, strict=True)
    )
    return Group(card, parts, card.stems)


def _solo(tree: Tree, runner: Runner, knobs: Knobs) -> Solo:
    first = tree.models[0]  # if there are several, they differ in their stems only
    plan = knobs.plan(first)
    _check_length(tree.card, plan, runner)
    return Solo(
        tree.card.stems,
        tuple(stem for model in tree.models for stem in model.stems),
        runner.augmented(knobs.augmentations),
        plan,
        first.normalization == "track",
    )


def _weights(card: Ensemble, member: Member, below: AnyCard) -> dict[str, float]:
    return {name: weight(member, name) for name in given(member, below) if name in card.stems}


def _check_length(card: AnyCard, plan: Plan, runner: Runner) -> None:
    """Refuse segments that the network can't separate well."""
    if runner.longest and plan.segment_samples > runner.longest:
        longest, wanted = (n / card.sample_rate for n in (runner.longest, plan.segment_samples))
        raise ConfigError(
            f"'{card.name}' separates at most {longest:g} s at once, as long as the examples that "
            f"it was trained on; got a segment of {wanted:g} s. Use --segment {longest:g}, or less."
        )
