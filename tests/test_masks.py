import pytest
import torch
from torch import Tensor

from separator.errors import ConfigError
from separator.spectral.masks import (
    apply_mask,
    as_channels,
    complex_mask,
    decoupled,
    from_channels,
    mixture_phase,
    ratio_mask,
    wiener,
    with_residual,
)

BATCH, STEMS, CHANNELS, FREQ, FRAMES = 2, 3, 2, 5, 40


@pytest.fixture
def stems() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH, STEMS, CHANNELS, FREQ, FRAMES)
    return torch.randn(shape, dtype=torch.complex64, generator=generator)


@pytest.fixture
def mixture(stems) -> Tensor:
    return stems.sum(1)


def error(estimates: Tensor, stems: Tensor) -> float:
    return float((estimates - stems).norm() / stems.norm())


def panned(positions: list[float], frames: int = 200) -> tuple[Tensor, Tensor]:
    """Return independent stereo stems, each at an angle, and their mixture, in float64."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(positions), 1, 4, frames)
    dry = torch.randn(shape, dtype=torch.complex128, generator=generator)
    angle = torch.tensor(positions, dtype=torch.float64)
    stems = dry * torch.stack([angle.cos(), angle.sin()], 1)[None, :, :, None, None]
    return stems, stems.sum(1)


def test_channels_are_pairs_of_real_and_imaginary_parts(stems):
    batch = stems[:, 0]
    assert as_channels(batch)[1, 3, 2, 7] == batch[1, 1, 2, 7].imag
    together = torch.cat([as_channels(stems[:, stem]) for stem in range(STEMS)], dim=1)
    assert torch.equal(from_channels(together, CHANNELS), stems)


def test_an_oracle_complex_mask_reconstructs_exactly(stems, mixture):
    oracle = torch.view_as_real(stems / mixture.unsqueeze(1))
    assert error(apply_mask(complex_mask(oracle), mixture), stems) < 1e-6


def test_an_oracle_magnitude_mask_does_not(stems, mixture):
    ratio = apply_mask(stems.abs() / mixture.abs().unsqueeze(1), mixture)
    torch.testing.assert_close(ratio.abs(), stems.abs())
    assert error(ratio, stems) > 0.5  # three stems of equal level: the phases are wrong


def test_a_bounded_mask_keeps_the_phase_and_stays_below_its_bound(stems):
    free = torch.view_as_complex(torch.view_as_real(stems))
    bounded = complex_mask(torch.view_as_real(stems), bound=2.0)
    assert bounded.abs().max() < 2 < free.abs().max()
    torch.testing.assert_close(bounded.angle(), free.angle())
    torch.testing.assert_close(bounded.abs(), 2 * torch.tanh(free.abs() / 2))
    assert complex_mask(torch.zeros(1, 2), bound=1.0) == 0


def test_a_bounded_oracle_fails_only_where_a_stem_is_louder_than_the_mixture(stems, mixture):
    wanted = stems / mixture.unsqueeze(1)
    reachable = wanted.abs() < 0.99
    parts = torch.atanh(wanted.abs().clamp_max(0.999999)) * wanted.sgn()
    reached = apply_mask(complex_mask(torch.view_as_real(parts), bound=1.0), mixture)
    assert error(reached[reachable], stems[reachable]) < 1e-4
    assert (reached.abs() <= mixture.abs().unsqueeze(1)).all()
    assert (wanted.abs() > 1).float().mean() > 0.1  # and there are many such bins


def test_decoupled_magnitudes_and_phases_reach_any_stem(stems, mixture):
    turn = (stems * mixture.unsqueeze(1).conj()).sgn() * 0.5
    extra = stems.abs() - 0.5 * mixture.abs().unsqueeze(1)  # sigmoid(0) lets half pass
    parts = torch.stack([torch.zeros_like(extra), turn.real.atanh(), turn.imag.atanh(), extra], -1)
    assert error(decoupled(parts, mixture), stems) < 1e-6


def test_decoupled_magnitude_follows_its_equation(mixture):
    parts = torch.randn(BATCH, 1, CHANNELS, FREQ, FRAMES, 4)
    mask, _, _, residual = parts.unbind(-1)
    expected = (mask.sigmoid() * mixture.abs().unsqueeze(1) + residual).relu()
    torch.testing.assert_close(decoupled(parts, mixture).abs(), expected)


def test_ratio_masks_sum_to_one_at_any_level(stems):
    for level in (0.0, 1e-30, 1.0, 1e30):
        mask = ratio_mask(stems.abs() * level, power=2.0)
        torch.testing.assert_close(mask.sum(1), torch.ones(BATCH, CHANNELS, FREQ, FRAMES))
        assert mask.min() >= 0


def test_ratio_masks_separate_stems_that_do_not_overlap():
    stems = torch.zeros(1, 2, 1, 4, 1, dtype=torch.complex64)
    stems[0, 0, 0, :2] = 1 + 2j
    stems[0, 1, 0, 2:] = -3j
    torch.testing.assert_close(apply_mask(ratio_mask(stems.abs()), stems.sum(1)), stems)


def test_mixture_phase(stems, mixture):
    estimates = mixture_phase(stems.abs(), mixture)
    torch.testing.assert_close(estimates.abs(), stems.abs())
    angles = mixture.angle().unsqueeze(1).expand_as(stems)
    torch.testing.assert_close(estimates.angle(), angles)
    assert not mixture_phase(stems.abs(), torch.zeros_like(mixture)).any()


def test_residual_completes_the_mixture(stems, mixture):
    completed = with_residual(stems[:, :2], mixture)
    torch.testing.assert_close(completed, stems)


def test_wiener_estimates_sum_to_the_mixture(stems, mixture):
    start = mixture_phase(stems.abs(), mixture)
    assert error(start.sum(1), mixture) > 0.1
    assert error(wiener(start, mixture, iterations=2).sum(1), mixture) < 1e-4


@pytest.mark.parametrize("level", [1.0, 1e4])
def test_wiener_separates_two_stems_by_place(level):
    """Two sources in two channels, at known angles: only the direction tells them apart."""
    stems, mixture = panned([0.3, 1.2])
    start = mixture_phase(stems.abs(), mixture)
    refined = wiener(start * level, mixture * level, iterations=8, segment_frames=None) / level
    before, after = error(start, stems), error(refined, stems)
    assert before > 0.4 and after < 0.5 * before


def test_wiener_is_scale_invariant_from_its_scaled_level_on(stems, mixture):
    start = mixture_phase(stems.abs(), mixture).to(torch.complex128)
    loud = mixture.to(torch.complex128) * 1e3
    once, again = wiener(start * 1e3, loud), wiener(start * 1e5, loud * 100)
    torch.testing.assert_close(once * 100, again)


def test_wiener_segments_are_independent(stems, mixture):
    start = mixture_phase(stems.abs(), mixture)
    whole = wiener(start, mixture, segment_frames=16)
    parts = [
        wiener(start[..., at : at + 16], mixture[..., at : at + 16], segment_frames=None)
        for at in range(0, FRAMES, 16)
    ]
    assert torch.equal(whole, torch.cat(parts, dim=-1))


def test_wiener_treats_the_examples_of_a_batch_apart(stems, mixture):
    start = mixture_phase(stems.abs(), mixture)
    loud = torch.tensor([1.0, 50.0])
    batch = wiener(start * loud.view(2, 1, 1, 1, 1), mixture * loud.view(2, 1, 1, 1))
    torch.testing.assert_close(batch[:1], wiener(start[:1], mixture[:1]))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_wiener_gain_solves_its_equation(channels):
    """One iteration, from its definition, with a general matrix inverse."""
    generator = torch.Generator().manual_seed(channels)
    shape = (1, STEMS, channels, FREQ, FRAMES)
    y = torch.randn(shape, dtype=torch.complex128, generator=generator)
    x, eps = y.sum(1), 1e-10
    power = y.abs().square().mean(2)
    covariance = torch.einsum("bscft,bsdft->bsfcd", y, y.conj())
    covariance = covariance / (power.sum(-1) + eps)[..., None, None]
    models = power[..., None, None] * covariance[:, :, :, None]  # (1, stems, freq, frames, c, c)
    total = models.sum(1) + eps**0.5 * torch.eye(channels)
    gain = models @ torch.linalg.inv(total).unsqueeze(1)
    expected = torch.einsum("bsftcd,bdft->bscft", gain, x)
    torch.testing.assert_close(wiener(y, x, iterations=1), expected)


@pytest.mark.parametrize("level", [0.04, 4.0])
@pytest.mark.parametrize("width", [0.0, 1e-4, 1e-2, 1.0])
def test_wiener_is_as_exact_in_single_precision(level, width):
    """Stereo that is mono, or nearly: the determinant of its covariance is a small difference."""
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn((1, 4, 1, 8, 300), dtype=torch.complex128, generator=generator)
    sides = torch.randn((1, 4, 2, 8, 300), dtype=torch.complex128, generator=generator)
    stems = (level * (middle + width * sides)).to(torch.complex64)
    mixture = stems.sum(1)
    start = mixture_phase(stems.abs(), mixture)
    exact = wiener(start.to(torch.complex128), mixture.to(torch.complex128), iterations=2)
    refined = wiener(start, mixture, iterations=2)
    assert refined.dtype == torch.complex64
    assert error(refined, exact) < 1e-6


def test_wiener_of_silence_is_silence():
    silence = torch.zeros(1, 2, 2, FREQ, FRAMES, dtype=torch.complex64)
    assert not wiener(silence, silence.sum(1), iterations=2).any()


def test_wiener_refuses_what_it_cannot_weigh(stems, mixture):
    with pytest.raises(ConfigError, match="residual"):
        wiener(stems[:, :1], mixture)
    with pytest.raises(ConfigError, match="iterations"):
        wiener(stems, mixture, iterations=-1)
    assert wiener(stems, mixture, iterations=0) is stems
