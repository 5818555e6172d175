"""Bandit's checkpoints, for dialogue, music and effects, as states of the band-split RNN.

Both versions are `bsrnn.BandSplitRNN` under other names. Version 2 (for 48 kHz) orders the
features of a band otherwise: bin by bin, where version 1 has all real parts first.

Reference: Watcharasupat et al., "A generalized bandsplit neural network for cinematic audio source
separation", 2023, arXiv 2309.02539; "Remastering divide and remaster: a cinematic audio source
separation dataset with multilingual support", 2024, arXiv 2407.07275 (version 2).
"""

from __future__ import annotations

import re

from torch import Tensor

from separator.networks.states import State

#: What the files hold and the architecture determines: windows, filters, second names of layers.
DERIVED = re.compile(r"i?stft\.window|.+\.freq_weights/\d+|mask_estim\..+\.combined\..+")


def from_bandit(state: State) -> dict[str, Tensor]:
    """Return the parameters of a Bandit checkpoint, of either version, by the names used here.

    Nothing is lost: what is left out follows from the architecture.
    """
    second = any(".combined." in key for key in state)
    renamed = {}
    for key, value in state.items():
        name = key.removeprefix("bsrnn.")
        if DERIVED.fullmatch(name):
            continue
        if second:
            name, value = _from_second(name, value)
        renamed[name] = value
    return renamed


def _from_second(name: str, value: Tensor) -> tuple[str, Tensor]:
    """Convert one parameter of version 2."""
    if match := re.fullmatch(r"(band_split\..+)\.combined\.([01])\.(.+)", name):
        layer = "norm" if match[2] == "0" else "fc"
        features_last = layer == "norm" or match[3] == "weight"
        value = _real_parts_first(value) if features_last else value
        return f"{match[1]}.{layer}.{match[3]}", value
    if match := re.fullmatch(r"tf_model\.seqband\.(\d+)\.(.+)", name):  # others are transposes
        return f"tf_model.seqband.{int(match[1]) // 2}.{match[2]}", value
    return name, value


def _real_parts_first(value: Tensor) -> Tensor:
    """Reorder the last dimension from pairs to all real, then all imaginary parts."""
    pairs = value.view(*value.shape[:-1], -1, 2)
    return pairs.transpose(-1, -2).flatten(-2)
