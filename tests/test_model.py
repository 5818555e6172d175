"""Several networks that work as one: what comes out, in step, for any blocks."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import reference
import soundfile
import torch
import yaml
from conftest import music, weights_entry
from gain_models import MIX, RATE, Gains, gains_of
from safetensors.torch import save_file

from separator.api import Separator, load_model
from separator.ensemble.combine import combine
from separator.errors import Cancelled, ModelError
from separator.networks import build_network
from separator.spectral.masks import wiener
from separator.spectral.stft import STFT
from separator.stream.facts import track_statistics
from separator.stream.inference import Plan, separate_stream

pytest_plugins = ["gain_models"]


class TestEnsemblesAsStreams:
    def test_a_bag_has_weights_for_each_stem(self, zoo):
        zoo.model("a", {"drums": 0.1, "vocals": 0.2})
        zoo.model("b", {"drums": 0.5, "vocals": 0.6})
        zoo.model("c", {"vocals": 0.9})
        zoo.ensemble(
            "bag",
            ["vocals", "drums"],
            [
                {"model": "a", "weights": {"drums": 1, "vocals": 1}},
                {"model": "b", "weights": {"drums": 3}},
                {"model": "c", "weights": {"vocals": 6}},
            ],
        )
        expected = {"vocals": (0.2 + 6 * 0.9) / 7, "drums": (0.1 + 3 * 0.5) / 4}
        assert gains_of(zoo.separator("bag")) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize(
        ("algorithm", "expected"), [("mean", 0.1), ("median", 0.2), ("min", 0.2), ("max", -0.6)]
    )
    @pytest.mark.parametrize("domain", ["time", "stft"])
    def test_every_algorithm_in_both_domains(self, zoo, algorithm, domain, expected):
        for name, gain in {"a": 0.7 if algorithm == "mean" else 0.3, "b": -0.6, "c": 0.2}.items():
            zoo.model(name, {"vocals": gain})
        zoo.ensemble("e", ["vocals"], ["a", "b", "c"], algorithm=algorithm, domain=domain)
        assert gains_of(zoo.separator("e")) == pytest.approx({"vocals": expected}, abs=1e-5)

    def test_chain_separates_what_is_left_and_what_was_found(self, zoo):
        zoo.model("vocals", {"vocals": 0.5})
        zoo.model("band", {"drums": 0.5, "bass": 0.3, "vocals": 0.2})
        zoo.model("karaoke", {"lead_vocals": 0.8})
        zoo.model("dereverb", {"dry": 0.9})
        zoo.ensemble(
            "all",
            ["lead", "back", "drums", "bass"],
            [
                {"model": "vocals", "residual": "instrumental"},
                {"model": "band", "input": "instrumental", "stems": ["drums", "bass"]},
                {
                    "model": "karaoke",
                    "input": "vocals",
                    "stems": {"lead_vocals": "wet"},
                    "residual": "back",
                },
                {"model": "dereverb", "input": "wet", "stems": {"dry": "lead"}},
            ],
        )
        expected = {"lead": 0.36, "back": 0.1, "drums": 0.25, "bass": 0.15}
        separator = zoo.separator("all")
        assert gains_of(separator) == pytest.approx(expected, abs=1e-5)
        for network in zoo.networks.values():
            network.calls = 0
        some = gains_of(separator, stems=["back"], residual="rest")
        assert some == pytest.approx({"back": 0.1, "rest": 0.9}, abs=1e-5)
        assert not zoo.networks["band"].calls
        assert not zoo.networks["dereverb"].calls
        assert zoo.networks["vocals"].calls == zoo.networks["karaoke"].calls > 0

    @pytest.mark.parametrize("augmentations", [(), ("swap", "polarity")])
    def test_a_member_hears_several_rows_and_separates_the_first(self, zoo, augmentations):
        zoo.model("vocals", {"vocals": 0.6})
        zoo.model("band", {"drums": 0.1, "bass": 0.2}, parameters={"inputs": 2})
        members = [
            {"model": "vocals", "residual": "band"},
            {"model": "band", "input": ["band", "vocals"], "residual": "rest"},
        ]
        zoo.ensemble("e", ["vocals", "drums", "bass", "rest"], members)
        heard = 0.4 + 10 * 0.6
        stems = {"vocals": 0.6, "drums": 0.1 * heard, "bass": 0.2 * heard}
        expected = {**stems, "rest": 0.4 - stems["drums"] - stems["bass"]}
        separator = zoo.separator("e", augmentations=augmentations)
        assert gains_of(separator) == pytest.approx(expected, abs=1e-5)
        some = gains_of(separator, stems=["drums"])  # needs the vocals all the same
        assert some == pytest.approx({"drums": 0.1 * heard}, abs=1e-5)

    def test_ensembles_of_ensembles(self, zoo):
        zoo.model("a", {"vocals": 0.2})
        zoo.model("b", {"vocals": 0.6})
        zoo.ensemble("inner", ["vocals"], ["a", "b"])
        zoo.ensemble("outer", ["vocals"], ["inner", {"model": "b", "weights": {"vocals": 3}}])
        assert gains_of(zoo.separator("outer")) == pytest.approx({"vocals": 0.55}, abs=1e-5)
        assert zoo.loads == {"a": 1, "b": 1}

    def test_members_cut_the_song_their_own_way(self, zoo):
        zoo.model("a", {"vocals": 1.0})
        zoo.model("b", {"vocals": 1.0}, segment=0.037, overlap=0.6)
        members = ["a", {"model": "b", "shifts": 3}, {"model": "a", "segment": 5, "overlap": 0.5}]
        zoo.ensemble("e", ["vocals"], members, algorithm="median")
        separator = zoo.separator("e")
        for samples in (1, 2, 799, 800, 801, 4800):
            stem = separator.separate(MIX[:, :samples], RATE)["vocals"]
            torch.testing.assert_close(stem, MIX[:, :samples], atol=1e-6, rtol=0)
        asked = separator.with_knobs(replace(separator.knobs, overlap=0.1, shifts=2)).settings[
            "members"
        ]
        assert [member["overlap"] for member in asked] == [0.1] * 3
        assert [member["shifts"] for member in asked] == [2] * 3
        own = separator.settings["members"]
        assert [member["overlap"] for member in own] == [0.25, 0.6, 0.5]
        assert [member["shifts"] for member in own] == [0, 3, 0]
        assert [member["segment_samples"] for member in own] == [800, 296, 40000]
        assert zoo.loads == {"a": 1, "b": 1}

    def test_each_member_sees_the_level_that_it_wants(self, zoo):
        zoo.model("a", {"vocals": 0.5})
        zoo.model("b", {"vocals": 0.5}, normalization="track")
        zoo.ensemble("e", ["vocals"], ["a", "b"])
        separator = zoo.separator("e")
        assert separator.needs_statistics
        loud = MIX + 0.2
        mean = loud.mean()  # the normalised member returns half the deviation and the whole mean
        stem = separator.separate(loud, RATE)["vocals"]
        torch.testing.assert_close(stem, 0.5 * loud + 0.25 * mean, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize("channels", [1, 2])
    def test_a_chained_member_sees_its_own_input_at_the_level_that_it_wants(
        self, zoo, nested, channels
    ):
        class Clip(Gains):
            """Clips at 1, so that level and mean of what it is given show."""

            def forward(self, mixture, *, stems=None):
                return super().forward(mixture.clamp(-1, 1), stems=stems)

        zoo.model("a", {"vocals": 0.2}, segment=0.037)
        zoo.model("b", {"drums": 1.0}, normalization="track")
        zoo.networks["b"] = Clip({"drums": 1.0})
        zoo.ensemble("chain", ["drums"], ["b"])
        last = {"model": "chain" if nested else "b", "input": "rest"}
        zoo.ensemble("e", ["vocals", "drums"], [{"model": "a", "residual": "rest"}, last])
        separator = zoo.separator("e")
        assert not separator.needs_statistics
        generator = torch.Generator().manual_seed(0)
        song = torch.randn(channels, 3000, generator=generator) * 0.3 + 0.2
        rest = 0.8 * song
        mono = rest.mean(0)
        clipped = ((rest - mono.mean()) / mono.std()).clamp(-1, 1) * mono.std() + mono.mean()
        found = separator.separate(song, RATE, residual="other")
        torch.testing.assert_close(found["drums"], clipped, atol=1e-5, rtol=0)
        torch.testing.assert_close(sum(found.values()), song, atol=1e-6, rtol=0)

    def test_a_row_is_measured_once(self, zoo, monkeypatch):
        zoo.model("a", {"vocals": 0.2})
        zoo.model("b", {"drums": 0.5}, normalization="track")
        zoo.model("c", {"bass": 0.25}, normalization="track")
        members = [{"model": "a", "residual": "rest"}]
        members += [{"model": name, "input": "rest"} for name in ("b", "c", "b")]
        zoo.ensemble("e", ["vocals", "drums", "bass"], members)
        measured = []
        monkeypatch.setattr(
            "separator.ensemble.group.track_statistics",
            lambda blocks: measured.append(1) or track_statistics(blocks),
        )
        found = zoo.separator("e").separate(MIX, RATE)
        assert len(measured) == 1
        rest = 0.8 * MIX
        mean = rest.mean()
        torch.testing.assert_close(found["drums"], 0.5 * (rest - mean) + mean, atol=1e-5, rtol=0)
        torch.testing.assert_close(found["bass"], 0.25 * (rest - mean) + mean, atol=1e-5, rtol=0)

    def test_progress_counts_all_members_that_run(self, zoo):
        zoo.model("a", {"vocals": 0.5})
        zoo.model("b", {"vocals": 0.5, "drums": 0.5}, segment=0.05)
        zoo.ensemble("e", ["vocals", "drums"], ["a", "b"])
        separator = zoo.separator("e")
        for stems, members in ((None, ("a", "b")), (["drums"], ("b",))):
            before = {name: zoo.networks[name].calls for name in ("a", "b")}
            seen = []
            separator.separate(MIX, RATE, stems=stems, progress=seen.append)
            calls = {name: zoo.networks[name].calls - before[name] for name in before}
            assert [progress.done for progress in seen] == list(range(1, seen[-1].total + 1))
            assert seen[-1].total == sum(calls.values())
            assert {name for name, count in calls.items() if count} == set(members)
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(Cancelled):
            separator.separate(MIX, RATE, cancel=cancel)

    def test_memory_stays_flat(self, zoo):
        zoo.model("a", {"vocals": 0.5})
        zoo.model("b", {"drums": 0.5})
        members = [{"model": "a", "residual": "rest"}, {"model": "b", "input": "rest"}]
        zoo.ensemble("e", ["vocals", "drums"], members, consistency="energy")
        read = written = 0

        def blocks():
            nonlocal read
            for _ in range(120):
                read += 1000
                yield torch.zeros(1, 1000)

        for pieces in zoo.separator("e").stream(blocks(), RATE):
            written += pieces["drums"].shape[-1]
            # two segments, the frames of one group and of one window, a few blocks
            assert read - written <= 2 * 800 + 64 * 1024 + 2 * 4096 + 4 * 1000
        assert written == read

    def test_median_of_bins_equals_that_of_whole_spectrograms(self, zoo):
        stems = [0.5, 1.0, -0.5]

        class Filter(Gains):
            def forward(self, mixture, *, stems=None):
                delayed = mixture.roll(round(8 * self.gains[0]), -1)
                return (self.gains[0] * delayed + mixture).unsqueeze(1)

        for name, gain in zip("abc", stems, strict=True):
            zoo.model(name, {"vocals": gain}, segment=10.0)
            zoo.networks[name] = Filter({"vocals": gain})
        zoo.ensemble("e", ["vocals"], ["a", "b", "c"], algorithm="median", domain="stft")
        stft = STFT(4096, 1024)
        song = torch.from_numpy(music(9, RATE))  # more than one group of 64 frames
        bins = [stft(zoo.networks[name](song[None])[:, 0]) for name in "abc"]
        expected = stft.inverse(combine(bins, "median"), song.shape[-1])[0]
        found = zoo.separator("e").separate(song, RATE)["vocals"]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_wiener_filter_equals_that_of_the_whole_track(self, zoo, monkeypatch):
        monkeypatch.setattr("separator.ensemble.group._WIENER_FRAMES", 20)
        zoo.model("a", {"vocals": 0.8, "drums": 0.1})
        zoo.ensemble("e", ["vocals", "drums"], ["a"], wiener=1)
        song = torch.from_numpy(music(50 * 1024 / RATE, RATE))
        bins = STFT(4096, 1024)(song[None])
        refined = wiener(torch.stack([0.8 * bins, 0.1 * bins], 1), bins, segment_frames=20)
        expected = STFT(4096, 1024).inverse(refined, song.shape[-1])[0]
        separator = zoo.separator("e")
        found = separator.separate(song, RATE)
        torch.testing.assert_close(found["drums"], expected[1], atol=1e-5, rtol=0)
        alone = separator.separate(song, RATE, stems=["drums"])
        assert torch.equal(alone["drums"], found["drums"])

    @pytest.mark.parametrize("channels", [1, 2, 3])
    def test_energy_consistency_leaves_nothing(self, zoo, channels):
        zoo.model("a", {"vocals": 0.6, "drums": 0.2})
        zoo.ensemble("e", ["vocals", "drums"], ["a"], consistency="energy")
        song = torch.from_numpy(music(0.5, RATE, channels))
        stems = zoo.separator("e").separate(song, RATE, residual="rest")
        assert stems["rest"].abs().max() < 2e-6
        torch.testing.assert_close(stems["drums"], song * 0.22, atol=2e-6, rtol=0)

    def test_ensembles_are_no_single_network(self, zoo):
        zoo.model("a", {"vocals": 1.0})
        zoo.model("b", {"vocals": 1.0})
        zoo.ensemble("e", ["vocals"], ["a", "b"])
        with pytest.raises(ModelError, match=r"'e' is an ensemble.*a, b"):
            load_model("e")
        assert list(zoo.separator("e").network) == list(zoo.networks.values())


def test_mean_of_streams_does_not_depend_on_the_blocks(zoo):
    zoo.model("a", {"vocals": 0.5})
    zoo.model("b", {"vocals": 0.7}, segment=0.033)
    zoo.ensemble("e", ["vocals"], ["a", "b"])
    separator = zoo.separator("e")
    whole = separator.separate(MIX, RATE)["vocals"]
    pieces = [piece["vocals"] for piece in separator.stream(MIX.split(77, -1), RATE)]
    assert torch.equal(torch.cat(pieces, -1), whole)
    alone = torch.cat(list(separate_stream([MIX], lambda x: x.unsqueeze(1), Plan(800))), -1)
    torch.testing.assert_close(whole, 0.6 * alone[0], atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def pair(tiny_models, tmp_path_factory):
    """A folder with two tiny RoFormers of different weights, and their mean."""
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("pair")
    card = yaml.safe_load((tiny_models / "tiny.yaml").read_text())
    state = load_file(tiny_models / card["weights"]["file"])
    for seed, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(seed)
        changed = {
            key: value + 0.1 * torch.randn(value.shape, generator=generator)
            if value.is_floating_point()
            else value
            for key, value in state.items()
        }
        save_file(changed, folder / f"{name}.safetensors")
        weights = weights_entry(folder / f"{name}.safetensors")
        (folder / f"{name}.yaml").write_text(
            yaml.safe_dump(card | {"name": name, "weights": weights})
        )
    both = {"name": "both", "description": "Both", "stems": ["vocals", "drums"], "licence": "MIT"}
    both["members"] = [{"model": "one", "weights": {"vocals": 3, "drums": 1}}, {"model": "two"}]
    (folder / "both.yaml").write_text(yaml.safe_dump(both))
    return folder


def test_networks_together_are_the_mean_of_each_alone(pair):
    song = music(1.4)
    settings = {"device": "cpu", "precision": "float32"}
    one, two, both = (
        Separator(pair / f"{name}.yaml", **settings).separate(song, 44100)
        for name in ("one", "two", "both")
    )
    assert list(both) == ["vocals", "drums"]
    assert not torch.allclose(one["vocals"], two["vocals"], atol=1e-3)
    expected = (3 * one["vocals"] + two["vocals"]) / 4
    torch.testing.assert_close(both["vocals"], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(both["drums"], (one["drums"] + two["drums"]) / 2, atol=1e-6, rtol=0)


def test_a_folder_is_separated_with_each_network_loaded_once(pair, cli, tmp_path, monkeypatch):
    import separator.api

    loads = []
    load = separator.api.load_network
    monkeypatch.setattr(
        separator.api, "load_network", lambda card, **options: loads.append(card) or load(card)
    )
    for name in ("first", "second"):
        (tmp_path / "songs").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "songs" / f"{name}.wav", music(0.4).T, 44100)
    monkeypatch.setenv("SEPARATOR_MODELS", str(pair))
    options = ("--model", "both", "--residual", "rest", "--bit-depth", "32", "--device", "cpu")
    cli("separate", "songs", "-o", "out", *options)
    assert [card.name for card in loads] == ["one", "two"]
    for name in ("first", "second"):
        files = {path.stem: path for path in (tmp_path / "out" / name).iterdir()}
        assert set(files) == {"vocals", "drums", "rest"}
        total = sum(soundfile.read(path)[0] for path in files.values())
        assert np.abs(total - soundfile.read(tmp_path / "songs" / f"{name}.wav")[0]).max() < 1e-6


def test_networks_of_other_families_blend_linearly(tmp_path):
    """As Danna-Sep (arXiv 2112.03752) blends X-UMX, a U-Net and Demucs, stem by stem."""
    shares = {"x_umx": (0, 2), "complex_unet": (2, 1), "demucs": (8, 5)}
    stems = ["bass", "drums"]
    common = {"stems": stems, "licence": "MIT", "description": "One"}
    members = []
    for name, own in shares.items():
        parameters = reference.CASES[name].parameters | {"stems": stems}
        file = tmp_path / f"{name}.safetensors"
        save_file(reference.weights(build_network(name, **parameters).state_dict()), file)
        del parameters["stems"]
        card = {"name": name, "network": name, "parameters": parameters, "segment": 0.2, **common}
        if name == "demucs":
            card |= {"recipe": "demucs", "normalization": "track"}
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump(card | {"weights": weights_entry(file)})
        )
        members.append({"model": name, "weights": dict(zip(stems, own, strict=True))})
    blend = {"name": "blend", "members": members, **common}
    (tmp_path / "blend.yaml").write_text(yaml.safe_dump(blend))
    settings = {"device": "cpu", "precision": "float32"}
    *alone, together = (
        Separator(tmp_path / f"{name}.yaml", **settings).separate(music(0.4), 44100)
        for name in (*shares, "blend")
    )
    for stem, weights in zip(stems, zip(*shares.values(), strict=True), strict=True):
        assert len({round(float(estimates[stem].norm()), 4) for estimates in alone}) == 3
        parts = [weight * one[stem] for weight, one in zip(weights, alone, strict=True)]
        expected = sum(parts) / sum(weights)
        torch.testing.assert_close(together[stem], expected, atol=1e-6, rtol=1e-5)
