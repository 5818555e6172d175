"""Write what reference implementations answer to the cases of tests/reference.py.

    PYTHONPATH=.:tests python scripts/make_reference_outputs.py [case ...]

Run it with an interpreter that has the packages named in the builders below; the tests only need
the small files that it writes to tests/data.
"""

import sys
import warnings
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import reference
import torch
import torchaudio
from torch import nn


def rename(parameters: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in parameters.items()}


def roformer(parameters: dict[str, Any]) -> nn.Module:
    from pymss_core.modules.bs_roformer import BSRoformer, MelBandRoformer  # pymss-core 0.1.14

    parameters = dict(parameters)
    names = {"n_fft": "stft_n_fft", "hop_length": "stft_hop_length"}
    common: dict[str, Any] = {
        "stereo": parameters.pop("channels", 2) == 2,
        "num_stems": len(parameters.pop("stems")),
        "stft_win_length": parameters["n_fft"],
        "time_transformer_depth": parameters.pop("time_transformer_depth", 1),
        "freq_transformer_depth": 1,
        "mask_estimator_depth": 2,
        "attn_dropout": 0.0,
        "ff_dropout": 0.0,
        "zero_dc": False,
    }
    if parameters.pop("positions", "rotary") == "polar":
        common["use_pope"] = True
    bands = parameters.pop("bands")
    settings = common | rename(parameters, names)
    if isinstance(bands, int):
        # Music-Source-Separation-Training, whose files these are, counts the hidden layers here.
        hidden = settings["mask_estimator_depth"]
        return MelBandRoformer(
            num_bands=bands, mlp_hidden_layers=hidden, match_input_audio_length=True, **settings
        )
    return BSRoformer(freqs_per_bands=tuple(bands), **settings)


def scnet(parameters: dict[str, Any]) -> nn.Module:
    parameters = dict(parameters)
    if parameters.pop("mask_hidden", 0):
        # A checkout of Music-Source-Separation-Training, a8a8622, on the PYTHONPATH
        from models.scnet.scnet_masked import SCNet
    else:
        from pymss_core.modules.scnet import SCNet  # pymss-core 0.1.14

    names = {
        "stems": "sources",
        "n_fft": "nfft",
        "hop_length": "hop_size",
        "band_ratios": "band_SR",
        "band_kernels": "band_kernel",
        "band_strides": "band_stride",
        "dual_path_layers": "num_dplayer",
    }
    return SCNet(win_size=parameters["n_fft"], **rename(parameters, names))


def tfc_tdf(parameters: dict[str, Any]) -> nn.Module:
    from pymss_core.config import to_attrdict  # pymss-core 0.1.14
    from pymss_core.modules.mdx23c_tfc_tdf_v3 import TFC_TDF_net

    sizes = {
        "num_subbands": parameters["subbands"],
        "num_scales": parameters["scales"],
        "num_channels": parameters["width"],
        "growth": parameters["growth"],
    }
    fixed = {"num_blocks_per_scale": 2, "bottleneck_factor": 4, "scale": [2, 2]}
    stft = {key: parameters[key] for key in ("n_fft", "hop_length")}
    config = {
        "model": {**sizes, **fixed, "norm": "InstanceNorm", "act": "gelu"},
        "training": {"target_instrument": None, "instruments": parameters["stems"]},
        "audio": {**stft, "dim_f": parameters["bins"], "num_channels": 2},
    }
    return TFC_TDF_net(to_attrdict(config))


def bsrnn(parameters: dict[str, Any]) -> nn.Module:
    from pymss_core.modules.bandit.core.model import (  # pymss-core 0.1.14
        MultiMaskMultiSourceBandSplitRNNSimple as Bandit,
    )

    names = {
        "bands": "band_specs",
        "band_count": "n_bands",
        "channels": "in_channel",
        "modules": "n_sqm_modules",
        "dim": "emb_dim",
        "rnn_hidden": "rnn_dim",
        "mask_hidden": "mlp_dim",
    }
    network = Bandit(win_length=parameters["n_fft"], **rename(parameters, names))
    # The authors' own transforms scale by the energy of the window; the package's don't.
    sizes = {key: parameters[key] for key in ("n_fft", "hop_length")}
    scaled = {**sizes, "power": None, "normalized": True, "pad_mode": "constant"}
    network.stft = torchaudio.transforms.Spectrogram(**scaled)
    del scaled["power"]
    network.istft = torchaudio.transforms.InverseSpectrogram(**scaled)
    network.state_dict = network.bsrnn.state_dict  # its keys without the prefix are ours
    network.load_state_dict = network.bsrnn.load_state_dict
    return network


def open_unmix(parameters: dict[str, Any]) -> nn.Module:
    from openunmix.model import OpenUnmix, Separator  # openunmix 1.3.0

    n_fft, hop_length = parameters["n_fft"], parameters["hop_length"]
    sizes = {key: parameters[key] for key in ("hidden_size", "max_bin")}
    residual = parameters.get("residual", False)
    targets = parameters["stems"][:-1] if residual else parameters["stems"]
    return Separator(
        {stem: OpenUnmix(n_fft // 2 + 1, **sizes) for stem in targets},
        niter=parameters["wiener_iterations"],
        residual=residual,
        n_fft=n_fft,
        n_hop=hop_length,
        wiener_win_len=parameters["wiener_frames"],
    )


class CrossUnmix(nn.Module):
    """Asteroid's X-UMX between transforms that still work; its own need PyTorch below 2."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        from asteroid.models.x_umx import BrokenXUMX  # asteroid 0.7.0

        from separator.networks.open_unmix import from_asteroid

        super().__init__()
        n_fft, hop_length = parameters["n_fft"], parameters["hop_length"]
        self.masker = BrokenXUMX(
            parameters["stems"],
            n_fft,
            n_fft,
            hop_length,
            parameters["hidden_size"],
            max_bin=parameters["max_bin"],
        )
        theirs = self.masker.state_dict()
        self.names = {name: key for key in theirs for name in from_asteroid({key: theirs[key]})}
        self.settings = {
            "n_fft": n_fft,
            "hop_length": hop_length,
            "window": torch.hann_window(n_fft),
        }

    def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Return the parameters under our names."""
        theirs = self.masker.state_dict()
        return {name: theirs[key] for name, key in self.names.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:  # type: ignore[override]
        """Take parameters under our names."""
        self.masker.load_state_dict({self.names[k]: v for k, v in state.items()}, strict=False)

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separate one example."""
        x = torch.stft(mixture[0], **self.settings, return_complex=True)
        masks = self.masker.forward_masker(x.abs().permute(2, 0, 1).unsqueeze(1))
        estimates = masks[:, :, 0].permute(0, 2, 3, 1) * x  # (stems, channels, freq, frames)
        signals = torch.istft(estimates.flatten(0, 1), **self.settings, length=mixture.shape[-1])
        return signals.unflatten(0, estimates.shape[:2]).unsqueeze(0)


def demucs(network: str, parameters: dict[str, Any]) -> nn.Module:
    from demucs import demucs, hdemucs, htdemucs  # demucs 4.1.0

    from separator.checkpoints.demucs_formats import NAMES

    names = {ours or theirs: theirs for theirs, ours in NAMES[network].items()}
    arguments = rename(parameters, names)
    if arguments.get("wiener_iters"):
        arguments["end_iters"] = arguments["wiener_iters"]
    if network == "htdemucs" and arguments["segment"] is None:
        arguments |= {"segment": 10, "use_train_segment": False}
    classes = {
        "demucs": demucs.Demucs,
        "hdemucs": hdemucs.HDemucs,
        "htdemucs": htdemucs.HTDemucs,
    }
    return classes[network](**arguments)


def conv_tasnet(parameters: dict[str, Any]) -> nn.Module:
    from torchaudio.models import ConvTasNet  # torchaudio 2.11.0

    names = {
        "features": "enc_num_feats",
        "dim": "msk_num_feats",
        "hidden": "msk_num_hidden_feats",
        "layers": "msk_num_layers",
        "stacks": "msk_num_stacks",
    }
    sizes = {theirs: parameters[ours] for ours, theirs in names.items()}
    return ConvTasNet(len(parameters["stems"]), msk_activate="relu", **sizes)


class VocalRemover(nn.Module):
    """What audio-separator 0.47.1 does with a track and a network of vocal-remover.

    It needs the packages librosa and samplerate, too.
    """

    def __init__(self, parameters: dict[str, Any]) -> None:
        from audio_separator.separator.uvr_lib_v5 import spec_utils

        super().__init__()
        self.tools = spec_utils
        self.newer = "lstm_width" in parameters
        self.parameters, self.param = parameters, _uvr_settings(parameters)
        self.network = (_vr if self.newer else _vr_aspp)(parameters, self.param["bins"])
        self.state_dict = self.network.state_dict
        self.load_state_dict = self.network.load_state_dict

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        """Separate one example, of whole hops, which it would be cut to."""
        import librosa

        bands, newer = self.param["band"], self.newer
        time = mixture.shape[-1]
        padded = nn.functional.pad(mixture[0], (0, -time % bands[len(bands)]["hl"]))
        wave, specs = padded.numpy(), {}
        for number in range(len(bands), 0, -1):
            band = bands[number]
            if number < len(bands):
                rates = {"orig_sr": bands[number + 1]["sr"], "target_sr": band["sr"]}
                wave = librosa.resample(wave, **rates, res_type=band["res_type"])
            specs[number] = self.tools.wave_to_spectrogram(
                wave, band["hl"], band["n_fft"], self, number, newer
            )
        spec = self.tools.combine_spectrograms(specs, self, newer)
        mask = self.mask(np.abs(spec))
        estimates = [
            self.tools.cmb_spectrogram_to_wave(part, self, *self.highest(part, specs), newer)
            for part in (mask * spec, (1 - mask) * spec)
        ]
        return torch.from_numpy(np.stack(estimates)[None, ..., :time]).float()

    def mask(self, magnitude: np.ndarray) -> np.ndarray:
        """Find the mask window by window."""
        offset, size = self.network.offset, self.parameters.get("window_frames", 512)
        left, right, step = self.tools.make_padding(magnitude.shape[2], size, offset)
        padded = np.pad(magnitude, ((0, 0), (0, 0), (left, right))) / magnitude.max()
        masks = [
            self.network.predict_mask(torch.from_numpy(padded[None, :, :, at : at + size]))[0]
            for at in range(0, padded.shape[2] - size + 1, step)
        ]
        mask = torch.cat(masks, dim=2)[:, :, : magnitude.shape[2]].numpy()
        power = {
            "value": self.parameters.get("aggressiveness", 0.1) / 2,
            "split_bin": self.param["band"][1]["crop_stop"],
            "aggr_correction": None,
        }
        return self.tools.adjust_aggr(mask, False, power)

    def highest(self, part: np.ndarray, specs: dict[int, np.ndarray]) -> Any:
        """Return how many of the highest bins are filled by mirroring, and with what."""
        if not self.parameters.get("mirror"):
            return None, None
        band, end = self.param["band"][len(specs)], self.param["pre_filter_stop"]
        count = band["n_fft"] // 2 - band["crop_stop"] + end - self.param["pre_filter_start"]
        known = specs[len(specs)][:, band["n_fft"] // 2 - count : band["n_fft"] // 2]
        return count, self.tools.mirroring("mirroring", part, known, self)


def _uvr_settings(parameters: dict[str, Any]) -> dict[str, Any]:
    """Write the bands as the settings of Ultimate Vocal Remover do."""
    front = parameters["front_end"]
    hop = front["bands"][-1]["hop_length"]
    bands = {}
    for number, band in enumerate(front["bands"], start=1):
        silent, whole = band.get("highpass", (0, 0))
        full, none = band.get("lowpass", (0, 0))
        bands[number] = {
            "sr": 44100 * band["hop_length"] // hop,
            "hl": band["hop_length"],
            "n_fft": band["n_fft"],
            "crop_start": band["crop"][0],
            "crop_stop": band["crop"][1],
            "hpf_start": whole - 1,
            "hpf_stop": silent,
            "lpf_start": full + 1,
            "lpf_stop": none + 1,
            "convert_channels": band.get("channels"),
            "res_type": "sinc_fastest" if front.get("downsampling") == "sinc" else "polyphase",
        }
    linear = [bin + 1 for bin in front.get("lowpass", ())]
    start, stop = front.get("rolloff", linear) or (-1, -1)
    used = sum(band["crop"][1] - band["crop"][0] for band in front["bands"])
    flags = dict.fromkeys(("reverse", "mid_side", "mid_side_b2"), False)
    fading = {"pre_filter_start": start, "pre_filter_stop": stop}
    return {"band": bands, "bins": front.get("bins", used), **fading, **flags}


def _vr(parameters: dict[str, Any], bins: int) -> nn.Module:
    from audio_separator.separator.uvr_lib_v5.vr_network.nets_new import CascadedNet

    return CascadedNet(2 * bins, nout=parameters["width"], nout_lstm=parameters["lstm_width"])


def _vr_aspp(parameters: dict[str, Any], bins: int) -> nn.Module:
    from audio_separator.separator.uvr_lib_v5.vr_network.nets import CascadedASPPNet

    width = parameters["width"]
    half, quarter = width // 2, width // 4
    sizes = [
        *((2, half), (2, half)),
        *((2 + half, quarter, 1, 1, 0), (quarter, half)),
        *((2 + width, half, 1, 1, 0), (half, width)),
        *((width, 2, 1), (half, 2, 1), (half, 2, 1)),
    ]
    architecture = {5: 31191, 6: 129605, 7: 33966}[parameters.get("branches", 5)]
    network = CascadedASPPNet(2 * bins, sizes, architecture)
    for module in network.modules():
        if hasattr(module, "conv7"):  # a module of its own when the public models were trained
            module.conv7 = deepcopy(module.conv6)
    return network


BUILDERS = {
    "vr_aspp": VocalRemover,
    "vr_lstm": VocalRemover,
    "bs_roformer": roformer,
    "mel_band_roformer": roformer,
    "scnet": scnet,
    "tfc_tdf": tfc_tdf,
    "open_unmix": open_unmix,
    "x_umx": CrossUnmix,
    "bsrnn": bsrnn,
    "conv_tasnet": conv_tasnet,
    **{name: partial(demucs, name) for name in ("demucs", "hdemucs", "htdemucs")},
}


def main(names: list[str]) -> None:
    warnings.filterwarnings("ignore")
    known = [name for name, case in reference.CASES.items() if case.network in BUILDERS]
    for name in names or known:
        case = reference.CASES[name]
        network = BUILDERS[case.network](case.parameters).eval()
        network.load_state_dict(reference.weights(network.state_dict()))
        with torch.inference_mode():
            estimates = network(reference.mixture(case.samples, reference.network(name).channels))
        target = reference.DATA / f"reference_{name}.npz"
        np.savez(target, estimates=reference.some(estimates))
        print(
            f"{target.name}: {tuple(estimates.shape)}, error {reference.relative_error(name):.1e}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
