"""`separator ensemble fit`: the best weights, as a card."""

import numpy as np
import pytest
import soundfile
from conftest import music
from gain_models import RATE, gains_of

from separator.zoo.cards import read_card

pytest_plugins = ["gain_models"]


class TestFit:
    @pytest.fixture
    def songs(self, tmp_path):
        """Write two songs in which vocals are 30 % of the mixture and drums 70 %."""
        for seed, level in enumerate((1.0, 0.01)):  # a quiet song counts as much
            folder = tmp_path / "songs" / str(seed)
            folder.mkdir(parents=True)
            mixture = level * music(0.5, RATE, seed=seed)
            for name, gain in {"mixture": 1.0, "vocals": 0.3, "drums": 0.7}.items():
                path = folder / f"{name}.wav"
                soundfile.write(path, gain * mixture.T, RATE, subtype="FLOAT")
        return tmp_path / "songs"

    def test_finds_the_best_weights_and_writes_the_card(
        self, zoo, cli, songs, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
        monkeypatch.setattr("separator.cli.ensemble.fetch_weights", lambda card: None)
        zoo.model("all", {"vocals": 1.0, "drums": 1.0})
        zoo.model("none", {"vocals": 0.0, "drums": 0.5})
        zoo.model("worse", {"vocals": 4.0, "bass": 1.0}, normalization="track")
        result = cli("ensemble", "fit", "best", "-m", "all,none,worse", "--songs", songs)
        assert "0.300 (-7.36 dB)" in result.output  # 20 log10 0.7 / 0.3
        card = read_card(tmp_path / "best.yaml")
        assert card.stems == ("vocals", "drums")
        found = {part.model: dict(part.weights) for part in card.members}
        total = {stem: sum(w.get(stem, 0) for w in found.values()) for stem in card.stems}
        assert total == pytest.approx({"vocals": 1, "drums": 1}, abs=1e-3)
        estimate = gains_of(zoo.separator("best", overlap=0.5))
        assert estimate == pytest.approx({"vocals": 0.3, "drums": 0.7}, abs=2e-3)

    def test_members_that_only_harm_are_left_out(self, zoo, cli, songs, tmp_path, monkeypatch):
        monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
        monkeypatch.setattr("separator.cli.ensemble.fetch_weights", lambda card: None)
        zoo.model("low", {"vocals": 0.4})
        zoo.model("high", {"vocals": 0.9})
        cli("ensemble", "fit", "best", "-m", "low,high", "--songs", songs, "--stems", "vocals")
        (only,) = read_card(tmp_path / "best.yaml").members
        assert (only.model, only.weights) == ("low", {"vocals": 1.0})

    def test_mistakes_are_named(self, zoo, cli, songs, tmp_path, monkeypatch):
        monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
        zoo.model("a", {"vocals": 1.0})
        zoo.model("b", {"vocals": 0.5})
        zoo.model("fast", {"vocals": 0.5}, sample_rate=48000)
        models = ("-m", "a,b")
        for words, message in (
            (("x", "-m", "a", "--songs", songs), "fewer than two"),
            (("a", *models, "--songs", songs), "There is a model 'a' already"),
            (("X", *models, "--songs", songs), "X: 'name'"),
            (("x", *models, "--songs", tmp_path / "nowhere"), "no songs"),
            (("x", *models, "--songs", songs, "--stems", "piano"), "No song has the stem 'piano'"),
            (("x", "-m", "a,fast", "--songs", songs), "48000 Hz"),
            (("x", *models, "--songs", songs, "--folder", songs / "0/vocals.wav"), "can't be made"),
        ):
            assert message in cli("ensemble", "fit", *words, code=2).output
        soundfile.write(songs / "1" / "vocals.wav", np.zeros((10, 2)), RATE)
        monkeypatch.setattr("separator.cli.ensemble.fetch_weights", lambda card: None)
        failed = cli("ensemble", "fit", "x", *models, "--songs", songs, code=1)
        assert "must be alike" in failed.output
        assert not (tmp_path / "x.yaml").exists()
