"""What foreign programs call our networks and their hyper-parameters.

A checkpoint's own keys and shapes say most about its network, and they are always right; the file
of settings beside it is asked only for what shapes can't tell. A new network that foreign
checkpoints exist for is one `Family` in `FAMILIES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from separator.bands import BS_ROFORMER_WIDTHS, mel_bands, widths
from separator.checkpoints.states import State, load_state
from separator.errors import ConfigError, ModelError, nearest
from separator.networks import (
    bandit,
    bsrnn,
    build_network,
    conv_tasnet,
    demucs_formats,
    resunet,
    scnet,
    tfc_tdf,
)


class Inferred(NamedTuple):
    """What the keys and shapes of a checkpoint tell, of some also the names of the stems."""

    stems: int
    channels: int
    parameters: dict[str, Any]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignModel:
    """A foreign model in our words; the attributes are those of a card, and of its weights."""

    network: str
    parameters: dict[str, Any]
    stems: tuple[str, ...]
    sample_rate: int
    channels: int
    segment: float
    format: str
    residual: str | None = None
    overlap: float = 0.25
    normalization: str = "none"
    recipe: str = "default"

    def check(self, state: Mapping[str, Tensor], where: str) -> None:
        """Build the network and give it the weights.

        Raises:
            ConfigError: a hyper-parameter is unknown or impossible.
            ModelError: the weights don't fit, or hold numbers that aren't finite.
        """
        network = build_network(
            self.network,
            stems=self.stems,
            sample_rate=self.sample_rate,
            channels=self.channels,
            **self.parameters,
        )
        load_state(network, state, where=where)
        for key, value in state.items():
            if not value.isfinite().all():
                raise ModelError(f"'{where}' holds numbers that aren't finite, in '{key}'.")


def _as_it_is(state: State) -> State:
    return state


@dataclass(frozen=True)
class Family:
    """Translate one architecture.

    Attributes:
        network: its name here, a key of `separator.networks.NETWORKS`.
        is_one: tells by its keys whether a checkpoint belongs to the family.
        infer: reads the shapes, given the translated settings and `sample_rate`.
        settings: foreign names of what shapes can't tell: our name, and the type.
        defaults: values of settings that a file may leave out, under our names.
        ignored: foreign names that change nothing here, and why.
        refused: foreign names that change the graph if they are set, and into what.
        audio: as `settings`, those that stand in the section `audio`.
        format: how cards name the form of the weights, see `separator.checkpoints`.
        convert: gives the parameters the names that they have here.
        usual_stems: where neither keys nor settings name them.
        segment, sample_rate: in seconds and Hz, where no settings say.
    """

    network: str
    is_one: Callable[[State], bool]
    infer: Callable[[State, Mapping[str, Any]], Inferred]
    settings: Mapping[str, tuple[str, type]]
    defaults: Mapping[str, Any]
    ignored: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    audio: Mapping[str, tuple[str, type]] = field(default_factory=dict)
    format: str = "msst"
    convert: Callable[[State], State] = _as_it_is
    usual_stems: tuple[str, ...] = ()
    segment: float = 10.0
    sample_rate: int = 44100

    def translate(self, foreign: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Turn foreign settings into ours.

        Raises:
            ConfigError: a name is unknown, a type is wrong, or the graph isn't supported.
        """
        ours = dict(self.defaults)
        for name, value in foreign.items():
            if name in self.refused:
                if value:
                    raise ConfigError(
                        f"{where}: '{name}: {value}' asks for {self.refused[name]}, which can't "
                        "be run."
                    )
            elif name in self.settings and value is not None:
                our_name, kind = self.settings[name]
                ours[our_name] = _checked(value, kind, f"{where}: '{name}'")
            elif name not in self.ignored and name not in self.settings:
                known = [*self.settings, *self.ignored, *self.refused]
                raise ConfigError(
                    f"{where}: unknown key '{name}'.{nearest(name, known)} Remove it if the model "
                    "does without."
                )
        return ours

    def translate_audio(self, foreign: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Turn the settings of the section `audio` that concern the network into ours.

        Raises:
            ConfigError: a type is wrong.
        """
        return {
            our_name: _checked(foreign[name], kind, f"{where}: '{name}'")
            for name, (our_name, kind) in self.audio.items()
            if foreign.get(name) is not None
        }

    def converted(self, state: State, where: str) -> State:
        """Give the parameters the names that they have here.

        Raises:
            ModelError: keys that every checkpoint of the family has are missing.
        """
        try:
            return self.convert(state)
        except (KeyError, ValueError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"'{where}' looks like a {self.network}, but its keys don't fit "
                f"({type(error).__name__}: {error})."
            ) from error

    def parameters(self, state: State, settings: Mapping[str, Any], where: str) -> Inferred:
        """Read the hyper-parameters off the checkpoint; `settings` fill in what it can't tell.

        Raises:
            ModelError: keys that every checkpoint of the family has are missing.
        """
        try:
            inferred = self.infer(state, settings)
        except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
            raise ModelError(
                f"'{where}' looks like a {self.network}, but parts of it are missing or misshapen "
                f"({type(error).__name__}: {error})."
            ) from error
        own = {key: value for key, value in settings.items() if key != "sample_rate"}
        return inferred._replace(parameters=own | inferred.parameters)


def family_of(state: State, where: str) -> Family:
    """Recognise the architecture of a checkpoint by its keys.

    Raises:
        ModelError: none of the known ones.
    """
    for family in FAMILIES:
        if family.is_one(state):
            return family
    first = ", ".join(list(state)[:3])
    raise ModelError(
        f"'{where}' is of no known architecture (its parameters begin with {first}). "
        f"Known: {', '.join(family.network for family in FAMILIES)}."
    )


def _checked(value: Any, kind: type, where: str) -> Any:
    value = list(value) if isinstance(value, tuple) else value
    if type(value) is not kind:
        raise ConfigError(f"{where} is of type {kind.__name__}, got {value!r}.")
    return value


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
    parameters = {
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
        defaults={"n_fft": 2048, "hop_length": 512},
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
            "use_pope": "PoPE positions",
            "use_shared_bias": "shared biases",
        },
    )


def _infer_scnet(state: State, given: Mapping[str, Any]) -> Inferred:
    found = scnet.infer_hyperparameters(state)
    if "band_strides" in given:  # the shapes only suggest them
        del found["band_strides"]
    return Inferred(found.pop("stem_count"), found.pop("channels"), found)


_SCNET = Family(
    network="scnet",
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
    defaults={},
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
    return Inferred(found.pop("stem_count"), found.pop("channels"), found)


_TFC_TDF = Family(
    network="tfc_tdf",
    is_one=lambda state: "first_conv.weight" in state and "final_conv.2.weight" in state,
    infer=_infer_tfc_tdf,
    settings={"norm": ("norm", str), "act": ("activation", str)},
    defaults={},
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
    is_one=lambda state: any("band_split.norm_fc_modules.0." in key for key in state),
    infer=_infer_bandit,
    settings={
        "band_specs": ("bands", str),
        "band_type": ("bands", str),
        "n_fft": ("n_fft", int),
        "hop_length": ("hop_length", int),
    },
    defaults={"bands": "musical"},
    ignored={
        **dict.fromkeys(("stems", "n_bands", "n_sqm_modules", "emb_dim"), _FROM_SHAPES),
        **dict.fromkeys(("rnn_dim", "rnn_type", "mlp_dim", "win_length"), _FROM_SHAPES),
        **dict.fromkeys(("in_channel", "in_channels"), "channels are separated on their own"),
        **dict.fromkeys(("fs", "sample_rate"), "stands under 'audio' too"),
        **dict.fromkeys(
            (
                *("require_no_overlap", "require_no_gap", "treat_channel_as_feature"),
                *("normalize_channel_independently", "bidirectional", "complex_mask"),
                *("hidden_activation", "hidden_activation_kwargs", "use_freq_weights"),
                *("window_fn", "wkwargs", "power", "center", "normalized", "pad_mode"),
                *("onesided", "dropout"),
            ),
            "all published models have the same",
        ),
    },
    format="bandit",
    convert=bandit.from_bandit,
    segment=6.0,
)


def _by_shapes(infer: Callable[[State], dict[str, Any]]) -> Callable[..., Inferred]:
    """Make the reader of a family whose shapes tell all but constants."""

    def inferred(state: State, given: Mapping[str, Any]) -> Inferred:
        found = infer(state)
        return Inferred(found.pop("stem_count"), found.pop("channels"), found)

    return inferred


_TORCHAUDIO = Family(
    network="hdemucs",
    is_one=lambda state: "freq_encoder.0.conv.weight" in state,
    infer=_by_shapes(demucs_formats.infer_torchaudio),
    settings={},
    defaults={},
    format="torchaudio",
    convert=demucs_formats.from_torchaudio,
    usual_stems=("drums", "bass", "other", "vocals"),
)


_CONV_TASNET = Family(
    network="conv_tasnet",
    is_one=lambda state: "mask_generator.input_conv.weight" in state,
    infer=_by_shapes(conv_tasnet.infer_hyperparameters),
    settings={},
    defaults={},
    sample_rate=8000,  # of speech, in torchaudio's pipeline
)

_RESUNET = Family(
    network="resunet",
    is_one=lambda state: "encoder_block1.conv_block1.conv1.weight" in state,
    infer=_by_shapes(resunet.infer_hyperparameters),
    settings={},
    defaults={},
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
