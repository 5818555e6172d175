"""Weights that come in a Python package: found, checked, read, and never imported."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.zoo.cards import Card, parse_card, read_card
from separator.zoo.describe import is_here, place_of
from separator.zoo.load import load_network
from separator.zoo.removing import can_be_removed
from separator.zoo.weights import packaged, weights_path
from separator.zoo.writing import write_card

PARAMETERS = {"dim": 8, "depth": 1, "heads": 2, "dim_head": 4}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEPARATOR_OFFLINE", raising=False)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with weights, whose code would fail."""
    site = tmp_path / "site"
    (site / "heavy").mkdir(parents=True)
    (site / "heavy" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "heavy-1.0.dist-info").mkdir()
    (site / "heavy-1.0.dist-info" / "METADATA").write_text("Name: heavy\nVersion: 1.0\n")
    torch.manual_seed(0)
    network = build_network("bs_roformer", stems=("vocals", "other"), **PARAMETERS)
    path = site / "heavy" / "w.safetensors"
    save_file({key: value.clone() for key, value in network.state_dict().items()}, path)
    monkeypatch.syspath_prepend(str(site))
    return path


def card_of(path: Path, folder: Path, **changes: Any) -> Card:
    content = path.read_bytes()
    known = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    data = {
        "name": "tiny",
        "description": "for the tests",
        "network": "bs_roformer",
        "parameters": PARAMETERS,
        "stems": ["vocals", "other"],
        "segment": 1,
        "weights": {
            "urls": ["http://127.0.0.1:1/w.tar.gz"],
            "sha256": "0" * 64,
            "format": "safetensors",
            "package": {"name": "heavy", "files": [{"path": "heavy/w.safetensors", **known}]},
            **changes,
        },
        "licence": "MIT",
    }
    card = read_card(write_card(parse_card(data, "tiny.yaml"), folder))
    assert isinstance(card, Card)
    return card


def test_a_package_is_read_and_not_imported(file: Path, tmp_path: Path) -> None:
    card = card_of(file, tmp_path)
    assert packaged(card) == (file,)
    assert is_here(card)
    assert place_of(card) == "bundled"
    assert not can_be_removed(card)
    assert load_network(card, offline=True).stems == ("vocals", "other")
    assert "heavy" not in sys.modules


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_package_weights_are_downloaded(
    file: Path, tmp_path: Path, offline: bool
) -> None:
    card = card_of(file, tmp_path)
    file.unlink()
    assert not is_here(card)
    message = "install the package 'heavy'" if offline else "http://127.0.0.1:1/w.tar.gz"
    with pytest.raises(ModelError, match=message) as caught:
        weights_path(card, offline=offline)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", [b"", b"x"])
def test_a_changed_package_is_refused_and_kept(file: Path, tmp_path: Path, more: bytes) -> None:
    card = card_of(file, tmp_path)
    weights_path(card)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) + more)
    with pytest.raises(
        ModelError, match=r"expected .* Install the package 'heavy' again"
    ) as caught:
        weights_path(card)
    assert "\n" not in str(caught.value)
    assert file.exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [("../heavy/w.bin", "'weights.package"), ("/etc/passwd", "'weights.package")],
)
def test_a_package_is_not_left(file: Path, tmp_path: Path, path: str, message: str) -> None:
    package = {"name": "heavy", "files": [{"path": path, "sha256": "0" * 64, "bytes": 1}]}
    with pytest.raises(ConfigError, match=message):
        card_of(file, tmp_path, package=package)


def test_a_package_stands_for_a_download(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a 'package' stands for a download"):
        card_of(file, tmp_path, urls=[], file="w.safetensors", bytes=1)
    entry = {"path": "heavy/w.bin", "sha256": "0" * 64, "bytes": 1}
    package = {"name": "heavy", "files": [entry, entry]}
    with pytest.raises(ConfigError, match="'safetensors' has all stems in one file"):
        card_of(file, tmp_path, package=package)
