"""A frozen model that listens first: what it finds is what the trained network hears.

mixture ──> guide ──> vocals ───────┐
   └──────────── minus ──> residual ─┴──> network        input: [residual, vocals]
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from separator.errors import ConfigError
from separator.schema import FROM_LIST, Strict
from separator.words import MIXTURE
from separator.zoo.cards import Card, Stem, Text
from separator.zoo.load import load_network
from separator.zoo.search import find_card

RESIDUAL = "residual"


class GuideOptions(Strict):
    """Choice of a model that listens before the network that is trained.

    Attributes:
        model: a card's name or path.
        parameters: hyper-parameters that differ from the card's, such as shorter chunks.
        stems: what is taken from it.
        input: what the network hears, in this order: "mixture", "residual" (the mixture minus
            these stems), or one of them.
    """

    model: Text
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    stems: Annotated[tuple[Stem, ...], FROM_LIST, Field(min_length=1)]
    input: Annotated[tuple[Stem, ...], FROM_LIST, Field(min_length=1)]

    @model_validator(mode="after")
    def _known(self) -> Self:
        allowed = (MIXTURE, RESIDUAL, *self.stems)
        for name in self.input:
            if name not in allowed:
                raise ValueError(f"'input' takes {', '.join(allowed)}; got '{name}'")
        return self


class Guide:
    """A frozen model, and the signals that are made with it; no part of what is saved.

    Raises:
        ModelError: The model is unknown, or its weights can't be had.
        ConfigError: It is an ensemble, has another form, or lacks a stem.
    """

    def __init__(self, options: GuideOptions, sample_rate: int, channels: int) -> None:
        self.options = options
        card = find_card(options.model)
        if not isinstance(card, Card):
            raise ConfigError(f"'guide.model': '{card.name}' is an ensemble; name a single model.")
        if (card.sample_rate, card.channels) != (sample_rate, channels):
            raise ConfigError(
                f"'guide.model': '{card.name}' has {card.sample_rate} Hz and {card.channels} "
                f"channel(s), the recipe {sample_rate} Hz and {channels}; both need the same."
            )
        if missing := [stem for stem in options.stems if stem not in card.stems]:
            raise ConfigError(
                f"'guide.stems': '{card.name}' has no stem '{missing[0]}'; it has: "
                f"{', '.join(card.stems)}."
            )
        self.rows = [card.stems.index(stem) for stem in options.stems]
        parameters = {**card.parameters, **options.parameters}
        self.network = load_network(card.model_copy(update={"parameters": parameters}))

    def __call__(self, mixture: Tensor) -> Tensor:
        """Return what the network hears, one signal after the other along the channel axis.

        Shape: `(batch, channels, time) -> (batch, inputs * channels, time)`
        """
        with torch.no_grad():
            estimates = self.network.to(mixture.device)(mixture, stems=self.rows).float()
        signals = dict(zip(self.options.stems, estimates.unbind(1), strict=True))
        signals |= {MIXTURE: mixture, RESIDUAL: mixture - estimates.sum(1)}
        return torch.cat([signals[name] for name in self.options.input], dim=1)
