"""Cards, the search for them, and the way from a card to a network."""

import errno
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from safetensors.torch import save_file

from separator.checkpoints.states import READERS
from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.resources import data_folder
from separator.stream.segments import RECIPES
from separator.zoo import weights as weights_module
from separator.zoo.adding import add_model
from separator.zoo.cards import Card, Weights, parse_card, read_card
from separator.zoo.load import load_network
from separator.zoo.search import find_card, list_cards, survey
from separator.zoo.weights import is_available, local_path, weights_path
from separator.zoo.writing import write_card

PARAMETERS = {"dim": 8, "depth": 1, "heads": 2, "dim_head": 4}
CARD: dict[str, Any] = {
    "name": "tiny",
    "description": "for the tests",
    "network": "bs_roformer",
    "parameters": PARAMETERS,
    "stems": ["vocals", "other"],
    "segment": 1,
    "weights": {
        "file": "tiny.safetensors",
        "sha256": "0" * 64,
        "bytes": 5,
        "format": "safetensors",
    },
    "licence": "MIT",
    "scores": [{"dataset": "x", "definition": "uSDR", "values": {"vocals": 3}, "source": "y"}],
}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own cards and cache out of the tests."""
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEPARATOR_OFFLINE", raising=False)
    (tmp_path / "models").mkdir()


def save_model(folder: Path, **changes: Any) -> tuple[Card, torch.nn.Module]:
    """Write a card with its weights, and return both."""
    torch.manual_seed(0)
    network = build_network("bs_roformer", stems=("vocals", "other"), **PARAMETERS)
    path = folder / "tiny.safetensors"
    save_file({key: value.clone() for key, value in network.state_dict().items()}, path)
    content = path.read_bytes()
    found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    card = parse_card({**CARD, "weights": {**CARD["weights"], **found}, **changes}, "tiny.yaml")
    return read_card(write_card(card, folder)), network


def remote(card: Card) -> Card:
    """Return the card with an address in place of a file."""
    weights = {**card.model_dump()["weights"], "file": None, "urls": ("http://127.0.0.1:1/w.bin",)}
    return parse_card({**card.model_dump(), "weights": weights}, "tiny.yaml")


# Cards


def test_a_card_survives_writing_and_reading(tmp_path: Path) -> None:
    card = parse_card(CARD, "tiny.yaml")
    again = read_card(write_card(card, tmp_path))
    assert again.model_dump() == card.model_dump()
    assert again.bundled == tmp_path / "tiny.safetensors"
    assert again.segment_samples == 44100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licens": "MIT"}, "unknown key 'licens'. Did you mean 'licence'?"),
        ({"weights": {"sha": "x"}}, "unknown key 'weights.sha'. Did you mean 'sha256'?"),
        ({"weights": {"sha256": "x"}}, "'weights.sha256'"),
        ({"weights": {"file": None}}, "give either 'file' (bundled) or 'urls' (downloaded)"),
        ({"weights": {"urls": ["http://x/y"]}}, "give either 'file' (bundled) or 'urls'"),
        ({"weights": {"file": None, "urls": ["file:///etc/passwd"]}}, "only http and https"),
        ({"weights": {"format": "pickle"}}, "'weights.format'"),
        ({"scores": [{"dataset": "x", "set": 1}]}, "scores.0."),
        ({"overlap": 1.0}, "'overlap': input should be less than 1, got 1.0"),
        ({"segment": -1}, "'segment'"),
        ({"segment": float("nan")}, "'segment'"),
        ({"sample_rate": "44100"}, "'sample_rate': input should be a valid integer, got '44100'"),
        ({"stems": []}, "'stems'"),
        ({"stems": ["a", "../../b"]}, "'stems.1'"),
        ({"stems": ["a", "a"]}, "need different names"),
        ({"residual": "vocals"}, "need different names"),
        ({"stems": "unordered"}, "no fixed order can't be run yet"),
        ({"name": "../x"}, "'name'"),
        ({"normalization": "peak"}, "should be 'none' or 'track'"),
        ({"parameters": {"sample_rate": 8000}}, "field of the card itself"),
        ({"licence": None}, "'licence'"),
        ({"members": []}, "'members': value should have at least 1 item"),
    ],
)
def test_mistakes_in_a_card(change: dict[str, Any], message: str) -> None:
    data = {
        key: {**CARD.get(key, {}), **value} if key == "weights" else value
        for key, value in {**CARD, **change}.items()
    }
    with pytest.raises(ConfigError) as caught:
        parse_card(data, "tiny.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("tiny.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- a", "expected a mapping"),
        ("", "expected a mapping"),
        ("x: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_files_that_are_no_cards(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_card(path)
    assert "\n" not in str(caught.value)


def test_cards_know_all_formats_and_recipes() -> None:
    formats = get_args(Weights.model_fields["format"].annotation)
    assert set(formats) == set(READERS)
    assert set(get_args(Card.model_fields["recipe"].annotation)) == set(RECIPES)


# The search


def test_cards_are_found_by_name_file_and_folder(tmp_path: Path) -> None:
    card, _ = save_model(tmp_path / "models")
    assert card.path is not None
    for name in ("tiny", str(card.path), str(card.path.parent)):
        assert find_card(name) == card
    assert "tiny" in [found.name for found in list_cards()]
    with pytest.raises(ModelError, match=r"Unknown model 'tyny'.*Did you mean 'tiny'\?"):
        find_card("tyny")
    with pytest.raises(ConfigError, match="Can't read"):
        find_card(str(tmp_path / "nothing.yaml"))
    with pytest.raises(ModelError, match="holds 0 cards"):
        find_card(str(data_folder("models") / "weights"))


def test_a_card_replaces_no_other(tmp_path: Path) -> None:
    taken = list_cards()[0].name
    write_card(parse_card({**CARD, "name": taken}, "x"), tmp_path / "models")
    assert find_card("pocket").name == "pocket"  # others are none the worse for it
    for search in (list_cards, lambda: find_card(taken)):
        with pytest.raises(ConfigError, match=f"Two cards are called '{taken}'"):
            search()


def test_a_bad_card_is_named_and_hides_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    taken = list_cards()[0].name
    write_card(parse_card(CARD, "x"), folder)
    write_card(parse_card({**CARD, "name": taken}, "x"), folder)
    (folder / "half.yaml").write_text("name: half\ndescription: 'cut sho")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "empty.yaml").write_text("")
    (folder / "folder.yaml").mkdir()
    (folder / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (folder / "date.yaml").write_text("name: date\nsource: 2024-02-30\n")
    (folder / "typo.yaml").write_text("name: typo\nstem: [a]\n")
    cards, problems = survey()
    bundled = {card.name for card in list_cards([data_folder("models")])}
    assert {card.name for card in cards} == {*bundled, "tiny"}
    assert [card.name for card in cards] == sorted(card.name for card in cards)
    assert next(card for card in cards if card.name == taken).folder == data_folder("models")
    assert len(problems) == 8 and not any("\n" in problem for problem in problems)
    for name in ("half", "bytes", "date", "empty", "folder", "gone", "typo", taken):
        assert any(f"{name}.yaml" in problem for problem in problems)


def test_a_card_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = parse_card(CARD, "x")
    folder = tmp_path / "models"
    path = write_card(card, folder)
    before = path.read_text()
    assert list(folder.iterdir()) == [path]
    write = Path.write_text

    def half(self: Path, text: str, **options: Any) -> int:
        write(self, text[: len(text) // 2], **options)
        assert path.read_text() == before, "whoever reads meanwhile finds the old card"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space"):
        write_card(card.model_copy(update={"description": "another"}), folder)
    assert list(folder.iterdir()) == [path] and path.read_text() == before


def test_a_card_is_called_as_its_file(tmp_path: Path) -> None:
    path = write_card(parse_card(CARD, "x"), tmp_path)
    with pytest.raises(ConfigError, match="'name' must be the file's name, got 'tiny'"):
        read_card(path.rename(tmp_path / "other.yaml"))


def test_listing_models_needs_no_torch() -> None:
    program = (
        "import sys, separator.zoo.search as z; z.list_cards(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Weights


def test_a_network_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    card, network = save_model(tmp_path)
    loaded = load_network(card)
    mixture = torch.randn(1, 2, 5000)
    with torch.inference_mode():
        assert loaded(mixture).equal(network.eval()(mixture))
    assert not loaded.training
    assert (loaded.stems, loaded.sample_rate, loaded.channels) == (("vocals", "other"), 44100, 2)


def test_bundled_weights_are_verified(tmp_path: Path) -> None:
    card, _ = save_model(tmp_path)
    path = tmp_path / "tiny.safetensors"
    assert weights_path(card) == path
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert not is_available(card)
    with pytest.raises(ModelError, match=f"expected {len(content)} bytes, got {len(content) - 1}"):
        weights_path(card)
    path.write_bytes(content[:-1] + b"\xff")
    with pytest.raises(ModelError, match=f"expected sha256 {card.weights.sha256}, got"):
        weights_path(card)
    assert path.exists()  # what the user put there is never removed
    path.unlink()
    with pytest.raises(ModelError, match="weights of 'tiny' are missing"):
        weights_path(card)


def test_a_hash_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, _ = save_model(tmp_path)
    computed: list[Path] = []
    original = weights_module.sha256_of
    monkeypatch.setattr(
        weights_module, "sha256_of", lambda path: computed.append(path) or original(path)
    )
    weights_path(card)
    weights_path(card)
    assert len(computed) == 1
    weights_path(card, verify=True)
    assert len(computed) == 2
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(path.read_bytes())  # another file, though the same bytes
    weights_path(card)
    assert len(computed) == 3


@pytest.mark.parametrize("known", [{"digits": 8}, {"digits": 8, "bytes": True}, {"bytes": True}])
def test_downloads_are_held_against_what_is_published(tmp_path: Path, known: dict) -> None:
    card = remote(save_model(tmp_path)[0])
    content = (tmp_path / "tiny.safetensors").read_bytes()
    digits, size = known.get("digits", 0), card.weights.bytes if "bytes" in known else None
    weights = card.weights.model_copy(
        update={"sha256": str(card.weights.sha256)[:digits] or None, "bytes": size}
    )
    card = card.model_copy(update={"weights": weights})
    path = local_path(card)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert is_available(card)
    assert load_network(card).stems == card.stems
    path.write_bytes(content[:-4])
    with pytest.raises(ModelError, match="expected"):
        weights_path(card)


def test_a_download_of_which_nothing_is_published_must_fit_its_network(tmp_path: Path) -> None:
    card = remote(save_model(tmp_path)[0])
    weights = card.weights.model_copy(update={"sha256": None, "bytes": None})
    card = card.model_copy(update={"weights": weights})
    path = local_path(card)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = (tmp_path / "tiny.safetensors").read_bytes()
    path.write_bytes(content)
    assert weights_path(card) == path
    assert load_network(card).stems == card.stems
    path.write_bytes(content[:-4])
    with pytest.raises(ModelError, match="damaged"):
        load_network(card)
    other = card.model_copy(update={"parameters": {**PARAMETERS, "dim": 16}})
    path.write_bytes(content)
    with pytest.raises(ModelError, match="of another shape"):
        load_network(other)


def test_what_is_not_known_of_weights_is_said() -> None:
    file = {"format": "safetensors", "urls": ["https://example.org/a.pt"]}
    assert Weights(**file, sha256="0" * 64).doubt is None
    assert "only 8 digits" in str(Weights(**file, sha256="0" * 8).doubt)
    assert "its size is checked" in str(Weights(**file, bytes=5).doubt)
    assert "that it fits its network" in str(Weights(**file).doubt)
    with pytest.raises(ValueError, match="of a bundled file, give 'sha256'"):
        Weights(format="safetensors", file="a.pt", sha256="0" * 8, bytes=5)


def test_a_damaged_download_is_removed(tmp_path: Path) -> None:
    card = remote(save_model(tmp_path)[0])
    path = local_path(card)
    path.parent.mkdir(parents=True)
    path.write_bytes((tmp_path / "tiny.safetensors").read_bytes()[::-1])
    with pytest.raises(ModelError, match="It was removed; run again"):
        weights_path(card)
    assert not path.exists()


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = remote(save_model(tmp_path)[0])
    with pytest.raises(ModelError, match="no connection"):
        weights_path(card)
    with pytest.raises(ModelError, match=r"downloads are off.*separator models download tiny"):
        weights_path(card, offline=True)
    monkeypatch.setenv("SEPARATOR_OFFLINE", "1")
    with pytest.raises(ModelError, match="downloads are off"):
        weights_path(card)
    with pytest.raises(ModelError, match="no connection"):
        weights_path(card, offline=False)
    path = local_path(card)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((tmp_path / "tiny.safetensors").read_bytes())
    assert weights_path(card) == path
    assert is_available(card)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    card, _ = save_model(tmp_path, parameters={**PARAMETERS, "depth": 2})
    with pytest.raises(ModelError, match=r"don't fit BSRoformer: \d+ parameters missing"):
        load_network(card)
    card, _ = save_model(tmp_path, parameters={**PARAMETERS, "dimm": 2})
    with pytest.raises(ConfigError, match="'dimm'"):
        load_network(card)


# A community checkpoint becomes a model


@pytest.mark.parametrize("copy", [False, True])
def test_adding_a_model(tmp_path: Path, copy: bool) -> None:
    _, network = save_model(tmp_path)
    checkpoint, config = tmp_path / "My Model (v2).ckpt", tmp_path / "c.yaml"
    torch.save({"state_dict": network.state_dict()}, checkpoint)
    sections = {
        "audio": {"chunk_size": 44100},
        "model": {"dim": 8, "depth": 1, "stft_hop_length": 441, "zero_dc": False},
        "training": {"instruments": ["vocals", "other"]},
    }
    config.write_text(yaml.safe_dump(sections))
    add_model(checkpoint, config, copy=copy)
    card = find_card("my-model-v2")
    assert (card.licence, card.overlap, card.segment) == ("not stated", 0.5, 1.0)
    assert card.path == tmp_path / "models" / "my-model-v2.yaml"
    assert weights_path(card).is_relative_to(tmp_path / "models") == copy
    mixture = torch.randn(1, 2, 3000)
    with torch.inference_mode():
        assert load_network(card)(mixture).equal(network.eval()(mixture))
    with pytest.raises(ConfigError, match="There is a model 'my-model-v2' already"):
        add_model(checkpoint, config)
    assert add_model(checkpoint, config, name="other").name == "other"
