import pytest
import torch

from separator.evaluation import toeplitz
from separator.evaluation.toeplitz import solve_block_toeplitz


def correlations(signals, delays):
    """The blocks T_k = sum_n x[n - k] x[n]' of (channels, time) signals, (1, delays, p, p)."""
    padded = torch.nn.functional.pad(signals, (0, delays - 1))
    columns = [padded.roll(k, dims=-1) @ padded.mT for k in range(delays)]
    return torch.stack(columns)[None]


def dense(blocks):
    delays, size = blocks.shape[:2]
    rows = [
        torch.cat([blocks[i - j] if i >= j else blocks[j - i].mT for j in range(delays)], dim=1)
        for i in range(delays)
    ]
    return torch.cat(rows).reshape(delays * size, delays * size)


@pytest.mark.parametrize("delays", [1, 2, 12, 31])
@pytest.mark.parametrize("channels", [1, 2, 5, 20])
def test_equals_a_dense_solution(delays, channels):
    torch.manual_seed(0)
    blocks = correlations(torch.randn(channels, 900, dtype=torch.float64), delays)
    rhs = torch.randn(1, delays, channels, 3, dtype=torch.float64)
    expected = torch.linalg.solve(dense(blocks[0]), rhs.reshape(delays * channels, 3))
    torch.testing.assert_close(
        solve_block_toeplitz(blocks, rhs).reshape(delays * channels, 3), expected
    )


def test_systems_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    signals = [10.0**k * torch.randn(2, 300, dtype=torch.float64) for k in (-3, 0, 3)]
    blocks = torch.cat([correlations(x, 8) for x in signals])
    rhs = torch.randn(3, 8, 2, 1, dtype=torch.float64)
    alone = torch.cat([solve_block_toeplitz(blocks[i : i + 1], rhs[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(solve_block_toeplitz(blocks, rhs), alone)


def test_steep_spectrum_is_solved_beyond_the_ridge():
    """Half the band is 120 dB below the other, as with songs that went through a codec."""
    torch.manual_seed(0)
    x = torch.randn(2, 4000, dtype=torch.float64)
    spectrum = torch.fft.rfft(x)
    spectrum[:, 1000:] *= 1e-6
    blocks = correlations(torch.fft.irfft(spectrum), 32)
    matrix = dense(blocks[0])
    assert torch.linalg.cond(matrix) > 1e11
    truth = torch.randn(64, 1, dtype=torch.float64)
    solution = solve_block_toeplitz(blocks, (matrix @ truth).view(1, 32, 2, 1)).reshape(64, 1)
    error = solution - truth
    assert (error.T @ matrix @ error) < 1e-18 * (truth.T @ matrix @ truth)


def test_singular_system_has_a_small_solution():
    """Equal channels: the sum of their filters is determined, the difference is not."""
    torch.manual_seed(0)
    mono = torch.randn(1, 500, dtype=torch.float64)
    truth = torch.randn(1, 16, 1, 1, dtype=torch.float64)
    rhs = (dense(correlations(mono, 16)[0]) @ truth.reshape(16, 1)).view(1, 16, 1, 1)
    solution = solve_block_toeplitz(correlations(mono.repeat(2, 1), 16), rhs.repeat(1, 1, 2, 1))
    torch.testing.assert_close(solution.sum(dim=2), truth.sum(dim=2))
    assert solution.abs().max() < 10 * truth.abs().max()


def test_ridge_grows_until_the_matrix_is_positive():
    """Rounding makes singular matrices a little indefinite: here the least eigenvalue is -5e-13."""
    blocks = torch.tensor([1.0, 1 / 1.618033988749, 0.0, 0.0], dtype=torch.float64)
    blocks = blocks.view(1, 4, 1, 1)
    assert -1e-12 < torch.linalg.eigvalsh(dense(blocks[0]))[0] < -1e-13
    assert not toeplitz._factorize(blocks).positive
    assert toeplitz._factorize_with_ridge(blocks).positive


def test_what_correlates_with_nothing_has_no_filter():
    """A silent estimate: the steps towards its solution are zero over zero."""
    torch.manual_seed(0)
    blocks = correlations(torch.randn(2, 300, dtype=torch.float64), 8).repeat(2, 1, 1, 1)
    rhs = torch.randn(2, 8, 2, 1, dtype=torch.float64)
    rhs[0] = 0.0
    solution = solve_block_toeplitz(blocks, rhs)
    assert not solution[0].any()
    torch.testing.assert_close(solution[1:], solve_block_toeplitz(blocks[1:], rhs[1:]))


def test_the_right_hand_side_is_left_as_it_was():
    blocks = torch.tensor([2.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1)
    rhs = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    solve_block_toeplitz(blocks, rhs)
    assert (rhs == 1).all()
