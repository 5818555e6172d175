"""Read the networks of Ultimate Vocal Remover's "VR architecture", those of vocal-remover.

A file holds parameters, and its shapes tell all but the bands, which lie in a JSON file of the
program (its folder `modelparams`). Which bands a public file has is known by its checksum; for any
other one, that JSON has to be given.

Reference: github.com/TRvlvr/application_data, 2025 (checksums); Ultimate Vocal Remover 5.6,
lib_v5/vr_network/modelparams (bands).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from separator.checkpoints.family import ForeignModel, Inferred
from separator.checkpoints.mdx_onnx import fingerprint
from separator.checkpoints.states import State
from separator.errors import ConfigError, ModelError
from separator.networks import vr_aspp, vr_lstm
from separator.schema import Count, read_json, validate

#: Names, then sample rate, bins, and the two bins of the low-pass over all; below, for each band
#: n_fft, hop, the bins that are used (2), those of the high-pass (2) and of the low-pass (2).
PUBLIC_BANDS = """
1band_sr32000_hl512
    32000 1024 1000 1021
     2048 512   0 1024  -1  -1  -1  -1
1band_sr33075_hl384
    33075 1024 1000 1021
     2048 384   0 1024  -1  -1  -1  -1
1band_sr44100_hl512
    44100 1024 1023 1024
     2048 512   0 1024  -1  -1  -1  -1
1band_sr44100_hl1024
    44100 1024 1023 1024
    2048 1024   0 1024  -1  -1  -1  -1
2band_32000
    32000  768  710  731
      512  66   0  240  -1  -1  60 118
     1024 352  22  505  44  23  -1  -1
3band_44100 3band_44100_mid
    44100  768  757  768
      768 128   0  278  -1  -1  28 140
      768 256  14  322  70  14 283 314
      768 512 131  313 154 141  -1  -1
3band_44100_msb2
    44100  640  639  640
     1024 108   0  187  -1  -1  92 186
      768 216   0  212  68  34 174 209
      640 432  66  307  86  72  -1  -1
4band_44100
    44100  768  740  768
     1024 128   0  186  -1  -1  37  73
      512 128   4  185  36  18  93 185
      512 256  46  186  93  46 164 186
      768 512 121  382 138 123  -1  -1
4band_v2 4band_v2_sn 4band_v3 4band_v3_sn
    44100  672  668  672
      640  80   0   85  -1  -1  25  53
      320  80   4   87  25  12  31  62
      512 160  17  216  48  24 139 210
      960 480  78  383 130  86  -1  -1
4band_v4_ms_fullband
    44100  896   -1   -1
      768  96   0  102  -1  -1  30  62
      384  96   5  104  30  14  37  73
      640 192  20  259  58  29 191 262
     1152 576 119  575 157 110  -1  -1
"""
#: MD5 of the end of a file, the name of its bands, and its stems: the masked one first.
PUBLIC_MODELS = """
0d0e6d143046b0eecc41a22e60224582 3band_44100_mid      instrumental vocals
18b52f873021a0af556fb4ecd552bb8e 2band_32000          instrumental vocals
1fc66027c82b499c7d8f55f79e64cadc 2band_32000          instrumental vocals
2aa34fbc01f8e6d2bf509726481e7142 4band_44100          no_piano piano
3e18f639b11abea7361db1a4a91c2559 4band_44100          instrumental vocals
570b5f50054609a17741369a35007ddd 4band_v3             instrumental vocals
5a6e24c1b530f2dab045a522ef89b751 1band_sr44100_hl512  instrumental vocals
6b5916069a49be3fe29d4397ecfd73fa 3band_44100_msb2     karaoke lead_vocals
74b3bc5fa2b69f29baf7839b858bc679 4band_44100          instrumental vocals
827213b316df36b52a1f3d04fec89369 4band_44100          instrumental vocals
911d4048eee7223eca4ee0efb7d29256 4band_44100          vocals instrumental
941f3f7f0b0341f12087aacdfef644b1 4band_v2             instrumental vocals
a02827cf69d75781a35c0e8a327f3195 1band_sr33075_hl384  instrumental vocals
b165fbff113c959dba5303b74c6484bc 3band_44100          instrumental vocals
b5f988cd3e891dca7253bf5f0f3427c7 4band_44100          instrumental vocals
b99c35723bc35cb11ed14a4780006a80 1band_sr44100_hl1024 instrumental vocals
ba02fd25b71d620eebbdb49e18e4c336 3band_44100_mid      instrumental vocals
c4476ef424d8cba65f38d8d04e8514e2 3band_44100_msb2     instrumental vocals
da2d37b8be2972e550a409bae08335aa 4band_44100          vocals instrumental
db57205d3133e39df8e050b435a78c80 4band_44100          instrumental vocals
ea83b08e32ec2303456fe50659035f69 4band_v3             instrumental vocals
f6ea8473ff86017b5ebd586ccacf156b 4band_v2_sn          karaoke lead_vocals
fd297a61eafc9d829033f8b987c39a3d 1band_sr32000_hl512  instrumental vocals
0ec76fd9e65f81d8b4fbd13af4826ed8 4band_v3             no_woodwinds woodwinds
0fb9249ffe4ffc38d7b16243f394c0ff 4band_v3             dry reverb
6857b2972e1754913aad0c9a1678c753 4band_v3             dry echo
f200a145434efc7dcf0cd093f517ed52 4band_v3             dry echo
44c55d8b5d2e3edea98c2b2bf93071c7 4band_v3             noise denoised
51ea8c43a6928ed3c10ef5cb2707d57b 1band_sr44100_hl1024 noise denoised
944950a9c5963a5eb70b445d67b7068a 4band_v3_sn          back_vocals no_back_vocals
97dc361a7a88b2c4542f68364b32c7f6 4band_v4_ms_fullband dry reverb
581f4461b8d8c7e43af546eebd3b6a2a 4band_v4_ms_fullband back_vocals no_back_vocals
"""
#: First stems that don't accompany: Ultimate Vocal Remover presses their masks harder.
SOLOISTS = ("vocals", "back_vocals")
#: Seconds that a segment has at most; it has whole windows.
SECONDS = 12.0

Bins = Annotated[int, Field(ge=-1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Band(_Section):
    n_fft: Count
    hl: Count
    crop_start: Bins
    crop_stop: Bins
    hpf_start: Bins = -1
    hpf_stop: Bins = -1
    lpf_start: Bins = -1
    lpf_stop: Bins = -1
    convert_channels: str | None = None
    res_type: str = "polyphase"


class _Settings(_Section):
    sr: Count
    bins: Count | None = None
    n_bins: Count | None = None
    band: dict[str, _Band]
    pre_filter_start: Bins = -1
    pre_filter_stop: Bins = -1
    mid_side: bool = False
    mid_side_b2: bool = False
    reverse: bool = False


def is_cascade(state: Mapping[str, Any]) -> bool:
    """Tell by its keys whether a checkpoint is one of vocal-remover, of either generation."""
    return "aux2_out.weight" in state or "stg3_full_band_net.lstm_dec2.conv.conv.0.weight" in state


def read_cascade(
    checkpoint: Path, state: State, config: Path | None, stems: tuple[str, ...]
) -> ForeignModel:
    """Understand a network of vocal-remover from its parameters and its bands.

    Args:
        checkpoint: the file.
        state: its parameters.
        config: the JSON of its bands; a public file needs none.
        stems: names of the masked stem and of the other one, unless they are known.

    Raises:
        ModelError: Parts of the network are missing.
        ConfigError: Nothing is known about its bands, or their JSON can't be read.
    """
    if config is None:
        bands, known = _public(checkpoint)
    else:
        bands, known = _read_json(config), ("instrumental", "vocals")
    newer = "aux2_out.weight" not in state
    module = vr_lstm if newer else vr_aspp
    try:
        found = Inferred.of(module.infer_hyperparameters(state))
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"'{checkpoint.name}' looks like a network of vocal-remover, but parts of it are "
            f"missing or misshapen ({type(error).__name__}: {error})."
        ) from error
    names = stems or known
    settings = model_settings(bands, newer=newer, first_stem=names[0])
    sizes, ours = found.parameters, settings.pop("parameters")
    bins = ours["front_end"]["bins"]
    if sizes.pop("bins", bins) != bins:
        raise ConfigError(
            f"'{checkpoint.name}' is for spectrograms of another number of bins than {bins}, which "
            f"{config.name if config else 'its bands'} have."
        )
    return ForeignModel(
        network="vr_lstm" if newer else "vr_aspp",
        parameters=sizes | ours,
        stems=names,
        channels=found.channels,
        format="msst",
        **settings,
    )


def public_settings(name: str, *, newer: bool, first_stem: str) -> dict[str, Any]:
    """Return the `model_settings` for bands in `PUBLIC_BANDS`.

    Raises:
        KeyError: There are no bands of that name.
    """
    return model_settings(_tabled(name), newer=newer, first_stem=first_stem)


def model_settings(settings: _Settings, *, newer: bool, first_stem: str) -> dict[str, Any]:
    """Return what a card says besides the sizes of the network, as fields of a card.

    Args:
        settings: the bands.
        newer: whether they are for a `vr_lstm`. The older network wants a steeper low-pass
            over several bands, and all of them in the same channels.
        first_stem: the name of the masked stem.
    """
    front_end = _front_end(settings, newer=newer)
    margin = vr_lstm.MARGIN if newer else vr_aspp.MARGIN
    step, period = 512 - 2 * margin, front_end["bands"][-1]["hop_length"] / settings.sr
    windows = int(SECONDS / period + 2 * margin + 1) // step
    aggressiveness = 0.9 if first_stem in SOLOISTS else 0.1
    return {
        "sample_rate": settings.sr,
        "segment": round((windows * step - 2 * margin - 1) * period, 6),
        "overlap": 0.1,
        "recipe": "demucs",
        "parameters": {"aggressiveness": aggressiveness, "front_end": front_end},
    }


def _front_end(settings: _Settings, *, newer: bool) -> dict[str, Any]:
    """Return the arguments of `separator.networks.multiband.MultiBand`."""
    sides = "mid_side" if settings.mid_side else "mid_side_b2" if settings.mid_side_b2 else None
    found = [settings.band[str(number + 1)] for number in range(len(settings.band))]
    bands: list[dict[str, Any]] = []
    for band in found:
        ours: dict[str, Any] = {"n_fft": band.n_fft, "hop_length": band.hl}
        ours["crop"] = [band.crop_start, band.crop_stop]
        if band is not found[0]:
            ours["highpass"] = [band.hpf_stop, band.hpf_start + 1]
        if band is not found[-1]:
            ours["lowpass"] = [band.lpf_start - 1, band.lpf_stop - 1]
        if channels := band.convert_channels if newer else sides:
            ours["channels"] = channels
        bands.append(ours)
    front_end: dict[str, Any] = {"bands": bands, "bins": settings.bins or settings.n_bins}
    start, stop = settings.pre_filter_start, settings.pre_filter_stop
    if 0 < start < stop and not newer and len(bands) > 1:
        front_end["rolloff"] = [start, stop]
    elif 0 < start < stop:
        front_end["lowpass"] = [start - 1, stop - 1]
    if len(bands) > 1 and found[0].res_type.startswith("sinc"):
        front_end["downsampling"] = "sinc"
    if settings.reverse and not newer:
        front_end["reverse"] = True
    return front_end


def _public(checkpoint: Path) -> tuple[_Settings, tuple[str, ...]]:
    """Return the bands and the stems of a public file."""
    checksum = fingerprint(checkpoint)
    models = {line[:32]: line[32:].split() for line in PUBLIC_MODELS.strip().splitlines()}
    if checksum not in models:
        raise ConfigError(
            f"'{checkpoint.name}' is a network of vocal-remover, but no public one (MD5 of its end:"
            f" {checksum}), and holds no word about its bands. Give their JSON as well, from the "
            "folder lib_v5/vr_network/modelparams of Ultimate Vocal Remover, and the names of both "
            "stems with --stems, the masked one first."
        )
    bands, *stems = models[checksum]
    return _tabled(bands), tuple(stems)


def _tabled(name: str) -> _Settings:
    """Return bands of the table."""
    lines = iter(PUBLIC_BANDS.strip().splitlines())
    tables: dict[str, list[list[int]]] = {}
    for line in lines:
        if not line.startswith(" "):
            rows: list[list[int]] = []
            tables |= dict.fromkeys(line.split(), rows)
        else:
            rows.append([int(number) for number in line.split()])
    (rate, bins, start, stop), *rows = tables[name]
    bands = [dict(zip(list(_Band.model_fields)[:8], row, strict=True)) for row in rows]
    channels = "mid_side" if name.endswith("_ms_fullband") else None
    extra = {"convert_channels": channels, "res_type": "sinc" if len(rows) == 2 else "polyphase"}
    band: dict[str, dict[str, Any]] = {str(i): b | extra for i, b in enumerate(bands, start=1)}
    if name.endswith("_sn"):
        band[str(len(rows))]["convert_channels"] = "stereo_n"
    fields = {"sr": rate, "bins": bins, "pre_filter_start": start, "pre_filter_stop": stop}
    sides = {"mid_side": name.endswith("_mid"), "mid_side_b2": name.endswith("_msb2")}
    return validate(_Settings, {**fields, **sides, "band": band}, name)


def _read_json(path: Path) -> _Settings:
    """Read the bands of a model as Ultimate Vocal Remover keeps them."""
    settings = validate(_Settings, read_json(path), path.name)
    numbers = sorted(settings.band)
    if numbers != [str(number + 1) for number in range(len(numbers))] or not numbers:
        raise ConfigError(f"{path.name}: 'band' must have bands 1, 2, ...; got {numbers}.")
    if not (settings.bins or settings.n_bins):
        raise ConfigError(f"{path.name}: 'bins' is missing.")
    return settings
