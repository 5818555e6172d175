"""Scores of stems that come in no fixed order, as several singers do."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from separator.evaluation.checks import check_pair
from separator.evaluation.ratios import si_sdr

_LIMIT_DB = 300.0  # beyond which scores count as equal: they may be infinite


def best_permutation(
    references: Tensor,
    estimates: Tensor,
    score: Callable[[Tensor, Tensor], Tensor] = si_sdr,
) -> tuple[int, ...]:
    """Return the order of estimates whose scores against the references have the highest sum.

    `estimates[list(order)]` fits the references. Pairs without a score, such as those of silent
    references, take what the others leave.

    Args:
        references: the true stems, `(stems, channels, time)`
        estimates: as many, in any order
        score: a metric in dB, higher for better; `usdr` if levels count

    Raises:
        AudioError: For shapes that differ or samples that are not finite

    Reference: Jeon et al., "MedleyVox: an evaluation dataset for multiple singing voices
    separation", 2023, arXiv 2211.07302; Kuhn, "The Hungarian method for the assignment problem",
    1955.

    >>> s = torch.eye(3).view(3, 1, 3)
    >>> best_permutation(s, s.roll(1, dims=0) + 0.1)
    (1, 2, 0)
    """
    from scipy.optimize import linear_sum_assignment

    check_pair(references, estimates)
    columns = [score(references, estimate.expand_as(references)) for estimate in estimates]
    scores = torch.stack(columns, dim=1)  # (references, estimates)
    scores = scores.masked_fill(scores.isnan(), 0.0).clamp(-_LIMIT_DB, _LIMIT_DB)
    _, order = linear_sum_assignment(scores.cpu().numpy(), maximize=True)
    return tuple(order.tolist())
