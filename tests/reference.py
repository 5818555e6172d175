"""Networks with weights made by a formula, and what their reference implementations answer.

`scripts/make_reference_outputs.py` runs those implementations, on the weights and the mixture that
are made here, and keeps some samples of their answers in `tests/data/reference_*.npz`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from separator.networks import build_network

DATA = Path(__file__).parent / "data"
#: Parts of keys whose values belong to the architecture.
CONSTANTS = (
    "window",
    "pqmf",
    "freq_weights",
    "rotary_embed",
    "inv_freqs",
    "sample_rate",
    "num_batches_tracked",
    "lstm_dec2.conv.conv.1",  # see _draw
)


@dataclass(frozen=True)
class Case:
    """A small network and the length of the mixture that it is asked to separate."""

    network: str
    parameters: dict[str, Any] = field(default_factory=dict)
    samples: int = 6000


CASES = {
    "bs_roformer": Case(
        "bs_roformer",
        {
            "stems": ["vocals", "other"],
            "dim": 16,
            "depth": 2,
            "heads": 2,
            "dim_head": 8,
            "n_fft": 512,
            "hop_length": 110,
            "bands": [2] * 12 + [4] * 8 + [25] * 8 + [1],
        },
    ),
    "bs_roformer_mono": Case(
        "bs_roformer",
        {
            "stems": ["drums"],
            "dim": 16,
            "depth": 3,
            "heads": 2,
            "dim_head": 8,
            "channels": 1,
            "n_fft": 512,
            "hop_length": 128,
            "bands": [8, 8, 16, 32, 193],
            "time_transformer_depth": 2,
            "mask_estimator_depth": 3,
            "mlp_expansion_factor": 2,
            "skip_connection": True,
            "zero_dc": True,
        },
    ),
    "bs_roformer_polar": Case(
        "bs_roformer",
        {
            "stems": ["vocals", "other"],
            "dim": 16,
            "depth": 1,  # layers share their positions there
            "heads": 2,
            "dim_head": 8,
            "n_fft": 512,
            "hop_length": 110,
            "bands": [2] * 24 + [16] * 12 + [17],
            "positions": "polar",
        },
    ),
    "mel_band_roformer": Case(
        "mel_band_roformer",
        {
            "stems": ["vocals", "other"],
            "dim": 16,
            "depth": 2,
            "heads": 2,
            "dim_head": 8,
            "n_fft": 512,
            "hop_length": 110,
            "bands": 16,
            "skip_connection": True,
        },
    ),
    "scnet": Case(
        "scnet",
        {
            "stems": ["drums", "vocals"],
            "dims": [4, 8, 12],
            "n_fft": 512,
            "hop_length": 128,
            "band_ratios": [0.23, 0.37, 0.4],
            "band_kernels": [3, 4, 8],
            "band_strides": [1, 4, 8],
            "conv_depths": [2, 1, 1],
            "dual_path_layers": 2,
        },
    ),
    "scnet_masked": Case(
        "scnet",
        {
            "stems": ["drums", "vocals"],
            "dims": [4, 8, 12],
            "n_fft": 512,
            "hop_length": 128,
            "band_ratios": [0.23, 0.37, 0.4],
            "band_kernels": [3, 4, 8],
            "band_strides": [1, 4, 8],
            "conv_depths": [2, 1, 1],
            "dual_path_layers": 2,
            "mask_hidden": 64,
        },
    ),
    "tfc_tdf": Case(
        "tfc_tdf",
        {
            "stems": ["vocals", "other"],
            "n_fft": 512,
            "hop_length": 128,
            "bins": 128,
            "subbands": 4,
            "scales": 2,
            "width": 8,
            "growth": 4,
        },
        samples=47 * 128,
    ),
    "open_unmix": Case(
        "open_unmix",
        {
            "stems": ["vocals", "drums", "residual"],
            "n_fft": 256,
            "hop_length": 64,
            "hidden_size": 12,
            "max_bin": 100,
            "residual": True,
            "wiener_iterations": 2,
            "wiener_frames": 40,
        },
    ),
    "open_unmix_targets": Case(
        "open_unmix",
        {
            "stems": ["vocals", "drums", "bass"],
            "n_fft": 256,
            "hop_length": 64,
            "hidden_size": 12,
            "max_bin": 100,
            "wiener_iterations": 1,
            "wiener_frames": 40,
        },
    ),
    "spleeter": Case(
        "spleeter",
        {"stems": ["vocals", "rest"], "bins": 64, "chunk_frames": 8, "widths": [4, 6, 8]},
    ),
    "spleeter_softmax": Case(
        "spleeter",
        {
            "stems": ["vocals", "drums", "rest"],
            "bins": 32,
            "chunk_frames": 4,
            "widths": [6, 8],
            "down_activation": "elu",
            "up_activation": "elu",
            "softmax": True,
            "extension": "average",
        },
    ),
    "x_umx": Case(
        "x_umx",
        {
            "stems": ["bass", "drums"],
            "n_fft": 256,
            "hop_length": 64,
            "hidden_size": 12,
            "max_bin": 100,
            "wiener_iterations": 0,
        },
    ),
    **{
        f"bsrnn_{bands}": Case(
            "bsrnn",
            {
                "stems": ["speech", "effects"],
                "bands": bands,
                "band_count": 8,
                "channels": 1,
                "n_fft": 256,
                "hop_length": 64,
                "modules": 1,
                "dim": 8,
                "rnn_hidden": 6,
                "mask_hidden": 12,
            },
        )
        for bands in ("musical", "bark", "erb")
    },
    "demucs": Case(
        "demucs",
        {
            "stems": ["drums", "vocals"],
            "hidden_channels": 8,
            "depth": 4,
            "dconv_mode": 3,
            "dconv_comp": 2,
            "dconv_attn": 2,
            "dconv_lstm": 2,
            "norm_starts": 2,
        },
        samples=5003,
    ),
    "demucs_v2": Case(
        "demucs",
        {
            "stems": ["drums", "vocals"],
            "channels": 1,
            "hidden_channels": 6,
            "depth": 3,
            "dconv_mode": 0,
            "gelu": False,
            "lstm_layers": 2,
            "normalize": False,
            "resample": False,
        },
    ),
    "hdemucs": Case(
        "hdemucs",
        {
            "stems": ["drums", "vocals"],
            "n_fft": 64,
            "hidden_channels": 8,
            "depth": 4,
            "norm_starts": 2,
            "dconv_comp": 2,
            "dconv_attn": 2,
            "dconv_lstm": 2,
        },
        samples=5003,  # more frames than the LSTM's windows are long
    ),
    "hdemucs_bands": Case(
        "hdemucs",
        {
            "stems": ["drums", "vocals"],
            "n_fft": 256,
            "hidden_channels": 6,
            "hidden_channels_time": 8,
            "depth": 4,
            "dconv_mode": 3,
            "context_enc": 1,
            "band_splits": [0.2, 0.55],
            "legacy_padding": True,
        },
    ),
    "hdemucs_magnitudes": Case(
        "hdemucs",
        {
            "stems": ["drums", "vocals"],
            "n_fft": 256,
            "hidden_channels": 8,
            "depth": 4,
            "complex_as_channels": False,
            "wiener_iterations": 1,
        },
    ),
    "htdemucs": Case(
        "htdemucs",
        {
            "stems": ["drums", "vocals"],
            "n_fft": 256,
            "hidden_channels": 8,
            "depth": 2,
            "segment": 0.1,
            "dconv_mode": 3,
            "bottom_channels": 16,
            "transformer_layers": 3,
            "transformer_heads": 2,
        },
        samples=4003,  # shorter than the segment
    ),
    "htdemucs_mono": Case(
        "htdemucs",
        {
            "stems": ["vocals"],
            "channels": 1,
            "n_fft": 256,
            "hidden_channels": 8,
            "depth": 2,
            "segment": None,
            "dconv_comp": 4,
            "transformer_layers": 2,
            "transformer_heads": 4,
            "transformer_cross_first": True,
        },
    ),
    "conv_tasnet": Case(
        "conv_tasnet",
        {
            "stems": ["vocals", "other"],
            "channels": 1,
            "features": 32,
            "dim": 16,
            "hidden": 24,
            "layers": 3,
            "stacks": 2,
        },
    ),
    "wave_unet": Case(
        "wave_unet",
        {
            "stems": ["drums", "bass", "rest"],
            "depth": 3,
            "width": 6,
            "learned_upsampling": True,
        },
    ),
    "tfc_tdf_v2": Case(
        "tfc_tdf_v2",
        {
            "stems": ["vocals", "other"],
            "n_fft": 384,
            "hop_length": 64,
            "bins": 128,
            "scales": 2,
            "width": 4,
            "convs": 2,
            "bias": True,
        },
    ),
    "mdx_net": Case(
        "mdx_net",
        {
            "stems": ["drums", "vocals"],
            "separators": [
                {"n_fft": 256, "hop_length": 64, "bins": 64, "scales": 1, "width": 4},
                {"n_fft": 384, "hop_length": 64, "bins": 64, "scales": 2, "width": 4},
            ],
            "waveform": {"hidden_channels": 6, "depth": 2, "dconv_mode": 0, "resample": False},
            "blend": [0.5, 0.9],
        },
    ),
    "vr_aspp": Case(
        "vr_aspp",
        {
            "stems": ["instrumental", "vocals"],
            "width": 8,
            "branches": 7,
            "front_end": {
                "bands": [
                    {"n_fft": 128, "hop_length": 16, "crop": [0, 24], "lowpass": [10, 20]},
                    {
                        "n_fft": 64,
                        "hop_length": 16,
                        "crop": [6, 22],
                        "highpass": [5, 10],
                        "lowpass": [12, 18],
                    },
                    {"n_fft": 96, "hop_length": 64, "crop": [10, 30], "highpass": [6, 9]},
                ],
                "bins": 64,
                "rolloff": [54, 60],
            },
        },
        samples=300 * 64,  # two windows
    ),
    "vr_lstm": Case(
        "vr_lstm",
        {
            "stems": ["vocals", "instrumental"],
            "width": 8,
            "lstm_width": 8,
            "aggressiveness": 0.9,
            "mirror": True,
            "front_end": {
                "bands": [
                    {
                        "n_fft": 128,
                        "hop_length": 20,
                        "crop": [0, 20],
                        "lowpass": [8, 16],
                        "channels": "mid_side",
                    },
                    {
                        "n_fft": 128,
                        "hop_length": 60,
                        "crop": [6, 50],
                        "highpass": [3, 6],
                        "channels": "stereo_n",
                    },
                ],
                "lowpass": [58, 63],
                "downsampling": "sinc",
            },
        },
        samples=400 * 60,
    ),
    "resunet": Case(
        "resunet",
        {
            "stems": ["vocals", "other"],
            "n_fft": 512,
            "hop_length": 128,
            "subbands": 4,
            "widths": [4, 6, 8],
            "blocks": 2,
        },
    ),
    **{
        name: Case(
            "complex_unet",
            {
                "stems": ["piano", "guitar"],
                "mask": mask,
                "bound": 2.0,
                "n_fft": 256,
                "hop_length": 64,
                "scales": 3,
                "width": 4,
            },
        )
        for name, mask in {
            "complex_unet": "complex",
            "complex_unet_bounded": "bounded",
            "complex_unet_magnitude": "magnitude",
        }.items()
    },
}


def weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return values for the parameters in a state dict, drawn by key, so that order is free."""
    return {key: value if _is_constant(key) else _draw(key, value) for key, value in state.items()}


def _is_constant(key: str) -> bool:
    return any(part in key for part in CONSTANTS)


def _draw(key: str, value: Tensor) -> Tensor:
    """Draw what keeps signals near their level; numpy never changes the numbers of this source."""
    noise = np.random.RandomState(crc32(key.encode())).standard_normal(tuple(value.shape))
    if "lstm_dec2.conv.conv" in key:  # a lone channel, which must not be silent
        noise = abs(noise)
    if key.endswith("running_var"):
        noise = 0.5 + noise**2
    elif value.ndim < 2 and not key.endswith(("bias", "mean")):
        noise = 1 + 0.2 * noise
    else:
        noise *= 0.2 if value.ndim < 2 else np.prod(value.shape[1:]) ** -0.5
    return torch.from_numpy(noise).float()


def mixture(samples: int, channels: int = 2) -> Tensor:
    """Return noise under a slow swell, `(1, channels, samples)`."""
    noise = np.random.RandomState(1).standard_normal((1, channels, samples))
    swell = 0.2 + 0.1 * np.sin(2 * np.pi * np.arange(samples) / samples)
    return torch.from_numpy(noise * swell).float()


def some(estimates: Tensor) -> np.ndarray:
    """Return about a thousand of the values, spread over all stems and channels."""
    flat = estimates.flatten()
    return flat[:: max(1, len(flat) // 1000) | 1].numpy()


def network(name: str) -> nn.Module:
    """Build our network of a case, with its weights."""
    case = CASES[name]
    built = build_network(case.network, **case.parameters).eval()
    built.load_state_dict(weights(built.state_dict()))
    return built


# What rounding may make. Our networks are up to 1.3e-6 from the references in single precision, and
# up to 8.2e-7 in double, which is the references' own rounding. A processor that adds in another
# order rounds otherwise, by as much again.
ROUNDING = 1e-5


def relative_error(name: str) -> float:
    """Return how far our network is from the reference, relative to the reference's norm."""
    built, case = network(name), CASES[name]
    with torch.inference_mode():
        ours = some(built(mixture(case.samples, built.channels)))
    theirs = np.load(DATA / f"reference_{name}.npz")["estimates"]
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def one_case_each() -> list[str]:
    """Return the name of each network's first case."""
    first: dict[str, str] = {}
    for name, case in CASES.items():
        first.setdefault(case.network, name)
    return list(first.values())


def layout(state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Return the number of keys, the number of values, and a checksum of all keys and shapes."""
    lines = sorted(f"{key} {list(value.shape)}" for key, value in state.items())
    return len(state), sum(v.numel() for v in state.values()), crc32("\n".join(lines).encode())
