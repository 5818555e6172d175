"""How estimates are combined, made consistent and weighed: pure functions."""

import itertools

import pytest
import torch

from separator.ensemble.combine import ALGORITHMS, combine, fit_weights, make_consistent
from separator.errors import ConfigError, ModelError
from separator.spectral.frames import through_stft
from separator.spectral.stft import STFT


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
