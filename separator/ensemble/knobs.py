"""The knobs of a run, as command, Python, evaluation and page pass them on: one object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypedDict

from separator.errors import ConfigError
from separator.stream.inference import Plan
from separator.stream.runner import check_augmentations, pick_device, pick_precision
from separator.zoo.cards import Card, Member

#: The least and the most of each, so that no request takes all memory, or a machine for days.
LIMITS = {"segment": (0, 600), "overlap": (0, 0.95), "batch_size": (1, 256), "shifts": (0, 32)}


class KnobValues(TypedDict, total=False):
    """Values of `Knobs` by their names."""

    device: str
    precision: str
    segment: float | None
    overlap: float | None
    batch_size: int
    shifts: int
    seed: int
    augmentations: tuple[str, ...]


@dataclass(frozen=True)
class Knobs:
    """Choices for a run; None where the cards decide.

    Attributes:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, float32, bfloat16 or float16, for the network's core.
        segment: Length of a segment in seconds, at most 600.
        overlap: Share of a segment that the next one covers again, from 0 to 0.95.
        batch_size: Segments that go through the network together, at most 256.
        shifts: Passes over differently placed segments that are averaged, at most 32.
        seed: Start of the generator that places them.
        augmentations: Any of "swap" and "polarity": the mixture with its channels swapped, or
            turned over, is separated as well, and averaged.

    Raises:
        ConfigError: A value that no model allows.
    """

    device: str = "auto"
    precision: str = "auto"
    segment: float | None = None
    overlap: float | None = None
    batch_size: int = 1
    shifts: int = 0
    seed: int = 0
    augmentations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "augmentations", tuple(self.augmentations))
        check_augmentations(self.augmentations)
        if self.segment is not None and not self.segment > 0:
            raise ConfigError(f"The segment is {self.segment:g} s; allowed: more than 0 seconds.")
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(
                    f"The {name.replace('_', ' ')} is {value}; at least {least} and at most {most} "
                    "is allowed."
                )

    def or_those_of(self, member: Member) -> Knobs:
        """Return these knobs, and a member's where nothing was asked for."""
        return replace(
            self,
            segment=member.segment if self.segment is None else self.segment,
            overlap=member.overlap if self.overlap is None else self.overlap,
            shifts=self.shifts or member.shifts,
        )

    def check(self, cards: Iterable[Card]) -> None:
        """Refuse what this machine or the models of these cards will refuse.

        Raises:
            ConfigError: A value that isn't allowed.
        """
        pick_precision(self.precision, pick_device(self.device))
        for card in cards:
            self.plan(card)

    def plan(self, card: Card) -> Plan:
        """Return the plan for a model.

        Raises:
            ConfigError: A value that isn't allowed.
        """
        segment = card.segment if self.segment is None else self.segment
        overlap = card.overlap if self.overlap is None else self.overlap
        samples = round(segment * card.sample_rate)
        return Plan(samples, overlap, self.batch_size, self.shifts, self.seed, card.recipe)
