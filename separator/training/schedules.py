"""Learning rates over the course of a run, as functions of the step and of the time used."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from separator.schema import Strict


class ScheduleOptions(Strict):
    """Factors of the learning rates at each step.

        constant     1
        cosine       from 1 down to `final`, at the last step or when the time is used
        step         `factor` ** (whole multiples of `every` steps)
        exponential  `factor` ** (steps / every)

    all of them times a ramp from near 0 to 1 over the first `warmup` steps.

    Attributes:
        warmup: steps.
        final: what a cosine ends at.
        factor, every: of "step" and "exponential"; `every` in steps.
    """

    name: Literal["constant", "cosine", "step", "exponential"] = "constant"
    warmup: Annotated[int, Field(ge=0)] = 0
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    factor: Annotated[float, Field(gt=0, le=1)] | None = None
    every: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _fits_the_name(self) -> Self:
        decays = self.name in ("step", "exponential")
        for field in ("factor", "every"):
            if (getattr(self, field) is not None) != decays:
                problem = "needs" if decays else "doesn't take"
                raise ValueError(f"the schedule '{self.name}' {problem} '{field}'")
        return self

    def scale(self, step: int, steps: int, time: float = 0.0) -> float:
        """Return the scale of the update number `step` (from 0) of `steps`.

        `time` is the share of the run's time that is used.

        >>> ScheduleOptions(name="step", factor=0.5, every=10, warmup=4).scale(0, 100)
        0.25
        >>> ScheduleOptions(name="step", factor=0.5, every=10).scale(25, 100)
        0.25
        """
        ramp = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.name == "cosine":
            progress = min(max(step / max(steps, 1), time), 1.0)
            return ramp * (
                self.final + (1 - self.final) * (0.5 + 0.5 * math.cos(math.pi * progress))
            )
        if self.factor is None or self.every is None:
            return ramp
        count = step // self.every if self.name == "step" else step / self.every
        return ramp * float(self.factor**count)
