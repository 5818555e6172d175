"""Write the cards of Demucs, Open-Unmix, Spleeter, SCNet, MDX23C, UVR and others into `models/`.

    python scripts/make_known_cards.py [FOLDER]

The facts stand in `known_checkpoints.yaml` beside this file. A bag of Demucs files becomes an
ensemble of their cards, and so do the networks of Open-Unmix, one for each stem. What MDX-Nets in
ONNX files are is known by their checksums.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from separator.checkpoints.mdx_onnx import graph_settings
from separator.checkpoints.vocal_remover import public_settings as public_settings_of_bands
from separator.networks import build_network
from separator.schema import SAFE_LOADER
from separator.zoo.cards import NOT_STATED, parse_card
from separator.zoo.writing import write_card

Fields = dict[str, Any]

FACTS = Path(__file__).with_name("known_checkpoints.yaml")
FOUR = ["drums", "bass", "other", "vocals"]
#: What an MDX-Net's estimate is called in a sentence, and what it leaves of the mixture.
MDX_STEMS = {
    "vocals": ("Vocals", "instrumental"),
    "lead_vocals": ("Lead vocals", "accompaniment"),
    "karaoke": ("All but the lead vocals", "lead_vocals"),
    "instrumental": ("The instruments", "vocals"),
    "reverb": ("The reverberation alone", "dry"),
    "no_crowd": ("The music without the crowd", "crowd"),
    "drums": ("Drums", None),
    "bass": ("Bass", None),
    "other": ("Other instruments", None),
}
#: What comes out of a network of vocal-remover, in a sentence.
VR_STEMS = {
    "instrumental": "The instruments and the vocals",
    "vocals": "Vocals and the instruments",
    "karaoke": "All but the lead vocals, and these",
    "back_vocals": "Backing vocals, and all else",
    "no_woodwinds": "All but the woodwinds, and these",
    "dry": "The dry sound, and its {}",
    "noise": "The noise, and the sound without it",
    "no_aspiration": "The voice without breathing, and this",
}
SECONDS = 11.5  # of an MDX-Net's segments, rounded to whole windows
MSST = (
    "https://github.com/ZFTurbo/Music-Source-Separation-Training/blob/main/docs/"
    "pretrained_models.md"
)


def weights(file: Fields, format: str) -> Fields:
    """Return the card's section for a file."""
    places = [file[key] for key in ("url", "mirror") if key in file]
    known = {key: file[key] for key in ("sha256", "bytes") if key in file}
    return {"urls": places, **known, "format": format}


def demucs(facts: Fields) -> Iterator[Fields]:
    """Yield the cards of Demucs, first models, then bags."""
    common = {"stems": FOUR, **{key: facts[key] for key in ("licence", "note", "source")}}
    recipe = {"normalization": "track", "recipe": "demucs"}
    for name, entry in facts["models"].items():
        own = {key: value for key, value in entry.items() if key != "file"}
        yield common | recipe | {"name": name, "weights": weights(entry["file"], "demucs")} | own
    for name, entry in facts["bags"].items():
        members = [
            {"model": model} | ({} if stems == FOUR else {"stems": stems})
            for model, stems in entry["members"].items()
        ]
        yield common | entry | {"name": name, "members": members}


def open_unmix(facts: Fields) -> Iterator[Fields]:
    """Yield a card for each stem's network, and one that joins them under one Wiener filter."""
    for name, entry in facts.items():
        own = ("description", "files", "scores")
        common = {key: value for key, value in entry.items() if key not in own}
        parameters = common.pop("parameters", {"max_bin": 1487})  # 16 kHz
        for stem, file in entry["files"].items():
            yield common | {
                "name": f"{name}-{stem}",
                "description": f"{stem.capitalize()} by Open-Unmix, without the filter of {name}",
                "network": "open_unmix",
                "parameters": parameters,
                "stems": [stem],
                "segment": 20.0,
                "weights": weights(file, "open_unmix"),
            }
        stems = FOUR if set(FOUR) == set(entry["files"]) else list(entry["files"])
        yield common | {
            "name": name,
            "description": f"{entry['description']}: a network for each stem, one Wiener filter",
            "stems": stems,
            "members": [{"model": f"{name}-{stem}"} for stem in stems],
            "domain": "network",
            "wiener": 1,
            "scores": entry.get("scores", []),
            "note": "Songs are read in segments; Open-Unmix' own program reads them in one piece.",
        }


def mdx_net(facts: Fields) -> Iterator[Fields]:
    """Yield the cards of ONNX files, all on one page."""
    common = {key: value for key, value in facts.items() if key != "models"}
    folder = common["source"].replace("/tag/", "/download/")
    for name, entry in facts["models"].items():
        stem, parameters = graph_settings(entry["md5"])
        what, residual = MDX_STEMS[stem]
        author = entry.get("author", "Ultimate Vocal Remover")
        size = round(entry["bytes"] / 4e6)
        parameters = {"graph_bytes": entry["bytes"], **parameters}
        yield common | {
            "name": name,
            "description": f"{what} by {author} (MDX-Net in ONNX, {size} M parameters)",
            "network": "mdx_onnx",
            "parameters": parameters,
            "stems": [stem],
            **({"residual": residual} if residual else {}),
            "segment": whole_windows(parameters),
            "overlap": 0.5,
            "weights": weights(entry | {"url": f"{folder}/{entry['file']}"}, "onnx"),
        }


def vocal_remover(facts: Fields) -> Iterator[Fields]:
    """Yield the cards of UVR's networks before MDX-Net, all on one page."""
    common = {key: value for key, value in facts.items() if key not in ("models", "mirror")}
    folders = common["source"].replace("/tag/", "/download/"), facts["mirror"]
    for name, entry in facts["models"].items():
        first, second = entry["stems"]
        newer = entry["network"] == "vr_lstm"
        settings = public_settings_of_bands(entry["bands"], newer=newer, first_stem=first)
        parameters = entry["parameters"] | settings["parameters"]
        author = entry.get("author", "Ultimate Vocal Remover")
        what = VR_STEMS[first].format(second)
        size = round(entry["bytes"] / 4e6)
        url, mirror = (f"{folder}/{entry['file']}" for folder in folders)
        yield (
            common
            | settings
            | {
                "name": name,
                "description": f"{what}, by {author} (VR architecture, {size} M parameters)",
                "network": entry["network"],
                "parameters": parameters,
                "stems": [first, second],
                "note": silent_above(parameters, settings["sample_rate"]) + common["note"],
                "weights": weights(entry | {"url": url, "mirror": mirror}, "msst"),
            }
        )


def silent_above(parameters: Fields, sample_rate: int) -> str:
    """Say, for a card's note, which frequencies its bands leave out, if one may hear them."""
    highest = parameters["front_end"]["bands"][-1]
    limit = highest["crop"][1] / highest["n_fft"] * sample_rate / 1000
    return f"Neither stem has anything above {limit:.1f} kHz. " if limit < 20 else ""


def whole_windows(parameters: Fields) -> float:
    """Return a length in seconds at which an MDX-Net computes nothing in vain."""
    network = build_network("mdx_onnx", stems=["stem"], **parameters | {"graph_bytes": 1})
    step = int(network.step) / network.sample_rate
    return round(round(SECONDS / step) * step, 6)


def spleeter(facts: Fields) -> Iterator[Fields]:
    """Yield two cards of each archive: what the networks see ends at 11 kHz, or at 16 kHz."""
    common = {key: value for key, value in facts.items() if key not in ("models", "note")}
    folder = common["source"].replace("/tag/", "/download/")
    for archive, entry in facts["models"].items():
        own = {key: value for key, value in entry.items() if key not in ("file", "package")}
        section = weights(entry["file"] | {"url": f"{folder}/{archive}.tar.gz"}, "spleeter")
        if "package" in entry:
            section["package"] = entry["package"]
        for limit, bins in ((11, 1024), (16, 1536)):
            parameters = entry.get("parameters", {}) | ({} if limit == 11 else {"bins": bins})
            names = ", ".join(entry["stems"]).capitalize()
            yield (
                common
                | own
                | {
                    "name": f"spleeter-{archive}" + ("" if limit == 11 else f"-{limit}khz"),
                    "description": f"{names} by Spleeter, up to {limit} kHz",
                    "network": "spleeter",
                    "parameters": parameters,
                    "segment": round(512 * 1024 / 44100, 6),
                    "overlap": 0.0,
                    "recipe": "spleeter",
                    "weights": section,
                    "note": f"No stem has anything above {limit} kHz. {facts['note']}",
                    "scores": own.get("scores", []) if limit == 11 else [],
                }
            )


def others(facts: Fields) -> Iterator[Fields]:
    """Yield the cards of single files."""
    for name, entry in facts.items():
        own = {key: value for key, value in entry.items() if key not in ("file", "format")}
        overlap = 0.25 if entry.get("recipe") == "demucs" else 0.5
        section = weights(entry["file"], entry.get("format", "msst"))
        words = {"licence": NOT_STATED, "overlap": overlap}
        yield words | own | {"name": name, "weights": section}


def ensembles(facts: Fields) -> Iterator[Fields]:
    """Yield the cards of models that work together."""
    for name, entry in facts.items():
        yield entry | {"name": name}


def spelled_out(card: Fields) -> Fields:
    """Put the address in the place of its short name."""
    scores = [
        score | {"source": MSST if score["source"] == "MSST" else score["source"]}
        for score in card.get("scores", [])
    ]
    source = MSST if card["source"] == "MSST" else card["source"]
    return card | {"source": source, "scores": scores}


def main(folder: str = "models") -> None:
    """Write all cards."""
    facts = yaml.load(FACTS.read_text(encoding="utf-8"), Loader=SAFE_LOADER)
    found = [
        *demucs(facts["demucs"]),
        *open_unmix(facts["open_unmix"]),
        *mdx_net(facts["mdx_net"]),
        *vocal_remover(facts["vocal_remover"]),
        *spleeter(facts["spleeter"]),
        *others(facts["others"]),
        *ensembles(facts["ensembles"]),
    ]
    for card in map(spelled_out, found):
        write_card(parse_card(card, card["name"]), Path(folder))
    print(f"{len(found)} cards written to {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
