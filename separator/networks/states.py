"""Read hyper-parameters off the keys and shapes of a state dict.

A network's module may offer `infer_hyperparameters(state)`: the constructor's arguments that the
weights determine, and how many stems there are under `stem_count`. It raises `KeyError` where the
state belongs to another network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

State = Mapping[str, Tensor]


def numbered(state: State, prefix: str) -> int:
    """Return how many modules of a list have parameters: the largest number after `prefix`, + 1.

    >>> import torch
    >>> numbered({"layers.0.weight": torch.ones(1), "layers.2.weight": torch.ones(1)}, "layers.")
    3
    """
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(match[1]) for key in state if (match := pattern.match(key))), default=-1)
