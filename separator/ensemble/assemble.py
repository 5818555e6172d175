"""From a card and its networks to one model that runs: what is asked for, before what cards say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from separator.ensemble.group import Group, Part
from separator.errors import ConfigError
from separator.stream.inference import Plan
from separator.stream.model import Model, Solo
from separator.stream.runner import Runner
from separator.zoo.cards import AnyCard, Card, Ensemble, Member
from separator.zoo.members import Tree, given, taken, weight

#: The most of each, so that no request takes all memory, or a machine for days.
MOST = {"segment": 600, "overlap": 0.95, "batch_size": 256, "shifts": 32}


@dataclass(frozen=True)
class Settings:
    """Knobs of a run; None where the cards decide. See `separator.stream.inference.Plan`."""

    segment: float | None = None
    overlap: float | None = None
    batch_size: int = 1
    shifts: int = 0
    seed: int = 0

    def or_those_of(self, member: Member) -> Settings:
        """Return these settings, and a member's where nothing was asked for."""
        return replace(
            self,
            segment=member.segment if self.segment is None else self.segment,
            overlap=member.overlap if self.overlap is None else self.overlap,
            shifts=self.shifts or member.shifts,
        )

    def check(self, cards: Iterable[Card]) -> None:
        """Refuse what the models of these cards will refuse.

        Raises:
            ConfigError: A value that isn't allowed.
        """
        for card in cards:
            self.plan(card)

    def plan(self, card: Card) -> Plan:
        """Return the plan for a model.

        Raises:
            ConfigError: A value that isn't allowed.
        """
        if self.segment is not None and not 0 < self.segment < math.inf:
            raise ConfigError(f"The segment is {self.segment:g} s; allowed: more than 0 seconds.")
        segment = card.segment if self.segment is None else self.segment
        overlap = card.overlap if self.overlap is None else self.overlap
        samples = round(segment * card.sample_rate)
        plan = Plan(samples, overlap, self.batch_size, self.shifts, self.seed, card.recipe)
        asked = (segment, overlap, self.batch_size, self.shifts)
        for (name, most), value in zip(MOST.items(), asked, strict=True):
            if value > most:
                raise ConfigError(
                    f"The {name.replace('_', ' ')} is {value}; at most {most} is allowed."
                )
        return plan


def assemble(tree: Tree, runners: Mapping[str, Runner], settings: Settings) -> Model:
    """Put the model of a card together from runners of the networks behind it.

    Args:
        tree: The card and its members, as `separator.zoo.members.find_members` returns them.
        runners: Runner of each tree in `tree.networks`, by its card's name.
        settings: What is asked for, before what the cards say.

    Raises:
        ConfigError: A setting that isn't allowed.
    """
    card = tree.card
    if tree.is_network:
        return _solo(tree, runners[card.name], settings)
    assert isinstance(card, Ensemble)  # a model is a network
    parts = tuple(
        Part(
            name=below.card.name,
            model=assemble(below, runners, settings.or_those_of(member)),
            inputs=member.input,
            names=taken(member, below.card),
            residual=member.residual,
            weights=_weights(card, member, below.card),
        )
        for member, below in zip(card.members, tree.members, strict=True)
    )
    return Group(card, parts, card.stems)


def _solo(tree: Tree, runner: Runner, settings: Settings) -> Solo:
    first = tree.models[0]  # if there are several, they differ in their stems only
    plan = settings.plan(first)
    _check_length(tree.card, plan, runner)
    return Solo(
        tree.card.stems,
        tuple(stem for model in tree.models for stem in model.stems),
        runner,
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
