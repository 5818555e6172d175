"""Write the cards of public BS-RoFormer and Mel-Band RoFormer checkpoints into `models/`.

    python scripts/make_cards.py CATALOGUE.yaml [FOLDER]

The catalogue is a YAML file of facts: under `checkpoints` a list with, for each, `id`, `family`,
`authors`, `output` (stems), `files` (url, sha256, size), `config_msst` (hyper-parameters under the
names of Music-Source-Separation-Training), `verify` (whether the size agrees with them),
`metrics`, `license`. Checkpoints whose configuration or hash isn't known get no card.

What a catalogue can't say (readable names, doubts worth a warning) stands in the tables below.
"""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from separator.schema import SAFE_LOADER
from separator.spectral.bands import BS_ROFORMER_WIDTHS
from separator.zoo.cards import NOT_STATED, parse_card
from separator.zoo.writing import write_card

Entry = dict[str, Any]

NAMES = {
    "splifft/bs_roformer-viperx-1297": "bs-roformer-viperx-ep317",
    "splifft/bs_roformer-viperx-1296": "bs-roformer-viperx-ep368",
    "splifft/bs_roformer-viperx-1053": "bs-roformer-viperx-ep937",
    "splifft/bs_roformer-anvuew-instrum": "bs-roformer-anvuew-vocals",
    "splifft/bs_roformer-gabox-instrumental": "bs-roformer-gabox-vocals",
    "msst-webui/model_mel_band_roformer_ep_3005_sdr_11.4360.ckpt": "mel-roformer-viperx-ep3005",
    "msst-webui/bs_roformer_4stems_ft.ckpt": "bs-roformer-msst-webui-4-stems",
    "msst-webui/deverb_mel_band_roformer_ep_27_sdr_10.4567.ckpt": (
        "mel-roformer-msst-webui-dereverb"
    ),
    "msst-webui/deverb_bs_roformer_8_256dim_8depth.ckpt": "bs-roformer-msst-webui-dereverb-256",
    "msst-webui/deverb_bs_roformer_8_384dim_10depth.ckpt": "bs-roformer-msst-webui-dereverb-384",
    "msst-webui/aspiration_mel_band_roformer_sdr_18.9845.ckpt": (
        "mel-roformer-msst-webui-aspiration"
    ),
    "msst-webui/aspiration_mel_band_roformer_less_aggr_sdr_18.1201.ckpt": (
        "mel-roformer-msst-webui-aspiration-gentle"
    ),
    "msst-webui/dereverb_echo_mbr_fused_0.5_v2_0.25_big_0.25_super.ckpt": (
        "mel-roformer-msst-webui-dereverb-echo-fused"
    ),
    "msst-webui/de_big_reverb_mbr_ep_362.ckpt": "mel-roformer-msst-webui-dereverb-big",
    "zfturbo/mega53": "bs-roformer-zfturbo-mega53",
    "sw/BS-Rofo-SW-Fixed": "bs-roformer-sw",
    "splifft/mel_roformer-amane-fullnessvocalmodel": "mel-roformer-amane-fullness-vocals",
    "msst-webui/model_vocals_mel_band_roformer_sdr_8.42.ckpt": "mel-roformer-zfturbo-vocals-small",
}
AUTHORS = {
    "mel-roformer-viperx-ep3005": "viperx",
    "bs-roformer-zfturbo-mega53": "ZFTurbo",
    "bs-roformer-sw": "an unknown author",
    "mel-roformer-kim-vocals": "Kimberley Jensen",
    "mel-roformer-zfturbo-vocals-small": "ZFTurbo",
}
STEM_NAMES = {
    "instrum": "instrumental",
    "noreverb": "dry",
    "no_drum-bass": "no_drums_bass",
    "acoustic_guitar": "acoustic-guitar",
    "electric_guitar": "electric-guitar",
}
RESIDUALS = {
    "vocals": "instrumental",
    "instrumental": "vocals",
    "lead_vocals": "accompaniment",
    "dry": "reverb",
    "denoised": "noise",
    "crowd": "clean",
    "center": "side",
    "guitar": "other",
    "no_drums_bass": "drums_bass",
}
PHRASES = {
    "dry": "The dry sound, without reverberation,",
    "denoised": "The sound without noise",
    "center": "The phantom centre",
    "no_drums_bass": "Everything but drums and bass",
    "aspiration, other": "Breathing and the rest",
}
ARCHITECTURES = {"bs_roformer": "BS-RoFormer", "mel_band_roformer": "Mel-Band RoFormer"}
#: In the order of the network's heads, as its settings list them.
MEGA53 = """
    accordion acoustic-guitar back-vocal banjo bass bassoon bells bowed_strings brass cello
    clarinet congas digital-piano dobro double-bass drums electric-guitar flute french-horn
    glockenspiel guitar harmonica harp harpsichord hh keys kick lead-vocal mandolin marimba oboe
    organ percussion piano saxophone sitar snare strings synth tambourine timpani toms triangle
    trombone trumpet tuba ukulele viola violin vocal wind wind-chimes woodwind
"""
NOTES = {
    "bs-roformer-sw": (
        "Taken out of a commercial product: the community's log says that the model was cracked "
        "and converted (nomadkaraoke/python-audio-separator, "
        "docs/deton24-audio-separation-info-2026-03-15.md, lines 1945-1947). It is recommended to "
        "nobody. Use it at your own risk."
    ),
    "bs-roformer-zfturbo-mega53": (
        "The stems overlap and don't sum to the mixture; name those that you want. The author "
        "states the licence for the weights, without warranty for the recordings behind them."
    ),
    "mel-roformer-kim-vocals": (
        "Sources disagree about the licence: the model's page said unknown in 2024 and MIT in "
        "2026, another list says CC-BY-NC-SA-4.0."
    ),
    "bs-roformer-viperx-ep937": (
        "The estimate is the mixture without drums and bass, vocals included. Ultimate Vocal "
        "Remover asks applications to credit UVR and its developers."
    ),
    "mel-roformer-zfturbo-vocals-small": (
        "Hosted by a third party; first released with Music-Source-Separation-Training."
    ),
}
#: Nobody should be led to these; their notes say why.
UNRECOMMENDED = ("bs-roformer-sw",)
#: Words in the catalogue's remark about the licence, and what a user ought to know from it.
REMARKS = {
    "UVR README": "Ultimate Vocal Remover asks applications to credit UVR and its developers.",
    "no longer exists": "The account that hosted it is closed; the address may be dead.",
    "sibling anvuew": "Other models of the same author are under GPL-3.0.",
    "mirror": "Hosted by a third party.",
}
LICENCES = {
    "CONFLICTING": "conflicting",
    "none stated": NOT_STATED,
    "none stated for the file": NOT_STATED,
    "not recorded": NOT_STATED,
    "not-reviewed": NOT_STATED,
}
#: Where the checkpoint's size shows that its settings are wrong.
CORRECTIONS = {
    "msst-webui/model_vocals_mel_band_roformer_sdr_8.42.ckpt": {"mask_estimator_depth": 1},
}
#: Catalogued, but it isn't known whether the keys are those of the public layout.
SKIPPED = {"splifft/bs_roformer-fruit-sw", "stemd/stemd_roformer"}
MSST_DOCS = "https://github.com/ZFTurbo/Music-Source-Separation-Training/blob/main/docs/pretrained_models.md"


def main(catalogue: str, folder: str = "models") -> None:
    """Write a card for each checkpoint of the catalogue that is fully known."""
    entries = yaml.load(Path(catalogue).read_text(encoding="utf-8"), Loader=SAFE_LOADER)
    cards = [make_card(entry) for entry in entries["checkpoints"] if is_known(entry)]
    for card in cards:
        write_card(parse_card(card, card["name"]), Path(folder))
    print(f"{len(cards)} cards written to {folder}")


def is_known(entry: Entry) -> bool:
    """Tell whether a card can pin everything: network, hyper-parameters, address and hash."""
    fits = str(entry.get("verify", {}).get("result")).startswith("size_matches_config")
    return (
        entry["family"] in ARCHITECTURES
        and entry["id"] not in SKIPPED
        and (fits or entry["id"] in CORRECTIONS)
        and all(checkpoint(entry).get(key) for key in ("url", "sha256", "size"))
    )


def make_card(entry: Entry) -> dict[str, Any]:
    """Return the fields of a card."""
    name = NAMES.get(entry["id"]) or entry["id"].split("/")[1].replace("_", "-")
    config = entry["config_msst"] | CORRECTIONS.get(entry["id"], {})
    file = checkpoint(entry)
    stems, residual = stems_of(entry)
    licence, note = licence_of(entry, name)
    chunk = config.get("inference_chunk_size") or config.get("chunk_size")
    fields = {
        "name": name,
        "description": description(entry, name, stems),
        "network": entry["family"],
        "parameters": parameters(config),
        "stems": stems,
        "residual": residual,
        "sample_rate": entry["sample_rate"],
        "channels": 2 if config.get("stereo", True) else 1,
        # To the microsecond is to the sample.
        "segment": round((chunk or entry["audio"]["chunk_size"]) / entry["sample_rate"], 6),
        "overlap": 0.5,
        "weights": {
            "urls": list(dict.fromkeys([file["url"], *mirrors(entry)])),
            "sha256": file["sha256"],
            "bytes": file["size"],
            "format": "safetensors" if file["filename"].endswith(".safetensors") else "msst",
        },
        "licence": licence,
        "note": note,
        "recommended": False if name in UNRECOMMENDED else None,
        "source": source(file["url"]),
        "scores": scores(entry),
    }
    return {key: value for key, value in fields.items() if value is not None}


def stems_of(entry: Entry) -> tuple[list[str], str | None]:
    """Name the network's outputs, and the mixture without them if there is one output."""
    target = entry.get("target_instrument")
    names = [target] if target else entry["output"]
    if entry["id"] == "zfturbo/mega53":
        names = MEGA53.split()
    stems = [STEM_NAMES.get(name, name) for name in names]
    if entry["config_msst"].get("num_stems", len(stems)) != len(stems):
        raise ValueError(f"{entry['id']}: {len(stems)} stems named, its network has others")
    if entry["id"] == "splifft/mel_roformer-gabox-karaoke_small":
        return stems, "accompaniment"  # backing vocals are in it
    return stems, RESIDUALS.get(stems[0]) if len(stems) == 1 else None


def parameters(config: Entry) -> dict[str, Any]:
    """Translate hyper-parameters; those at their usual values of 1 or False are left out."""
    n_fft = config.get("stft_n_fft", 2048)
    if config.get("linear_transformer_depth") or config.get("stft_normalized"):
        raise ValueError("linear attention and normalised transforms need a closer look")
    ours = {
        "dim": config["dim"],
        "depth": config["depth"],
        "bands": config.get("num_bands"),
        "heads": config.get("heads", 8),
        "dim_head": config.get("dim_head", 64),
        "n_fft": n_fft,
        "hop_length": config.get("stft_hop_length", 512),
        "mask_estimator_depth": config.get("mask_estimator_depth", 2),
        "mlp_expansion_factor": config.get("mlp_expansion_factor", 4),
        "skip_connection": config.get("skip_connection") or None,
    }
    widths = config.get("freqs_per_bands", "DEFAULT_62")
    if widths != "DEFAULT_62" and tuple(widths) != BS_ROFORMER_WIDTHS:
        ours["bands"] = list(widths)
    for axis in ("time", "freq"):
        key = f"{axis}_transformer_depth"
        ours[key] = None if config.get(key, 1) == 1 else config[key]
    return {key: value for key, value in ours.items() if value is not None}


def description(entry: Entry, name: str, stems: list[str]) -> str:
    """Say in one line what comes out, from whom, and how large the network is."""
    listed = ", ".join(stems)
    what = f"{len(stems)} instruments" if len(stems) > 8 else PHRASES.get(listed)
    what = what or listed.replace("_", " ").capitalize()
    authors = AUTHORS.get(name) or " and ".join(entry.get("authors", ["MSST-WebUI"]))
    size = round(entry["verify"]["numel"] / 1e6)
    return f"{what} by {authors} ({ARCHITECTURES[entry['family']]}, {size} M parameters)"


def licence_of(entry: Entry, name: str) -> tuple[str, str | None]:
    """Return the licence as found, and a note where a user ought to know more."""
    value, detail = entry["license"]["value"], entry["license"]["detail"]
    remark = next((text for words, text in REMARKS.items() if words in detail), None)
    return LICENCES.get(value, value), NOTES.get(name, remark)


def checkpoint(entry: Entry) -> Entry:
    """Return the file whose hash is known."""
    return next(file for file in entry["files"] if file["role"] == "checkpoint")


def mirrors(entry: Entry) -> list[str]:
    """Return further addresses of the very same file."""
    name = checkpoint(entry)["filename"]
    originals = [file["url"] for file in entry["files"] if file["role"] == "original"]
    places = [place for place in entry.get("mirrors", []) if re.fullmatch(r"[\w./-]+", place)]
    return [
        *(url.replace("/blob/", "/resolve/") for url in originals),
        *(f"https://{place}/resolve/main/{name}" for place in places),
    ]


def source(url: str) -> str:
    """Return the page that a file is offered on."""
    if found := re.match(r"(https://github\.com/[^/]+/[^/]+/releases)/download/([^/]+)/", url):
        return f"{found[1]}/tag/{found[2]}"
    found = re.match(r"https://huggingface\.co/[^/]+/[^/]+", url)
    return found[0] if found else url


def scores(entry: Entry) -> list[dict[str, Any]]:
    """Return the published numbers, each with its definition of SDR."""
    found = []
    for metric in entry.get("metrics", []):
        values = {
            STEM_NAMES.get(stem, stem): float(value["sdr"] if isinstance(value, dict) else value)
            for stem, value in metric["values"].items()
            if not isinstance(value, dict) or "sdr" in value
        }
        known = metric["set"].startswith("MVSep")
        found.append(
            {
                "dataset": metric["set"].split(" (")[0] if known else "not stated",
                "definition": "uSDR" if known else "author",
                "values": values,
                "source": metric.get("source", "https://mvsep.com").replace(
                    "splifft registry", "https://github.com/undef13/splifft"
                ),
            }
        )
    documented = re.fullmatch(r"SDR (\w+): ([\d.]+)", entry.get("zfturbo_docs_metrics") or "")
    if documented:
        crowd = documented[1] == "crowd"
        found.append(
            {
                "dataset": "not stated" if crowd else "MVSep Multisong",
                "definition": "uSDR",
                "values": {documented[1]: float(documented[2])},
                "source": MSST_DOCS,
            }
        )
    return [score for score in found if score["values"]]


if __name__ == "__main__":
    main(*sys.argv[1:])
