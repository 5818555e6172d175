"""Begin a larger network with the weights of a smaller one, as a network that does the same.

    weight of the larger one      new rows: as drawn        new layers: as drawn, but what they
      [ old | 0   ]               new columns: zero         add to the residual is zero
      [ new | 0   ]

What is new lets nothing through at first, and learns from there. New inputs, units and layers
are such; only the scale of normalised inputs shifts.

Reference: Chen, Goodfellow and Shlens, "Net2Net: accelerating learning via knowledge transfer",
2015, arXiv 1511.05641; zeros in place of copied units.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from separator.checkpoints.states import load_state
from separator.errors import ConfigError

_LAYERS = ".layers."
_OUTPUTS = ("to_out.0.weight", "net.4.weight", "net.4.bias")  # of attention and of feed-forward


def grow(network: nn.Module, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Load the weights of a smaller network into the corner of a larger one's.

    Args:
        network: with the random weights that what is new begins with.
        weights: weights of the smaller one; those that the larger one doesn't have are left out.
        where: what they came from, for the error.

    Raises:
        ConfigError: The network isn't larger, or has something else that is new.
    """
    state = {name: new.clone() for name, new in network.state_dict().items()}
    for name, new in state.items():
        old = weights.get(name)
        if old is None:
            _begin(name, new, where)
            continue
        if old.ndim != new.ndim or any(a > b for a, b in zip(old.shape, new.shape, strict=True)):
            raise ConfigError(
                f"'grow': '{name}' of '{where}' is {tuple(old.shape)}, and doesn't fit into "
                f"{tuple(new.shape)}; make no part of the network smaller."
            )
        if new.ndim > 1:
            new[:, old.shape[1] :] = 0
        new[tuple(map(slice, old.shape))] = old
    load_state(network, state, where=where)


def _begin(name: str, new: Tensor, where: str) -> None:
    """Silence what a new layer adds."""
    if _LAYERS not in f".{name}":
        raise ConfigError(
            f"'grow': '{where}' has no '{name}'; only layers, units and inputs can be new."
        )
    if name.endswith(_OUTPUTS):
        torch.nn.init.zeros_(new)
