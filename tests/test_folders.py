"""Folders of cards and of caches: the system's, the variables', and none where there is no home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import music
from soundfile import write

from separator.errors import ConfigError
from separator.resources import cache_dir, card_folders, data_folder, user_folder
from separator.zoo.search import find_card
from separator.zoo.speeds import Speeds
from separator.zoo.weights import is_available, weights_path

VARIABLES = ("SEPARATOR_MODELS", "SEPARATOR_CACHE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the home unknown, as it is where HOME is not set and the user has no entry."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_the_systems_folders(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_folder() == home / ".config/separator/models"
    assert cache_dir() == home / ".cache/separator"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    assert cache_dir() == home / "elsewhere/separator"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_cards_of_earlier_versions_are_still_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "settings"))
    new, earlier = home / "settings/separator/models", home / ".config/separator/models"
    assert card_folders() == [data_folder("models"), new]
    earlier.mkdir(parents=True)
    assert card_folders() == [data_folder("models"), new, earlier]
    monkeypatch.setenv("SEPARATOR_MODELS", str(home / "mine"))
    assert card_folders() == [data_folder("models"), home / "mine"]


def test_without_a_home_the_bundled_model_works(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homeless(monkeypatch)
    assert card_folders() == [data_folder("models")]
    assert weights_path(find_card("pocket")).is_file()
    assert not is_available(find_card("htdemucs"))
    Speeds().note("pocket", 1.0, 60.0)
    with pytest.raises(ConfigError, match="set HOME, or SEPARATOR_CACHE"):
        weights_path(find_card("htdemucs"))
    with pytest.raises(ConfigError, match="set HOME, or SEPARATOR_MODELS"):
        user_folder()


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("setpriv") or os.name == "nt" or os.geteuid() != 0,
    reason="only root can become a user without an entry",
)
def test_commands_of_a_user_without_an_entry(tmp_path: Path) -> None:
    write(tmp_path / "song.wav", music(2).T, 44100)
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    kept = {k: v for k, v in os.environ.items() if k not in (*VARIABLES, "HOME")}
    stranger = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    command = [*stranger, sys.executable, "-m", "separator"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
        )

    for words in (["separate", "song.wav", "-o", "out"], ["models"], ["info"]):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out/song").glob("*.wav"))) == 4
    done = run("models", "download", "htdemucs")
    assert done.returncode == 2
    assert "set HOME" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
