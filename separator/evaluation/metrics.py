"""The metrics of the field by name, each with its unit, direction and definition.

    comparison = Comparison(references, estimates, mixture, sample_rate=44100)
    for name, metric in METRICS.items():
        scores = metric(comparison)           # (stems,), float64
        reasons = comparison.reasons(scores)  # why a score is NaN; "" where it is not

Metrics that share work, as the four of BSSEval do, do it once for a comparison. The functions
themselves are pure and live in `bss_eval.py`, `ratios.py`, `spectral.py`, `log_wmse.py` and
`embeddings.py`. Definitions that share a name elsewhere are kept apart here: cSDR is the median of
one-second frames, uSDR the ratio over a whole song, and neither replaces the other in a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from separator.evaluation.bss_eval import BSSEval, bss_eval
from separator.evaluation.checks import check_mixture, check_pair, silent
from separator.evaluation.embeddings import Embedding, embedding_distance
from separator.evaluation.log_wmse import log_wmse_score
from separator.evaluation.ratios import frame_median, sdr_improvement, si_sdr, usdr
from separator.evaluation.spectral import (
    BleedlessFullness,
    bleedless_fullness,
    l1_freq,
    mr_stft,
)

#: What measures frames: `bss_eval`, or another implementation of it with the same arguments.
Engine = Callable[..., BSSEval]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The stems of one song, as they are and as they were estimated.

    Args:
        references: the true stems, `(stems, channels, time)`
        estimates: the estimated stems, in the same order and shape
        mixture: what was separated, `(channels, time)`
        sample_rate: Hz
        engine: measures the frames

    Raises:
        AudioError: For shapes that differ or samples that are not finite
    """

    references: Tensor
    estimates: Tensor
    mixture: Tensor
    sample_rate: int = field(default=44100, kw_only=True)
    engine: Engine = field(default=bss_eval, kw_only=True)

    def __post_init__(self) -> None:
        check_pair(self.references, self.estimates)
        check_mixture(self.mixture, self.references)

    @cached_property
    def frames(self) -> BSSEval:
        """BSSEval version 4 of frames of one second, four times `(stems, frames)`."""
        return self.engine(
            self.references, self.estimates, window=self.sample_rate, hop=self.sample_rate
        )

    @cached_property
    def mel(self) -> BleedlessFullness:
        """What mel bands have too much and too little of, twice `(stems,)`."""
        return bleedless_fullness(self.references, self.estimates, self.sample_rate)

    def reasons(self, scores: Tensor) -> tuple[str, ...]:
        """Say why scores `(stems,)` are NaN; an empty text stands where they are not."""
        states = zip(
            scores.isnan().tolist(),
            silent(self.references).tolist(),
            silent(self.estimates).tolist(),
            strict=True,
        )
        return tuple(
            self._reason(reference, estimate) if missing else ""
            for missing, reference, estimate in states
        )

    def _reason(self, silent_reference: bool, silent_estimate: bool) -> str:
        if not bool(self.mixture.any()):
            return "the mixture is silent"
        if silent_reference:
            return "the reference is silent"
        if silent_estimate:
            return "the estimate is silent"
        return "no frame has a finite ratio: in each a stem is silent or its estimate is perfect"


@dataclass(frozen=True)
class Metric:
    """A number that says how well stems were separated.

    Call it with a `Comparison` for the scores `(stems,)` in float64, NaN where there is none.
    """

    name: str  # as it stands in tables
    function: Callable[[Comparison], Tensor]
    unit: str  # "dB", "%" or ""
    higher_is_better: bool
    definition: str  # one line

    def __call__(self, comparison: Comparison) -> Tensor:
        """Return the scores."""
        return self.function(comparison)


METRICS: dict[str, Metric] = {
    "csdr": Metric(
        "cSDR",
        lambda c: frame_median(c.frames.sdr),
        "dB",
        True,
        "BSSEval v4 SDR: median over frames of 1 s, then over songs",
    ),
    "cisr": Metric(
        "cISR",
        lambda c: frame_median(c.frames.isr),
        "dB",
        True,
        "BSSEval v4 ISR (against spatial and filtering errors): medians as for cSDR",
    ),
    "csir": Metric(
        "cSIR",
        lambda c: frame_median(c.frames.sir),
        "dB",
        True,
        "BSSEval v4 SIR (against other stems): medians as for cSDR",
    ),
    "csar": Metric(
        "cSAR",
        lambda c: frame_median(c.frames.sar),
        "dB",
        True,
        "BSSEval v4 SAR (against artifacts): medians as for cSDR",
    ),
    "usdr": Metric(
        "uSDR",
        lambda c: usdr(c.references, c.estimates),
        "dB",
        True,
        "SDR over a whole song as in the MDX and SDX challenges, then mean over songs",
    ),
    "sdri": Metric(
        "SDRi",
        lambda c: sdr_improvement(c.references, c.estimates, c.mixture),
        "dB",
        True,
        "uSDR less that of the mixture in the estimate's place",
    ),
    "si_sdr": Metric(
        "SI-SDR",
        lambda c: si_sdr(c.references, c.estimates),
        "dB",
        True,
        "SDR over a whole song with the reference scaled to fit the estimate",
    ),
    "log_wmse": Metric(
        "log-WMSE",
        lambda c: log_wmse_score(c.references, c.estimates, c.mixture, c.sample_rate),
        "",
        True,
        "-4 ln of the error's power as heard, relative to the mixture's; scores silence too",
    ),
    "l1_freq": Metric(
        "L1 frequency",
        lambda c: l1_freq(c.references, c.estimates),
        "%",
        True,
        "100 / (1 + 10 mean difference of magnitudes); depends on the level",
    ),
    "mr_stft": Metric(
        "MR-STFT",
        lambda c: mr_stft(c.references, c.estimates),
        "",
        False,
        "spectral convergence + mean log difference of magnitudes, 5 resolutions",
    ),
    "bleedless": Metric(
        "bleedless",
        lambda c: c.mel.bleedless,
        "%",
        True,
        "100 / (1 + mean dB by which mel bands exceed the reference's)",
    ),
    "fullness": Metric(
        "fullness",
        lambda c: c.mel.fullness,
        "%",
        True,
        "100 / (1 + mean dB by which mel bands fall short of the reference's)",
    ),
}


def embedding_metric(embedding: Embedding) -> Metric:
    """Make a metric of the distance of a user's embeddings, to stand beside `METRICS`."""
    return Metric(
        f"{embedding.name} MSE",
        lambda c: embedding_distance(c.references, c.estimates, embedding, c.sample_rate),
        "",
        False,
        f"mean squared distance of {embedding.name} embeddings",
    )
