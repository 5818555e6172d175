"""The words of other programs' Demucs files: hyper-parameters of demucs, keys of torchaudio.

These are pure functions on dictionaries; reading the files is not their business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from separator.errors import ConfigError
from separator.networks.states import State, numbered
from separator.words import nearest

_COMMON = {
    "sources": "stems",
    "audio_channels": "channels",
    "channels": "hidden_channels",
    "samplerate": "sample_rate",
    **dict.fromkeys(["growth", "depth", "kernel_size", "stride", "context"]),
    **dict.fromkeys(["norm_starts", "norm_groups", "dconv_mode", "dconv_depth", "dconv_comp"]),
    "dconv_init": None,
}
_WAVEFORM = _COMMON | dict.fromkeys(
    ["lstm_layers", "gelu", "dconv_attn", "dconv_lstm", "normalize", "resample"]
)
_HYBRID = _COMMON | {
    "channels_time": "hidden_channels_time",
    "nfft": "n_fft",
    "cac": "complex_as_channels",
    "wiener_iters": "wiener_iterations",
    "multi_freqs": "band_splits",
    "multi_freqs_depth": "band_split_layers",
    "freq_emb": "freq_embedding",
    "emb_scale": "freq_embedding_scale",
    "time_stride": None,
    "context_enc": None,
}
_V3 = _HYBRID | {"hybrid_old": "legacy_padding", "dconv_attn": None, "dconv_lstm": None}
_V4 = _HYBRID | {
    "segment": None,
    "use_train_segment": None,
    "bottom_channels": None,
    "t_layers": "transformer_layers",
    "t_heads": "transformer_heads",
    "t_hidden_scale": "transformer_hidden_scale",
    "t_dropout": "transformer_dropout",
    "t_max_period": "transformer_max_period",
    "t_weight_pos_embed": "transformer_position_weight",
    "t_cross_first": "transformer_cross_first",
}
#: Our words for the arguments of demucs' classes; None where they are the same.
NAMES: dict[str, dict[str, str | None]] = {"demucs": _WAVEFORM, "hdemucs": _V3, "htdemucs": _V4}

#: What only concerns training, and options of what `_FIXED` rules out.
_DROPPED = {
    *("rescale", "segment", "emb_smooth", "end_iters", "t_weight_decay", "t_lr"),
    *("t_max_positions", "t_cape_mean_normalize", "t_cape_augment", "t_cape_glob_loc_scale"),
    *("t_mask_type", "t_mask_random_seed", "t_sparse_attn_window", "t_global_window"),
    *("t_sparsity", "t_auto_sparsity"),
}
#: The one value of each option that no published model changes.
_FIXED: dict[str, Any] = {
    **dict.fromkeys(["rewrite", "glu", "hybrid", "t_norm_in", "t_norm_first", "t_norm_out"], True),
    **dict.fromkeys(["t_layer_scale", "t_gelu"], True),
    **dict.fromkeys(["wiener_residual", "t_norm_in_group", "t_group_norm"], False),
    **dict.fromkeys(["t_sparse_self_attn", "t_sparse_cross_attn"], False),
    "t_sin_random_shift": 0,
    "t_emb": "sin",
}


def known_kwargs(network: str) -> set[str]:
    """Return the names of the arguments of demucs' class, whether they matter here or not."""
    return {*NAMES[network], *_DROPPED, *_FIXED}


def from_demucs_kwargs(network: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of our network that demucs builds with these arguments.

    Args:
        network: "demucs", "hdemucs" or "htdemucs", the class of demucs in lower case.
        kwargs: the arguments; what is left out has demucs' defaults.

    Raises:
        ConfigError: An argument is unknown, or asks for something that isn't supported.

    >>> from_demucs_kwargs("hdemucs", {"sources": ["drums"], "channels": 48, "rescale": 0.1})
    {'stems': ['drums'], 'hidden_channels': 48}
    """
    names, known = NAMES[network], known_kwargs(network)
    hyperparameters: dict[str, Any] = {"segment": 10.0} if network == "htdemucs" else {}
    for key, value in kwargs.items():
        if key in names:
            hyperparameters[names[key] or key] = _plain(value)
        elif key not in known:
            raise ConfigError(
                f"The argument '{key}' of demucs' '{network}' is not known; known: "
                f"{', '.join(sorted(known))}.{nearest(key, known)}"
            )
        elif key in _FIXED and value != _FIXED[key]:
            raise ConfigError(
                f"'{network}' with {key}={value!r} is not supported; {key} must be {_FIXED[key]!r}."
            )
    if not hyperparameters.pop("use_train_segment", True):
        hyperparameters["segment"] = None
    if kwargs.get("wiener_iters", 0) < 0:  # no filter, as 0
        hyperparameters["wiener_iterations"] = 0
    if "band_splits" in hyperparameters:
        hyperparameters["band_splits"] = hyperparameters["band_splits"] or []
    return hyperparameters


def _plain(value: Any) -> Any:
    """Return fractions, and numbers that YAML takes for text (`1e-3`), as numbers."""
    if isinstance(value, list | tuple):
        return list(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return float(value)


def from_torchaudio(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of `torchaudio.models.HDemucs` with the keys of `HDemucs`.

    Torchaudio's innermost layer on the waveform has a normalisation that it never applies; its
    parameters are left out.
    """
    branches = {"freq": "", "time": "t"}
    renamed = {}
    for key, value in state.items():
        branch = re.match(r"(freq|time)_((?:en|de)coder)\.", key)
        new = f"{branches[branch[1]]}{branch[2]}.{key[branch.end() :]}" if branch else key
        renamed[new] = value
    innermost = max(int(key.split(".")[1]) for key in renamed if key.startswith("tencoder."))
    unused = f"tencoder.{innermost}.norm"
    return {key: value for key, value in renamed.items() if not key.startswith(unused)}


def from_demucs_v2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state of `Demucs` with the keys of the version that numbers normalisations too.

    Files of 2019 and 2020 have the second convolution of a layer at place 2, later ones at 3.
    """
    if any(re.fullmatch(r"(en|de)coder\.\d+\.3\.weight", key) for key in state):
        return dict(state)
    return {
        re.sub(r"^((?:en|de)coder\.\d+)\.2\.", r"\1.3.", key): value for key, value in state.items()
    }


def infer_torchaudio(state: State) -> dict[str, Any]:
    """Return what the shapes of such a state determine, once it has the keys of `HDemucs`."""
    bins, hidden = state["freq_emb.embedding.weight"].shape
    channels = state["tencoder.0.conv.weight"].shape[1]
    last = numbered(state, "tdecoder.") - 1
    return {
        "stem_count": len(state[f"tdecoder.{last}.conv_tr.bias"]) // channels,
        "channels": channels,
        "n_fft": 8 * bins,
        "hidden_channels": hidden,
        "depth": numbered(state, "encoder."),
    }
