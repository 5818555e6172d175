"""What foreign programs call our networks and their hyper-parameters.

A new network that foreign checkpoints exist for is one `Family` in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from separator.checkpoints import bandit, demucs_formats
from separator.checkpoints.family import Family, Inferred
from separator.checkpoints.states import State
from separator.errors import ModelError
from separator.networks import bsrnn, conv_tasnet, resunet, scnet, tfc_tdf
from separator.spectral.bands import BS_ROFORMER_WIDTHS, mel_bands, widths


def _indices(state: State, prefix: str) -> list[int]:
    """Return the numbers that follow `prefix` in the keys."""
    rests = (key[len(prefix) :] for key in state if key.startswith(prefix))
    return sorted({int(rest.split(".")[0]) for rest in rests if rest[:1].isdigit()})


def _is_roformer(state: State, *, mel: bool) -> bool:
    normed = "layers.0.0.norm.gamma" if mel else "final_norm.gamma"
    return "band_split.to_features.0.1.weight" in state and normed in state


def _infer_roformer(state: State, given: Mapping[str, Any], *, mel: bool) -> Inferred:
    if (transformers := len(_indices(state, "layers.0."))) != 2:
        raise ValueError(f"{transformers} transformers a layer, as with linear attention, not 2")
    block = "layers.0.0.layers.0"
    mask = "mask_estimators.0.to_freqs.0.0"
    dim = state["band_split.to_features.0.1.weight"].shape[0]
    heads = state[f"{block}.0.to_gates.weight"].shape[0]
    linears = _indices(state, f"{mask}.")
    parameters: dict[str, Any] = {
        "dim": dim,
        "depth": len(_indices(state, "layers.")),
        "heads": heads,
        "dim_head": state[f"{block}.0.to_qkv.weight"].shape[0] // (3 * heads),
        "time_transformer_depth": len(_indices(state, "layers.0.0.layers.")),
        "freq_transformer_depth": len(_indices(state, "layers.0.1.layers.")),
        "ff_expansion": state[f"{block}.1.net.1.weight"].shape[0] // dim,
        # The public settings of Mel-Band RoFormers count one layer less than there are.
        "mask_estimator_depth": len(linears) - (1 if mel else 0),
    }
    if len(linears) > 1:
        hidden = state[f"{mask}.{linears[0]}.weight"].shape[0]
        parameters["mlp_expansion_factor"] = hidden // dim
    if f"{block}.0.pope_embed.bias" in state:
        parameters["positions"] = "polar"
    bands = _indices(state, "band_split.to_features.")
    sizes = [state[f"band_split.to_features.{band}.0.gamma"].shape[0] for band in bands]
    channels, partition = (_mel if mel else _explicit)(sizes, given)
    stems = len(_indices(state, "mask_estimators."))
    return Inferred(stems, channels, parameters | partition)


def _mel(sizes: Sequence[int], given: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the channels and the number of bands of `2 * channels * width` features each."""
    bands = mel_bands(len(sizes), n_fft=given["n_fft"], sample_rate=given["sample_rate"])
    return sizes[0] // (2 * widths(bands)[0]), {"bands": len(sizes)}


def _explicit(sizes: Sequence[int], given: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the channels and the widths of adjacent bands of `2 * channels * width` features."""
    channels = sum(sizes) // 2 // (given["n_fft"] // 2 + 1)
    found = tuple(size // (2 * channels) for size in sizes)
    return channels, {} if found == BS_ROFORMER_WIDTHS else {"bands": list(found)}


_FROM_SHAPES = "the checkpoint's shapes tell"
_TRAINING = "used in training only"
_SAME = "another way to compute the same numbers"


def _roformer(network: str, *, mel: bool) -> Family:
    return Family(
        network=network,
        kinds=("mel_band_roformer",) if mel else ("bs_roformer", "bs_polarformer"),
        is_one=partial(_is_roformer, mel=mel),
        infer=partial(_infer_roformer, mel=mel),
        settings={
            "stft_n_fft": ("n_fft", int),
            "stft_hop_length": ("hop_length", int),
            "stft_win_length": ("win_length", int),
            "stft_normalized": ("normalized", bool),
            "skip_connection": ("skip_connection", bool),
            "zero_dc": ("zero_dc", bool),
        },
        # Where a file doesn't say, zero_dc is true, as in that program since September 2025.
        defaults={"n_fft": 2048, "hop_length": 512, "zero_dc": True},
        ignored={
            "dim": _FROM_SHAPES,
            "depth": _FROM_SHAPES,
            "heads": _FROM_SHAPES,
            "dim_head": _FROM_SHAPES,
            "num_stems": _FROM_SHAPES,
            "stereo": _FROM_SHAPES,
            "freqs_per_bands": _FROM_SHAPES,
            "num_bands": _FROM_SHAPES,
            "time_transformer_depth": _FROM_SHAPES,
            "freq_transformer_depth": _FROM_SHAPES,
            "mask_estimator_depth": _FROM_SHAPES,
            "mlp_expansion_factor": _FROM_SHAPES,
            "use_pope": _FROM_SHAPES,
            "dim_freqs_in": "follows from stft_n_fft",
            "sample_rate": "stands under 'audio' too",
            "match_input_audio_length": "estimates always have the mixture's length",
            "attn_dropout": _TRAINING,
            "ff_dropout": _TRAINING,
            "use_torch_checkpoint": _TRAINING,
            "multi_stft_resolution_loss_weight": _TRAINING,
            "multi_stft_resolutions_window_sizes": _TRAINING,
            "multi_stft_hop_size": _TRAINING,
            "multi_stft_normalized": _TRAINING,
            "flash_attn": _SAME,
            "sage_attention": _SAME,
        },
        refused={
            "linear_transformer_depth": "linear attention",
            "use_shared_bias": "shared biases",
        },
    )


def _infer_scnet(state: State, given: Mapping[str, Any]) -> Inferred:
    found = scnet.infer_hyperparameters(state)
    if "band_strides" in given:  # the shapes only suggest them
        del found["band_strides"]
    return Inferred.of(found)


_SCNET = Family(
    network="scnet",
    kinds=("scnet", "scnet_masked"),
    is_one=lambda state: "encoder.0.SDlayer.convs.0.weight" in state,
    infer=_infer_scnet,
    settings={
        "nfft": ("n_fft", int),
        "hop_size": ("hop_length", int),
        "win_size": ("win_length", int),
        "normalized": ("normalized", bool),
        "band_SR": ("band_ratios", list),
        "band_stride": ("band_strides", list),
    },
    ignored={
        "sources": "stands under 'training' too",
        **dict.fromkeys(("audio_channels", "dims", "band_kernel", "conv_depths"), _FROM_SHAPES),
        **dict.fromkeys(("compress", "conv_kernel", "num_dplayer", "expand"), _FROM_SHAPES),
    },
    usual_stems=("drums", "bass", "other", "vocals"),
    segment=11.0,
)


def _infer_tfc_tdf(state: State, given: Mapping[str, Any]) -> Inferred:
    found = tfc_tdf.infer_hyperparameters(state)
    if str(given.get("norm")).startswith("GroupNorm"):  # like an InstanceNorm but for the groups
        del found["norm"]
    return Inferred.of(found)


_TFC_TDF = Family(
    network="tfc_tdf",
    kinds=("mdx23c",),
    is_one=lambda state: "first_conv.weight" in state and "final_conv.2.weight" in state,
    infer=_infer_tfc_tdf,
    settings={"norm": ("norm", str), "act": ("activation", str)},
    ignored={
        **dict.fromkeys(("num_subbands", "num_scales", "scale", "num_channels"), _FROM_SHAPES),
        **dict.fromkeys(("num_blocks_per_scale", "growth", "bottleneck_factor"), _FROM_SHAPES),
    },
    audio={"n_fft": ("n_fft", int), "hop_length": ("hop_length", int)},
    segment=6.0,
)


def _infer_bandit(state: State, given: Mapping[str, Any]) -> Inferred:
    """Read a network that separates each channel on its own: two of them fit a song."""
    found = bsrnn.infer_hyperparameters(state)
    return Inferred(found.pop("stem_count"), 2, found, tuple(found.pop("stems")))


_BANDIT = Family(
    network="bsrnn",
    kinds=("bandit", "bandit_v2"),
    is_one=lambda state: any("band_split.norm_fc_modules.0." in key for key in state),
    infer=_infer_bandit,
    settings={
        "band_specs": ("bands", str),
        "band_type": ("bands", str),
        "n_fft": ("n_fft", int),
        "hop_length": ("hop_length", int),
        "win_length": ("win_length", int),
        "pad_mode": ("pad_mode", str),
    },
    defaults={"bands": "musical"},
    fixed={
        "require_no_overlap": False,
        "require_no_gap": True,
        "treat_channel_as_feature": True,
        "normalize_channel_independently": False,
        "bidirectional": True,
        "complex_mask": True,
        "hidden_activation": "Tanh",
        "hidden_activation_kwargs": None,
        "use_freq_weights": True,
        "window_fn": "hann_window",
        "wkwargs": None,
        "power": None,
        "center": True,
        "normalized": True,
        "onesided": True,
    },
    ignored={
        **dict.fromkeys(("stems", "n_bands", "n_sqm_modules", "emb_dim"), _FROM_SHAPES),
        **dict.fromkeys(("rnn_dim", "rnn_type", "mlp_dim"), _FROM_SHAPES),
        **dict.fromkeys(("in_channel", "in_channels"), "channels are separated on their own"),
        **dict.fromkeys(("fs", "sample_rate"), "stands under 'audio' too"),
        "dropout": _TRAINING,
    },
    format="bandit",
    convert=bandit.from_bandit,
    segment=6.0,
)


def _by_shapes(
    infer: Callable[[State], dict[str, Any]],
) -> Callable[[State, Mapping[str, Any]], Inferred]:
    """Make the reader of a family of which shapes tell all, and settings nothing."""
    return lambda state, _: Inferred.of(infer(state))


_TORCHAUDIO = Family(
    network="hdemucs",
    is_one=lambda state: "freq_encoder.0.conv.weight" in state,
    infer=_by_shapes(demucs_formats.infer_torchaudio),
    format="torchaudio",
    convert=demucs_formats.from_torchaudio,
    usual_stems=("drums", "bass", "other", "vocals"),
)

_CONV_TASNET = Family(
    network="conv_tasnet",
    is_one=lambda state: "mask_generator.input_conv.weight" in state,
    infer=_by_shapes(conv_tasnet.infer_hyperparameters),
    sample_rate=8000,  # of speech, in torchaudio's pipeline
)

_RESUNET = Family(
    network="resunet",
    is_one=lambda state: "encoder_block1.conv_block1.conv1.weight" in state,
    infer=_by_shapes(resunet.infer_hyperparameters),
    format="bytesep",
    convert=resunet.from_bytesep,
    usual_stems=("vocals",),
)

FAMILIES = (
    _roformer("bs_roformer", mel=False),
    _roformer("mel_band_roformer", mel=True),
    _SCNET,
    _TFC_TDF,
    _BANDIT,
    _TORCHAUDIO,
    _CONV_TASNET,
    _RESUNET,
)


def family_of(state: State, where: str) -> Family:
    """Recognise the architecture of a checkpoint by its keys.

    Raises:
        ModelError: None of the known ones.
    """
    for family in FAMILIES:
        if family.is_one(state):
            return family
    first = ", ".join(list(state)[:3])
    raise ModelError(
        f"'{where}' is of no known architecture (its parameters begin with {first}). "
        f"Known: {', '.join(family.network for family in FAMILIES)}."
    )
