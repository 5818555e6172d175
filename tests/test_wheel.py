"""The wheel brings its models, recipes and web page along, and finds them from anywhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from separator.resources import data_folder

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked into a folder as pip would do."""
    folder = tmp_path_factory.mktemp("wheel")
    ours = ("separator", "models", "configs", "pyproject.toml", "README.md", "LICENSE")
    for name in ours:
        source, copy = ROOT / name, folder / "source" / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(folder), str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, folder, *arguments):
    """Run the installed program in an empty folder."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "separator", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("folder", ["models", "configs"])
def test_all_cards_and_recipes_travel(installed, folder):
    there = {path.name for path in (installed / "separator" / f"_{folder}").rglob("*.yaml")}
    assert there == {path.name for path in data_folder(folder).rglob("*.yaml")}


def test_the_page_travels(installed):
    static = Path("separator", "web", "static")
    assert {p.name for p in (installed / static).iterdir()} == {
        p.name for p in (ROOT / static).iterdir()
    }


def test_nothing_but_the_package_is_installed(installed):
    assert {path.name.split("-")[0] for path in installed.iterdir()} == {"separator"}


def test_it_runs_in_an_empty_folder(installed, tmp_path):
    assert "pocket" in run(installed, tmp_path, "models")
    song = data_folder("models") / "demo" / "mixture.flac"
    run(installed, tmp_path, "separate", str(song), "-o", "out", "--duration", "1")
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 4
