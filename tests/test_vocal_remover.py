"""Files of Ultimate Vocal Remover's "VR architecture": what is understood, and what is refused."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from torch import nn

from separator.checkpoints import vocal_remover
from separator.checkpoints.foreign import read_foreign
from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.zoo.adding import add_path
from separator.zoo.cards import Card
from separator.zoo.load import load_network

#: As in the program's file 4band_v3_sn.json, but for what it says about training.
FOUR_BANDS: dict[str, Any] = {
    "n_bins": 672,
    "unstable_bins": 8,
    "band": {
        "1": {
            **{"sr": 7350, "hl": 80, "n_fft": 640, "crop_start": 0, "crop_stop": 85},
            **{"lpf_start": 25, "lpf_stop": 53, "res_type": "polyphase"},
        },
        "2": {
            **{"sr": 7350, "hl": 80, "n_fft": 320, "crop_start": 4, "crop_stop": 87},
            **{"hpf_start": 25, "hpf_stop": 12, "lpf_start": 31, "lpf_stop": 62},
        },
        "3": {
            **{"sr": 14700, "hl": 160, "n_fft": 512, "crop_start": 17, "crop_stop": 216},
            **{"hpf_start": 48, "hpf_stop": 24, "lpf_start": 139, "lpf_stop": 210},
        },
        "4": {
            **{"sr": 44100, "hl": 480, "n_fft": 960, "crop_start": 78, "crop_stop": 383},
            **{"hpf_start": 130, "hpf_stop": 86, "convert_channels": "stereo_n"},
        },
    },
    "sr": 44100,
    "pre_filter_start": 668,
    "pre_filter_stop": 672,
}
SIZES = {"vr_aspp": {"width": 8}, "vr_lstm": {"width": 8, "lstm_width": 4}}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))


def make(name: str, bands: str = "4band_v3_sn") -> nn.Module:
    """Build a small network for public bands."""
    settings = vocal_remover.public_settings(bands, newer=name == "vr_lstm", first_stem="dry")
    network = build_network(name, stems=["dry", "echo"], **SIZES[name], **settings["parameters"])
    network.load_state_dict(reference.weights(network.state_dict()))
    return network.eval()


def save(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


def write_json(data: Any, path: Path) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", SIZES)
def test_a_public_file_is_known_by_its_end(name, tmp_path, monkeypatch):
    network = make(name)
    path = save(network, tmp_path / "UVR-De-Echo.pth")
    checksum = hashlib.md5(path.read_bytes()[-10_240_000:]).hexdigest()
    monkeypatch.setattr(vocal_remover, "PUBLIC_MODELS", f"{checksum} 4band_v3_sn dry echo")
    card = add_path(path)
    assert isinstance(card, Card)
    assert (card.name, card.network, card.stems) == ("uvr-de-echo", name, ("dry", "echo"))
    assert (card.recipe, card.overlap, card.sample_rate) == ("demucs", 0.1, 44100)
    assert card.parameters["width"] == 8
    loaded = load_network(card)
    mixture = reference.mixture(9000)
    with torch.inference_mode():
        assert torch.equal(loaded(mixture), network(mixture))


@pytest.mark.parametrize("name", SIZES)
def test_another_file_needs_its_bands(name, tmp_path):
    path = save(make(name), tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match=r"no public one .*modelparams.*--stems"):
        read_foreign(path)
    config = write_json(FOUR_BANDS, tmp_path / "4band_v3_sn.json")
    model = read_foreign(path, config, ("vocals", "rest"))
    assert model.stems == ("vocals", "rest")
    assert model.parameters["aggressiveness"] == 0.9
    assert read_foreign(path, config).stems == ("instrumental", "vocals")
    newer = name == "vr_lstm"
    expected = vocal_remover.public_settings("4band_v3_sn", newer=newer, first_stem="vocals")
    assert model.parameters.items() >= expected["parameters"].items()
    front_end = model.parameters["front_end"]
    assert ("rolloff" in front_end, "lowpass" in front_end) == (not newer, newer)
    assert [band.get("channels") for band in front_end["bands"]].count("stereo_n") == newer


def test_the_first_stem_of_a_soloist_is_pressed_harder():
    for stem, expected in {"vocals": 0.9, "back_vocals": 0.9, "dry": 0.1, "karaoke": 0.1}.items():
        settings = vocal_remover.public_settings("4band_v2", newer=False, first_stem=stem)
        assert settings["parameters"]["aggressiveness"] == expected


def test_all_public_bands_can_be_built():
    names = {line[32:].split()[0] for line in vocal_remover.PUBLIC_MODELS.strip().splitlines()}
    assert len(names) == 14
    for name in names:
        for network in SIZES:
            assert make(network, name).front_end.bins % 32 == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_bins": 640}, "another number of bins than 640"),
        ({"n_bins": None}, "'bins' is missing"),
        ({"n_bins": 704}, "another number of bins than 704"),
        ({"band": {}}, "bands 1, 2"),
        ({"band": {"2": FOUR_BANDS["band"]["2"]}}, "bands 1, 2"),
        ({"band": {"1": {"hl": 4}}}, "'band.1.n_fft' is missing"),
        ({"sr": "fast"}, "'sr'"),
        ({"pre_filter_start": 1e99}, "'pre_filter_start'"),
    ],
)
def test_refuses_bands_that_do_not_fit(change, message, tmp_path):
    path = save(make("vr_lstm"), tmp_path / "mine.pth")
    with pytest.raises(ConfigError, match=message):
        read_foreign(path, write_json(FOUR_BANDS | change, tmp_path / "bands.json"))


@pytest.mark.parametrize("text", ["{", "[1]", "", "[" * 100_000])
def test_refuses_what_holds_no_bands(text, tmp_path):
    path = save(make("vr_aspp"), tmp_path / "mine.pth")
    config = tmp_path / "bands.json"
    config.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"bands\.json"):
        read_foreign(path, config)
    with pytest.raises(ConfigError, match=r"no\.json"):
        read_foreign(path, tmp_path / "no.json")


def test_refuses_parameters_that_do_not_fit(tmp_path):
    config = write_json(FOUR_BANDS, tmp_path / "bands.json")
    state = make("vr_aspp").state_dict()
    path = tmp_path / "cut.pth"
    torch.save({key: value for key, value in state.items() if key != "out.weight"}, path)
    with pytest.raises(ModelError, match="missing or misshapen"):
        read_foreign(path, config)
    torch.save({key: value for key, value in state.items() if "stg2_bridge" not in key}, path)
    with pytest.raises(ModelError, match="missing"):
        read_foreign(path, config)
    torch.save(state | {"out.weight": state["out.weight"] * torch.inf}, path)
    with pytest.raises(ModelError, match="finite"):
        read_foreign(path, config)
    torch.save({"mask_generator.input_conv.weight": torch.ones(1)}, path)
    with pytest.raises(ConfigError, match=r"for networks of vocal-remover"):
        read_foreign(path, config)
    with pytest.raises(ConfigError, match="two stems"):
        read_foreign(save(make("vr_lstm"), path), config, ("vocals",))
