import itertools
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
import yaml
from conftest import music, weights_entry
from torch import nn

from separator.api import Separator, load_model
from separator.cards import Ensemble, read_card, write_card
from separator.ensemble import ALGORITHMS, combine, fit_weights, make_consistent
from separator.errors import Cancelled, ConfigError, ModelError
from separator.frames import through_stft
from separator.inference import Plan, separate_stream, track_statistics
from separator.masks import wiener
from separator.members import resolve
from separator.model import Settings
from separator.stft import STFT

RATE = 8000


def values(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestCombine:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("count", [1, 2, 3, 4])
    def test_equal_estimates_return_themselves(self, algorithm, count, dtype):
        x = values(2, 1, 50, dtype=dtype)
        assert torch.equal(combine([x] * count, algorithm), x)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_order_does_not_matter(self, algorithm, dtype):
        # whole numbers, so that many magnitudes are equal
        estimates = [
            values(60, 2, seed=seed).round().to(dtype)
            @ torch.tensor([1, 1j if dtype.is_complex else 1], dtype=dtype)
            for seed in range(4)
        ]
        expected = combine(estimates, algorithm)
        for permuted in itertools.permutations(estimates):
            torch.testing.assert_close(combine(permuted, algorithm), expected)

    @pytest.mark.parametrize(
        ("algorithm", "real", "bins"),
        [
            ("mean", 1.0, 2 + 0j),
            ("median", 2.0, 2 + 0j),  # by the real part it would be 2 - 10j
            ("min", 2.0, 3 + 0j),
            ("max", -5.0, 2 - 10j),
        ],
    )
    def test_three_different_values(self, algorithm, real, bins):
        assert combine(torch.tensor([6.0, 2.0, -5.0]), algorithm) == (
            real if algorithm != "max" else 6.0
        )
        assert combine(torch.tensor([3.0, 2.0, -5.0]), algorithm) == pytest.approx(
            {"mean": 0.0}.get(algorithm, real)
        )
        found = combine(torch.tensor([1 + 10j, 2 - 10j, 3 + 0j]), algorithm)
        torch.testing.assert_close(found, torch.tensor(bins))

    def test_median_of_an_even_number_lies_in_the_middle(self):
        assert combine(torch.tensor([10.0, 1.0, 4.0, -3.0]), "median") == 2.5

    def test_of_equal_magnitudes_it_is_the_middle(self):
        pair = torch.tensor([1 + 1j, 1 - 1j])
        assert combine(pair, "min") == 1
        assert combine(pair, "max") == 1

    def test_mean_weighs_and_others_leave_out_what_weighs_nothing(self):
        estimates = torch.tensor([[1.0], [3.0], [100.0]])
        assert combine(estimates, "mean", [3, 1, 0]) == 1.5
        assert combine(estimates, "median", [1, 1, 0]) == 2
        assert combine(estimates, "max", [1, 1, 0]) == 3

    @pytest.mark.parametrize(
        ("estimates", "algorithm", "weights", "message"),
        [
            ([torch.ones(2, 5), torch.ones(2, 6)], "mean", None, r"one shape.*\(2, 5\), \(2, 6\)"),
            ([], "mean", None, "got: none"),
            ([torch.ones(1)], "medain", None, "Did you mean 'median'"),
            ([torch.ones(1)] * 2, "mean", [1.0, -0.5], "can't be negative; got 1.0, -0.5"),
            ([torch.ones(1)] * 2, "mean", [float("nan"), 1.0], "can't be negative"),
            ([torch.ones(1)] * 2, "mean", [0.0, 0.0], "sum to zero"),
            ([torch.ones(1)] * 2, "mean", [1.0], "2 estimates, but 1 weights"),
        ],
    )
    def test_mistakes_are_named(self, estimates, algorithm, weights, message):
        with pytest.raises((ConfigError, ModelError), match=message):
            combine(estimates, algorithm, weights)


class TestConsistency:
    def test_stems_sum_to_the_mixture_by_their_energies(self):
        estimates = values(1, 3, 2, 5, 7, dtype=torch.complex64)
        mixture = values(1, 2, 5, 7, dtype=torch.complex64, seed=1)
        stems = make_consistent(estimates, mixture)
        torch.testing.assert_close(stems.sum(1), mixture)
        energy = estimates.abs().square()
        added = energy[:, 0] / energy.sum(1) * (mixture - estimates.sum(1))
        torch.testing.assert_close(stems[:, 0], estimates[:, 0] + added)

    def test_a_silent_stem_stays_silent_unless_all_are(self):
        mixture = values(1, 1, 5, 7, dtype=torch.complex64)
        one = torch.stack([mixture / 2, torch.zeros_like(mixture)], 1)
        assert torch.equal(make_consistent(one, mixture)[:, 1], torch.zeros_like(mixture))
        none = torch.zeros_like(one)
        torch.testing.assert_close(make_consistent(none, mixture)[:, 0], mixture / 2)


class TestFitWeights:
    def test_independent_errors_weigh_by_their_inverse_energies(self):
        energies = torch.tensor([1.0, 2.0, 4.0])
        expected = torch.tensor([4.0, 2.0, 1.0]).double() / 7
        for scale in (1e-12, 1.0, 1e12):
            torch.testing.assert_close(fit_weights(torch.diag(energies) * scale), expected)

    def test_a_member_that_only_adds_errors_weighs_nothing(self):
        # the second makes the first one's error twice, and one of its own
        assert fit_weights(torch.tensor([[1.0, 2.0], [2.0, 5.0]])).tolist() == [1, 0]

    def test_a_perfect_member_takes_all(self):
        torch.testing.assert_close(
            fit_weights(torch.diag(torch.tensor([3.0, 0.0]))), torch.tensor([0.0, 1.0]).double()
        )

    def test_perfect_members_share(self):
        weights = fit_weights(torch.zeros(3, 3))
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0).all()

    @pytest.mark.parametrize("seed", range(5))
    def test_no_other_weights_are_better(self, seed):
        factor = values(3, 4, seed=seed).double()
        matrix = factor @ factor.T
        weights = fit_weights(matrix)
        grid = torch.cartesian_prod(*[torch.linspace(0, 1, 101).double()] * 2)
        grid = torch.cat([grid, 1 - grid.sum(1, keepdim=True)], 1)
        grid = grid[grid[:, 2] >= 0]
        best = torch.einsum("gi,ij,gj->g", grid, matrix, grid).min()
        assert weights @ matrix @ weights <= best + 1e-12
        assert weights.sum() == pytest.approx(1)


class TestThroughSTFT:
    @pytest.mark.parametrize("samples", [1, 5, 256, 257, 1000, 1024, 7777, 64 * 128])
    def test_equals_the_transform_of_the_whole(self, samples):
        signal = values(2, 3, samples)
        stft = STFT(512, 128)

        def squash(bins):
            return bins * torch.tanh(bins.abs())

        blocks = torch.split(signal, 313, dim=-1)
        pieces = list(through_stft(blocks, squash, n_fft=512, hop_length=128, frames=7))
        expected = stft.inverse(squash(stft(signal)), samples)
        torch.testing.assert_close(torch.cat(pieces, -1), expected, atol=2e-6, rtol=0)

    def test_without_a_change_the_signal_comes_back(self):
        signal = values(1, 2, 30011)
        pieces = list(through_stft([signal], lambda bins: bins))
        torch.testing.assert_close(torch.cat(pieces, -1), signal, atol=2e-6, rtol=0)

    def test_nothing_in_nothing_out(self):
        assert sum(p.shape[-1] for p in through_stft([torch.zeros(2, 0)], lambda x: x)) == 0
        assert list(through_stft([], lambda bins: bins)) == []

    def test_memory_stays_flat(self):
        read = written = 0

        def blocks():
            nonlocal read
            for _ in range(1000):
                read += 100
                yield torch.zeros(1, 100)

        options = {"n_fft": 512, "hop_length": 128, "frames": 8}
        for piece in through_stft(blocks(), lambda bins: bins, **options):
            written += piece.shape[-1]
            assert read - written <= 512 + 8 * 128 + 100
        assert written == read


class Gains(nn.Module):
    """Return the mixture times a gain for each stem; count the calls."""

    def __init__(self, gains: dict[str, float]):
        super().__init__()
        self.gains, self.calls, self.core = list(gains.values()), 0, nn.Identity()

    def forward(self, mixture, *, stems=None):
        self.calls += 1
        gains = self.gains if stems is None else [self.gains[i] for i in stems]
        return torch.stack([gain * mixture for gain in gains], 1)


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """Functions that write cards of models that multiply by gains, and of ensembles of them."""
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path))
    networks: dict[str, Gains] = {}
    loads: Counter[str] = Counter()

    def load(card, **options):
        loads[card.name] += 1
        return networks[card.name]

    monkeypatch.setattr("separator.api.load_network", load)
    weights = {"file": "none", "sha256": "0" * 64, "bytes": 1, "format": "safetensors"}

    def model(name, gains, **fields):
        networks[name] = Gains(gains)
        card = {"name": name, "description": "Gains", "network": "gains", "stems": list(gains)}
        card |= {"segment": 0.1, "sample_rate": RATE, "weights": weights, "licence": "MIT"}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(card | fields))

    def ensemble(name, stems, members, **fields):
        members = [{"model": member} if isinstance(member, str) else member for member in members]
        card = {"name": name, "description": "Several", "stems": stems, "members": members}
        card |= {"sample_rate": RATE, "licence": "MIT"}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(card | fields))

    def separator(name, **settings):
        return Separator(name, device="cpu", precision="float32", **settings)

    return SimpleNamespace(
        model=model, ensemble=ensemble, separator=separator, networks=networks, loads=loads
    )


MIX = torch.from_numpy(music(0.6, RATE))


def gains_of(separator: Separator, **options) -> dict[str, float]:
    """Return what each stem is of the mixture, and make sure that it is nothing else."""
    found = {}
    for name, stem in separator.separate(MIX, RATE, **options).items():
        found[name] = float((stem * MIX).sum() / MIX.square().sum())
        torch.testing.assert_close(stem, found[name] * MIX, atol=1e-6, rtol=0)
    return found


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
        asked = separator.with_settings(Settings(overlap=0.1, shifts=2)).settings["members"]
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
        song = values(channels, 3000) * 0.3 + 0.2
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
            "separator.model.track_statistics",
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
        monkeypatch.setattr("separator.model._WIENER_FRAMES", 20)
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


def member(**fields):
    return {"model": "a", **fields}


MISTAKES = {
    "'members.1.model': Unknown model 'bb'.*Did you mean 'b'": {"members": ["a", "bb"]},
    "'members.0.model': an ensemble can't contain itself (e -> e)": {"members": ["e"]},
    "'members.0.model': 'fast' has sample_rate 48000 Hz, the ensemble 8000": {"members": ["fast"]},
    "'members.0.model': 'mono' has channels 1, the ensemble 2": {"members": ["mono"]},
    "'members.0.stems': 'a' has no stem 'vocal'; it has: drums, vocals.* 'vocals'": {
        "members": [member(stems=["vocal"])]
    },
    "'members.0.stems': stems and residual need different names": {
        "members": [member(stems={"drums": "x", "vocals": "x"})]
    },
    "none may be 'mixture'": {"members": [member(residual="mixture")]},
    "'members.0.weights': this member doesn't give 'bass'; it gives: drums, vocals": {
        "stems": ["bass", "vocals"],
        "members": [member(weights={"bass": 1})],
    },
    "'members.1.input': no earlier member gives 'bass'; allowed: mixture, drums, vocals": {
        "members": ["a", member(input="bass")]
    },
    "'members.0.input': no earlier member gives 'drums'; allowed: mixture": {
        "members": [member(input="drums"), "a"]
    },
    "'members.2.input': 2 earlier members give 'drums'": {
        "members": ["a", "b", member(input="drums")]
    },
    "'stems': no member gives 'kazoo'; they give: drums, vocals": {"stems": ["drums", "kazoo"]},
    "'members': the weights of 'drums' sum to zero": {"members": [member(weights={"vocals": 1})]},
    "'members.0.weights.drums': input should be greater than or equal to 0, got -1": {
        "members": [member(weights={"drums": -1})]
    },
    "'members.0.weights.drum' is no stem of the ensemble.*Did you mean 'drums'": {
        "members": [member(weights={"drum": 1})]
    },
    "'members.0.weights.drums' is 0.5; with the algorithm 'median'.*part \\(1\\) or not \\(0\\)": {
        "members": [member(weights={"drums": 0.5})],
        "algorithm": "median",
    },
    "'algorithm': input should be 'mean', 'median', 'min' or 'max'": {"algorithm": "mode"},
    "'domain': input should be 'time', 'stft' or 'network'": {"domain": "bins"},
    "'consistency': input should be 'none' or 'energy'": {"consistency": "all"},
    "'wiener' weighs stems against each other and needs at least two": {
        "stems": ["drums"],
        "wiener": 1,
    },
    "'wiener': input should be greater than or equal to 0, got -1": {"wiener": -1},
    "'members': value should have at least 1 item": {"members": []},
    "'members.0.overlap': input should be less than 1": {"members": [member(overlap=1.0)]},
    "unknown key 'members.0.weight'. Did you mean 'weights'": {"members": [member(weight=1)]},
    "unknown key 'network'": {"network": "gains"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_in_cards_are_named(zoo, message):
    zoo.model("a", {"drums": 0.5, "vocals": 0.5})
    zoo.model("b", {"drums": 0.5})
    zoo.model("fast", {"drums": 0.5}, sample_rate=48000)
    zoo.model("mono", {"drums": 0.5}, channels=1)
    zoo.ensemble("f", ["drums"], ["e"])
    zoo.ensemble("e", **({"stems": ["drums", "vocals"], "members": ["a"]} | MISTAKES[message]))
    pattern = message.replace("(e -> e)", r"\(e -> e\)")
    with pytest.raises(ConfigError, match=f"^e(.yaml)?: .*{pattern}"):
        zoo.separator("e")
    assert not zoo.loads


def test_circles_through_other_ensembles_are_named(zoo):
    zoo.model("a", {"drums": 0.5})
    zoo.ensemble("f", ["drums"], ["a", "e"])
    zoo.ensemble("e", ["drums"], ["f"])
    with pytest.raises(ConfigError, match=r"^f: 'members.1.model': .*itself \(e -> f -> e\)"):
        zoo.separator("e")


def test_cards_of_ensembles_survive_writing(zoo, tmp_path):
    zoo.model("a", {"drums": 0.5, "vocals": 0.5})
    members = [member(stems={"drums": "kit"}, weights={"kit": 2.5}, overlap=0.5), "a"]
    zoo.ensemble("e", ["kit", "vocals"], members, consistency="energy")
    card = read_card(tmp_path / "e.yaml")
    assert isinstance(card, Ensemble)
    assert [model.name for model in resolve(card).models] == ["a"]
    (tmp_path / "copy").mkdir()
    again = read_card(write_card(card, tmp_path / "copy"))
    assert again.model_dump() == card.model_dump()


@pytest.fixture(scope="module")
def pair(tiny_models, tmp_path_factory):
    """A folder with two tiny RoFormers of different weights, and their mean."""
    from safetensors.torch import load_file, save_file

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
