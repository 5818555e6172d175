"""What every metric checks before it measures, and how it reads long signals."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from separator.errors import AudioError

_CHUNK = 2**16  # samples of a channel: in double precision, a processor's cache holds them


def check_pair(references: Tensor, estimates: Tensor) -> None:
    """Refuse what can't be compared.

    Shape:
        references, estimates: `(stems, channels, time)`, real

    Raises:
        AudioError: For shapes that differ or are empty, or samples that are not finite
    """
    if references.ndim != 3 or references.shape != estimates.shape or 0 in references.shape:
        raise AudioError(
            f"References of shape {tuple(references.shape)} and estimates of shape "
            f"{tuple(estimates.shape)} can't be compared; both must be the same "
            "(stems, channels, time). Cut or pad neither: find out why they differ."
        )
    check_finite("references", references)
    check_finite("estimates", estimates)


def check_mixture(mixture: Tensor, references: Tensor) -> None:
    """Refuse a mixture `(channels, time)` that doesn't belong to `(stems, channels, time)`.

    Raises:
        AudioError: For another or an empty shape, or samples that are not finite
    """
    if mixture.ndim != 2 or mixture.shape != references.shape[1:] or 0 in references.shape:
        raise AudioError(
            f"A mixture of shape {tuple(mixture.shape)} doesn't belong to references of shape "
            f"{tuple(references.shape)}; it must be their (channels, time)."
        )
    check_finite("mixture", mixture)


def check_finite(name: str, signals: Tensor) -> None:
    """Refuse samples that are NaN or infinite.

    Raises:
        AudioError: If there is any
    """
    if not all(bool(piece.sum().isfinite()) for (piece,) in chunks(signals)):
        raise AudioError(f"The {name} hold samples that are NaN or infinite; none is allowed.")


def chunks(*signals: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield pieces `(..., up to 2**16)` of signals of one length, in float64."""
    for start in range(0, signals[0].shape[-1], _CHUNK):
        yield tuple(x.detach()[..., start : start + _CHUNK].double() for x in signals)


def silent(signals: Tensor) -> Tensor:
    """Tell which signals of `(stems, channels, time)` are zero at every sample, `(stems,)`."""
    return ~signals.any(dim=-1).any(dim=-1)


def without_silent(scores: Tensor, references: Tensor) -> Tensor:
    """Replace the scores `(stems,)` of silent references by NaN."""
    return scores.masked_fill(silent(references), torch.nan)
