"""The cards that travel with the program: sizes, provenance, members."""

from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from separator.checkpoints.mdx_onnx import graph_settings
from separator.checkpoints.vocal_remover import public_settings as band_settings
from separator.networks import build_network
from separator.resources import DEFAULT_MODEL, data_folder
from separator.zoo.cards import Card, Ensemble
from separator.zoo.describe import place_of
from separator.zoo.load import load_network
from separator.zoo.members import find_members
from separator.zoo.search import find_card, list_cards


@cache
def size_of(network: str, parameters: str, stems: int, channels: int) -> tuple[int, int]:
    """Return the numbers of parameters and of keys."""
    names = [f"stem{index}" for index in range(stems)]
    with torch.device("meta"):
        built = build_network(network, stems=names, channels=channels, **yaml.safe_load(parameters))
    state = built.state_dict()
    return sum(value.numel() for value in state.values()), len(state)


MODELS = [card for card in list_cards([data_folder("models")]) if isinstance(card, Card)]
PUBLIC = [card for card in MODELS if card.weights.urls]
ENSEMBLES = [card for card in list_cards([data_folder("models")]) if isinstance(card, Ensemble)]
#: Bytes per key besides the numbers themselves: those of PyTorch, and what else a file holds.
OVERHEADS = {
    "open_unmix": (490, 520),  # a window
    "bandit": (490, 520),  # windows and filters
    "onnx": (0, 1),
    "spleeter": (-40_000, -35_000),  # compressed by 7 %
}
#: Bytes per key of files that PyTorch wrote before version 1.6.
OLDER = {"vr-mgm-highend": (220, 250)}
#: Numbers in files besides the parameters: matrices of Fourier transforms of 512 samples.
TRANSFORMS = {"bytesep": 2 * 257 * 512 + 2 * 512 * 512 + 512}
#: Their hyper-parameters are known from their files alone.
IN_THE_FILE = {"mdx-0d19c1c6", "mdx-7ecf8ec1", "mdx-c511e2ab", "mdx-7d865c68"}
#: Numbers in the networks whose files' sizes nobody publishes, as their programs make them.
NUMBERS = {"umx": 8_903_595, "umxl": 28_269_483}


@pytest.mark.parametrize(
    "card", [card for card in PUBLIC if card.weights.bytes], ids=lambda card: card.name
)
def test_networks_have_the_size_of_their_files(card: Card) -> None:
    parameters = yaml.safe_dump(card.parameters)
    numbers, keys = size_of(card.network, parameters, len(card.stems), card.channels)
    numbers += TRANSFORMS.get(card.weights.format, 0)
    usual = OVERHEADS.get(card.weights.format, (290, 460))
    low, high = OLDER.get(card.name, usual)
    overheads = [(card.weights.bytes - width * numbers) / keys for width in (4, 2, 1)]
    fits = any(low <= overhead <= high for overhead in overheads)
    if "_q-" in card.name:  # quantised to as many bits as each group of numbers needs
        fits = 2 < 8 * card.weights.bytes / numbers < 15
    assert fits != (card.name in IN_THE_FILE)


@pytest.mark.parametrize(
    "card", [card for card in PUBLIC if not card.weights.bytes], ids=lambda card: card.name
)
def test_networks_of_files_of_unknown_size_can_be_built(card: Card) -> None:
    parameters = yaml.safe_dump(card.parameters)
    numbers, _ = size_of(card.network, parameters, len(card.stems), card.channels)
    assert numbers == NUMBERS.get(card.name.split("-")[0], numbers) > 1_000_000
    assert card.weights.doubt is not None or card.network == "spleeter"


def test_what_is_not_published_is_neither_invented_nor_hidden() -> None:
    hashes = {card.name: card.weights.sha256 for card in PUBLIC}
    in_the_name = {name for name, found in hashes.items() if found and len(found) == 8}
    for name in in_the_name:  # Demucs and Open-Unmix put the first digits there
        card = find_card(name)
        assert isinstance(card, Card)
        assert f"{hashes[name]}." in card.file_name
    doubtful = {name for name, found in hashes.items() if found is None or len(found) < 64}
    assert doubtful == {card.name for card in PUBLIC if card.weights.doubt}
    assert len([name for name in doubtful if not name.startswith("mdx-net-")]) < 50
    once = {name: found for name, found in hashes.items() if not name.endswith("-16khz")}
    full = [found for found in once.values() if found and len(found) == 64]
    assert len(full) == len(set(full)) == len(once) - len(doubtful) > 150
    assert all(len(set(card.weights.urls)) == len(card.weights.urls) for card in PUBLIC)


def test_mdx_nets_are_set_up_as_their_checksums_say() -> None:
    known = Path(__file__).parents[1] / "scripts" / "known_checkpoints.yaml"
    facts = yaml.safe_load(known.read_text(encoding="utf-8"))["mdx_net"]["models"]
    cards = {card.name: card for card in PUBLIC if card.network == "mdx_onnx"}
    assert set(cards) == set(facts)
    for name, card in cards.items():
        stem, parameters = graph_settings(facts[name]["md5"])
        assert card.stems == (stem,)
        assert card.parameters == {"graph_bytes": card.weights.bytes, **parameters}
        network = build_network("mdx_onnx", stems=[stem], **card.parameters | {"graph_bytes": 1})
        assert card.segment_samples % network.step == 0  # nothing is computed in vain


def test_networks_of_vocal_remover_have_the_bands_that_their_names_say() -> None:
    known = Path(__file__).parents[1] / "scripts" / "known_checkpoints.yaml"
    facts = yaml.safe_load(known.read_text(encoding="utf-8"))["vocal_remover"]["models"]
    cards = {card.name: card for card in PUBLIC if card.network.startswith("vr_")}
    assert set(cards) == set(facts)
    for name, card in cards.items():
        newer = card.network == "vr_lstm"
        bands = facts[name]["bands"]
        expected = band_settings(bands, newer=newer, first_stem=card.stems[0])
        assert card.parameters.items() >= expected.pop("parameters").items()
        assert all(getattr(card, field) == value for field, value in expected.items())
        with torch.device("meta"):
            network = build_network(card.network, stems=card.stems, **card.parameters)
        seen = network.valid_length(card.segment_samples) // network.front_end.hop_length + 1
        assert seen % network.step == 0  # nothing is computed in vain
        highest = network.front_end.bands[-1]
        limit = highest.crop[1] / highest.n_fft * card.sample_rate
        assert ("Neither stem has anything above" in str(card.note)) == (limit < 20_000)


@pytest.mark.parametrize("card", ENSEMBLES, ids=lambda card: card.name)
def test_ensembles_have_their_members(card: Ensemble) -> None:
    assert {model.name for model in find_members(card).models} <= {model.name for model in MODELS}


def test_bags_of_demucs_weigh_as_their_authors_do() -> None:
    def givers(name: str) -> dict[str, list[str]]:
        card = find_card(name)
        assert isinstance(card, Ensemble)
        assert card.stems == ("drums", "bass", "other", "vocals")
        return {
            stem: [member.model for member in card.members if stem in (member.stems or card.stems)]
            for stem in card.stems
        }

    tuned = givers("htdemucs_ft")
    assert tuned == {stem: [f"htdemucs_ft-{stem}"] for stem in tuned}
    first, second, *hybrids = (
        f"mdx-{name}" for name in ["0d19c1c6", "7ecf8ec1", "c511e2ab", "7d865c68"]
    )
    both = dict.fromkeys(("other", "vocals"), hybrids)
    assert givers("mdx") == {"drums": [first, *hybrids], "bass": [first, second], **both}
    for name in ("mdx_extra", "mdx_extra_q"):
        assert {len(found) for found in givers(name).values()} == {4}
    tree = find_members(find_card("vocals-then-demucs"))
    assert len(tree.models) == 8
    segments = {card.segment for card in PUBLIC if card.name.startswith("mdx_extra")}
    assert segments == {44.0}


def test_doubtful_provenance_is_said() -> None:
    assert "out of a commercial product" in str(find_card("bs-roformer-sw").note)
    for name in ("mdx_extra", "mdx_extra_q", "hdemucs_high_musdb_plus"):
        assert "scores on them mean nothing" in str(find_card(name).note)
        assert not find_card(name).scores
    demucs = [card for card in PUBLIC if card.weights.format == "demucs"]
    assert {card.licence for card in demucs} == {"conflicting"}
    assert all("Sources disagree about the licence" in str(card.note) for card in demucs)
    assert len(PUBLIC) > 170


def test_the_default_model_needs_no_download_and_says_what_it_has_heard() -> None:
    card = find_card(DEFAULT_MODEL)
    assert set(card.stems) == {"drums", "bass", "other", "vocals"}
    assert place_of(card) == "bundled"
    assert "synthetic music only" in card.training_data
    assert "pocket" in [model.name for model in find_members(card).models]


def test_bundled_models_are_whole() -> None:
    bundled = [card for card in MODELS if card.bundled]
    for card in bundled:
        assert load_network(card).stems == card.stems


def test_every_package_is_installed() -> None:
    tomllib = pytest.importorskip("tomllib")
    root = data_folder("models").parent
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(root).parts)
        for path in (root / "separator").rglob("__init__.py")
    }
    assert found <= set(settings["packages"])
