"""Say which checkpoints of a catalogue have no card in `models/`, and why not.

    python scripts/missing_cards.py CATALOGUE.yaml

The catalogue is the one of make_cards.py. A card needs settings and an address that gives the file;
where nobody publishes hash or size, it says so.
"""

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from separator.resources import data_folder
from separator.schema import SAFE_LOADER
from separator.zoo.cards import Card
from separator.zoo.search import list_cards

Entry = dict[str, Any]

VARIANT = "its further layers are published as code only, without a description or a licence"
OWN_GRAPH = "its network is another one, which isn't built here"
PAGE = "a file host's page, no address that gives the file"
#: Why checkpoints have no card, where their entries in the catalogue don't show it.
REASONS = {
    "splifft/mel_roformer-unwa-large_inst_v2": f"a variant with an axial refiner: {VARIANT}",
    "splifft/bs_roformer-unwa-inst_fno": f"a variant with Fourier operators: {VARIANT}",
    **dict.fromkeys(
        [
            "splifft/bs_roformer-unwa-hyperace_v1_instrum",
            "splifft/bs_roformer-unwa-hyperace_v2_instrum",
            "splifft/bs_roformer-unwa-hyperace_v2_vocals",
        ],
        f"a HyperACE variant: {VARIANT}",
    ),
    "splifft/bs_roformer-unwa-inst_exp_value_residual": (
        "value residuals in it: programs use them in two ways with the same keys, in one of which "
        "they do nothing, and it isn't known in which it was trained"
    ),
    "zfturbo/mel_exp_8.9400": "its file is a zip archive in two parts",
    "splifft/bs_roformer-fruit-sw": "a conversion of another card's weights under unknown names",
    "splifft/mel_roformer-amane-small": "it has one of two stems, and it isn't known which",
    "openmirlab/dereverb_super_big_mbr_ep_346.ckpt": "no address is known",
    "stemd/stemd_roformer": "the hop of its transform isn't known",
    "splifft/bs_roformer-xlance-msr": "a second entry for xlance/msr, which has cards",
    "bandit_v2/multi": "its address is dead, and its settings aren't known; `models add` reads it",
    "danna-sep": f"programs (TorchScript) instead of weights; {PAGE}",
    "bsrnn/amanteur_vocals": PAGE,
    "kuielab/sdx23_mdx_AB": PAGE,
}
SUPPORTED = ("bs_roformer", "mel_band_roformer", "scnet", "mdx23c", "htdemucs", "bandit")
HOSTS = ("drive.google.com", "mega.nz", "disk.yandex")


def main(catalogue: str) -> None:
    """Print a line for each checkpoint without a card."""
    facts = yaml.load(Path(catalogue).read_text(encoding="utf-8"), Loader=SAFE_LOADER)
    cards = [card for card in list_cards([data_folder("models")]) if isinstance(card, Card)]
    known = {PurePosixPath(url).name.split("?")[0] for c in cards for url in c.weights.urls}
    known |= {card.weights.sha256 for card in cards if card.weights.sha256}
    missing = list(without_card(facts, known))
    for name, reason in missing:
        print(f"{name}: {reason}")
    print(f"{len(cards)} models have cards, {len(missing)} checkpoints have none")


def without_card(facts: Entry, known: set[str]) -> Iterator[tuple[str, str]]:
    """Yield names and reasons."""
    for entry in facts["checkpoints"]:
        files = entry.get("files", [])
        names = {
            file.get(key, "").split("?")[0] for file in files for key in ("sha256", "filename")
        }
        if not names & known:
            yield entry["id"], reason(entry)
    for signature, file in facts["demucs"]["files"].items():
        if PurePosixPath(file["url"]).name not in known:
            yield signature, "forgotten"
    for model in facts["open_unmix"]["models"].values():
        for url in model["files"].values():
            if PurePosixPath(url).name not in known:
                yield url, "forgotten"
    for name, model in facts["torchaudio"]["models"].items():
        if PurePosixPath(model["path"]).name not in known:
            yield name, "forgotten"
    for file in facts["uvr"]["mdx_onnx_files"] + facts["uvr"]["vr_models"]:
        if file["filename"] not in known:
            yield file["filename"], "forgotten"


def reason(entry: Entry) -> str:
    """Say why a checkpoint has no card."""
    if found := REASONS.get(entry["id"]):
        return found
    if entry["family"] not in SUPPORTED:
        return OWN_GRAPH
    files = entry.get("files", [])
    if not any(file.get("url") for file in files):
        return "no address is known"
    if any(host in file["url"] for file in files for host in HOSTS):
        return PAGE
    return "forgotten"


if __name__ == "__main__":
    main(*sys.argv[1:])
