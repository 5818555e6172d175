import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck

from separator.errors import ConfigError
from separator.evaluation.log_wmse import log_wmse_score as log_wmse_metric
from separator.schema import validate
from separator.training.losses import (
    TERMS,
    LossOptions,
    best_order,
    l1,
    masked_mse,
    mse,
    negative_sdr,
    reordered,
)
from separator.training.moduli import mean_modulus
from separator.training.spectral_losses import (
    WINDOWS,
    binary_mask_cross_entropy,
    l1_snr,
    l1_snr_time_and_frequency,
    log_wmse,
    multi_resolution_stft,
    spectral,
    spectrogram,
)

SMALL = {  # parameters that suit signals of a few hundred samples
    "spectral": {"n_fft": 32, "hop_length": 8},
    "multi_resolution_stft": {"windows": (32, 16), "hop_length": 9, "n_fft": 16},
    "l1_snr": {"n_fft": 32, "hop_length": 8},
    "binary_mask": {"n_fft": 32, "hop_length": 8},
}


def signals(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))


def distance(name, estimate, target):
    parameters = dict(SMALL.get(name, {}))
    if name in ("log_wmse", "binary_mask"):
        parameters["mixture"] = target.sum(1)
    return TERMS[name](estimate, target, **parameters)


def impulse(amplitude, time=4096):
    signal = torch.zeros(1, 1, 1, time)
    signal[..., time // 2] = amplitude
    return signal


@pytest.mark.parametrize("name", TERMS)
def test_a_better_estimate_has_a_smaller_loss(name):
    noise, target = signals(2, 3, 2, 600)
    losses = [float(distance(name, target + x * noise, target)) for x in (0.01, 0.1, 1.0)]
    assert losses == sorted(losses)
    assert losses[0] < losses[2]


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_right(name):
    noise, target = signals(2, 2, 1, 30, dtype=torch.float64)
    estimate = (target + 0.3 * noise).requires_grad_()
    assert gradcheck(lambda x: distance(name, x, target), estimate, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_silence_has_a_finite_loss_and_gradient(name):
    estimate = torch.zeros(2, 2, 2, 300, requires_grad=True)
    loss = distance(name, estimate, torch.zeros(2, 2, 2, 300))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(estimate.grad).all()


def test_masked_mse_leaves_the_worst_out():
    target = torch.zeros(4, 1, 2, 10)
    estimate = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1).expand_as(target)
    assert float(masked_mse(estimate, target, quantile=0.5)) == (1 + 4) / 4
    assert float(masked_mse(estimate, target, quantile=1.0)) == (1 + 4 + 9 + 16) / 4


def test_masked_mse_judges_each_stem_on_its_own():
    target = torch.zeros(4, 2, 1, 10)
    estimate = torch.ones_like(target)
    estimate[:, 1] *= torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)
    # were the stems compared with each other, none of the first one's segments would be left out
    assert float(masked_mse(estimate, target, quantile=0.5)) == (4 * 1 + 1 + 4) / 8


def test_masked_mse_of_samples():
    target = torch.zeros(1, 1, 1, 5)
    estimate = torch.tensor([0.0, 1.0, 1.0, 2.0, 9.0]).view_as(target)
    assert float(masked_mse(estimate, target, quantile=0.75, unit="sample")) == pytest.approx(6 / 5)


@pytest.mark.parametrize("unit", ["segment", "sample"])
def test_masked_mse_of_everything_is_mse(unit):
    estimate, target = signals(3, 2, 2, 50)
    whole = masked_mse(estimate, target, quantile=1.0, unit=unit)
    torch.testing.assert_close(whole, mse(estimate, target))


@pytest.mark.parametrize("quantile", [0.01, 0.5, 0.95, 1.0])
def test_masked_mse_leaves_out_what_exceeds_torchs_quantile(quantile):
    estimate, target = signals(2, 1, 2, 333)
    error = (estimate - target).square()
    expected = (error * (error <= torch.quantile(error, quantile))).mean()
    found = masked_mse(estimate, target, quantile=quantile, unit="sample")
    torch.testing.assert_close(found, expected)


def test_masked_mse_takes_more_samples_than_torchs_quantile():
    estimate = torch.ones(2, 1, 1, 2**23 + 1)
    estimate[0] = 3.0
    found = masked_mse(estimate, torch.zeros(()).expand_as(estimate), quantile=0.4, unit="sample")
    assert float(found) == pytest.approx(0.5, rel=1e-3)


def test_masked_mse_learns_from_a_single_segment():
    estimate, target = signals(1, 2, 2, 50)
    torch.testing.assert_close(masked_mse(estimate, target), mse(estimate, target))


def test_negative_sdr_counts_the_batch_as_one_song():
    target = torch.zeros(2, 1, 2, 100)
    target[0] = 1.0
    estimate = target.clone()
    estimate[1] = 0.1  # a leak into silence: 20 dB below the music
    assert float(negative_sdr(estimate, target, floor=0.0)) == pytest.approx(-20.0, abs=1e-4)


def test_l1_snr_is_the_mean_over_segments_and_stems():
    target = torch.ones(2, 2, 1, 100)
    errors = torch.tensor([[0.1, 0.01], [0.001, 1.0]])
    estimate = target + errors[..., None, None]
    assert float(l1_snr(estimate, target, eps=0.0)) == pytest.approx(-15.0, abs=1e-3)


def test_l1_snr_of_time_and_frequency_adds_three_terms():
    _, target = signals(2, 2, 2, 3000)
    # with an error that is a tenth of the target, each of the three is -10 dB
    loss = l1_snr_time_and_frequency(1.1 * target, target, n_fft=64, hop_length=16, eps=0.0)
    assert float(loss) == pytest.approx(-30.0, abs=1e-3)


def test_an_impulse_has_known_spectral_distances():
    # every bin of a frame holds the impulse times the window; at a hop of a quarter window the
    # windows over a sample sum to 2, their squares to 3/2
    n_fft, hop, amplitude = 256, 64, 3.0
    estimate, target = impulse(amplitude), impulse(0.0)
    frames = 1 + 4096 // hop
    found = {
        norm: float(spectral(estimate, target, norm=norm, n_fft=n_fft, hop_length=hop))
        for norm in ("mse", "rmse")
    }
    expected = amplitude**2 * 1.5 / frames / n_fft
    assert found["mse"] == pytest.approx(expected, rel=1e-5)
    assert found["rmse"] == pytest.approx(expected**0.5, rel=1e-5)
    magnitude = spectral(estimate, target, norm="l1", part="magnitude", n_fft=n_fft, hop_length=hop)
    assert float(magnitude) == pytest.approx(amplitude * 2 / frames / n_fft**0.5, rel=1e-5)
    moduli = multi_resolution_stft(estimate, target, windows=(256, 256), hop_length=hop, n_fft=256)
    assert float(moduli) == pytest.approx(2 * amplitude * 2 / frames, rel=1e-5)


def test_spectral_l1_adds_real_and_imaginary_errors():
    estimate, target = signals(2, 2, 1, 900)
    difference = (spectrogram(estimate, 64, 16) - spectrogram(target, 64, 16)) / 8
    expected = difference.real.abs().mean() + difference.imag.abs().mean()
    found = spectral(estimate, target, norm="l1", n_fft=64, hop_length=16)
    torch.testing.assert_close(found, expected)


def test_magnitudes_ignore_the_sign():
    estimate, _ = signals(1, 2, 2, 3000)
    assert float(spectral(-estimate, estimate, part="magnitude")) == 0.0
    assert float(spectral(-estimate, estimate)) > 0.1


def test_rmse_weighs_stems_alike():
    target = torch.zeros(1, 2, 1, 4096)
    quiet, loud = impulse(0.1), impulse(1.0)
    estimate = torch.cat([quiet, loud], dim=1)
    both = float(spectral(estimate, target, norm="rmse"))
    alone = [float(spectral(one, target[:, :1], norm="rmse")) for one in (quiet, loud)]
    assert both == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_rmse_weighs_segments_alike():
    target = torch.zeros(2, 1, 1, 4096)
    estimate = torch.cat([impulse(0.1), impulse(1.0)])
    both = float(spectral(estimate, target, norm="rmse"))
    alone = [float(spectral(one[None], target[:1], norm="rmse")) for one in estimate]
    assert both == pytest.approx(sum(alone) / 2, rel=1e-5)


@pytest.mark.parametrize("samples", [3, 100, 1000])
@pytest.mark.parametrize(
    ("n_fft", "hop", "window"), [(64, 7, 64), (64, 16, 33), (64, 64, 31), (65, 16, 65), (65, 9, 32)]
)
def test_the_mean_modulus_and_its_slope_are_those_of_the_transform(n_fft, hop, window, samples):
    signal = signals(3, 2, samples, dtype=torch.float64)[0].requires_grad_()
    expected = spectrogram(signal, n_fft, hop, window).abs().mean()
    value = mean_modulus(signal, n_fft, hop, window)
    torch.testing.assert_close(value, expected)
    slopes = [torch.autograd.grad(3 * loss, signal)[0] for loss in (value, expected)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("level", [0.0, 1e-30, 1e-22, 1e-12])
def test_the_slope_of_the_mean_modulus_is_bounded_near_silence(level):
    """A mean of moduli changes by no more than the window lets through."""
    signal = (level * signals(1, 1000)[0]).requires_grad_()
    mean_modulus(signal, 64, 16, 64).backward()
    assert signal.grad.isfinite().all()
    assert signal.grad.abs().sum() <= 64.0


def test_multi_resolution_stft_is_that_of_bs_roformer():
    estimate, target = signals(1, 2, 2, 8192)
    expected = 0.0
    for window in WINDOWS:
        spectrograms = [
            torch.stft(
                x.flatten(0, 2),
                max(window, 2048),
                147,
                window,
                torch.hann_window(window),
                return_complex=True,
            )
            for x in (estimate, target)
        ]
        expected += l1(*spectrograms)
    torch.testing.assert_close(multi_resolution_stft(estimate, target), expected)


def test_binary_mask_of_silence_is_undecided():
    silence = torch.zeros(1, 2, 1, 500)
    loss = binary_mask_cross_entropy(silence, silence, mixture=silence.sum(1))
    assert float(loss) == pytest.approx(math.log(2))


def test_binary_masks_of_stems_without_overlap():
    time = torch.arange(8000) / 8000
    stems = torch.stack([torch.sin(2 * math.pi * f * time) for f in (500, 2500)])[None, :, None]
    noise = 0.1 * torch.randn(1, 1, 1, 8000, generator=torch.Generator().manual_seed(0))
    target = stems + torch.cat([noise, torch.zeros_like(noise)], dim=1)  # decides all bins
    options = {"mixture": target.sum(1), "n_fft": 256, "hop_length": 64}
    right, wrong = (
        float(binary_mask_cross_entropy(x, target, **options)) for x in (target, target.flip(1))
    )
    assert right < math.log(2) < wrong


def test_the_binary_mask_of_one_stem_is_that_of_a_share_of_the_mixture():
    target, _ = signals(2, 1, 2, 3000)
    options = {"mixture": 4.0 * target.sum(1), "eps": 1e-12}  # three quarters are something else
    shares = torch.tensor([0.1, 0.25, 0.6])
    found = [binary_mask_cross_entropy(4.0 * x * target, target, **options) for x in shares]
    torch.testing.assert_close(torch.stack(found), -torch.log(1.0 - shares))
    options["mixture"] = 1.25 * target.sum(1)
    found = [binary_mask_cross_entropy(1.25 * x * target, target, **options) for x in shares]
    torch.testing.assert_close(torch.stack(found), -torch.log(shares))


def test_log_wmse_is_minus_the_metric():
    noise, targets = signals(1, 3, 2, 44100)
    estimates = targets + 0.1 * noise
    estimates[:, 1], targets[:, 2] = targets[:, 1], 0.0  # a perfect stem and a silent one
    mixture = targets.sum(1)
    expected = -log_wmse_metric(targets[0], estimates[0], mixture[0]).mean()
    found = log_wmse(estimates, targets, mixture=mixture)
    assert float(found) == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize("level", [1e-30, 1e-22, 1e-12])
def test_log_wmse_is_finite_near_silence(level):
    noise, target = signals(1, 2, 2, 3000)
    estimate = noise.requires_grad_()
    loss = log_wmse(estimate, level * target, mixture=level * target.sum(1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(estimate.grad).all()


def test_log_wmse_is_about_the_same_at_another_rate():
    time = torch.arange(48000) / 48000
    target = torch.sin(2 * math.pi * 1000 * time).expand(1, 1, 1, -1)
    found = log_wmse(1.1 * target, target, mixture=target[:, 0], sample_rate=48000)
    assert float(found) == pytest.approx(4 * math.log(0.01), abs=0.02)


@pytest.mark.parametrize("name", ["l1", "spectral", "masked_mse", "binary_mask", "log_wmse"])
def test_unordered_losses_find_the_order(name):
    noise, targets = signals(2, 3, 1, 300)
    ordered = targets + 0.1 * noise
    shuffled = torch.stack([ordered[0, [2, 0, 1]], ordered[1, [0, 2, 1]]])
    data = {name: SMALL.get(name, {})}
    options = LossOptions.model_validate({**data, "unordered": True})
    fixed = LossOptions.model_validate(data)
    mixture = targets.sum(1)
    (found,) = options.terms(shuffled, targets, mixture).values()
    (expected,) = fixed.terms(ordered, targets, mixture).values()
    torch.testing.assert_close(found, expected)
    (worse,) = fixed.terms(shuffled, targets, mixture).values()
    assert worse > found


def test_the_best_order_is_the_best_of_all():
    estimates, targets = signals(2, 4, 1, 20)
    order = best_order(mse, estimates, targets)
    found = [float(mse(*pair)) for pair in zip(reordered(estimates, order), targets, strict=True)]
    for item in range(2):
        every = [
            float(mse(estimates[item, list(p)], targets[item]))
            for p in itertools.permutations(range(4))
        ]
        assert found[item] == pytest.approx(min(every))


def test_gradients_reach_the_estimates_in_their_own_order():
    targets = torch.eye(3).view(1, 3, 1, 3)
    estimates = targets[:, [1, 2, 0]].clone()
    estimates[0, 0] += 0.1
    estimates.requires_grad_()
    options = LossOptions.model_validate({"mse": 1.0, "unordered": True})
    options.terms(estimates, targets, targets.sum(1))["mse"].backward()
    assert estimates.grad[0, 0].abs().min() > 0
    assert estimates.grad[0, 1:].abs().max() == 0


def test_terms_are_weighted():
    estimates, targets = signals(1, 2, 1, 400)
    options = LossOptions.model_validate({"l1": 2, "mse": {"weight": 0.5}})
    terms = options.terms(estimates, targets, targets.sum(1))
    assert list(terms) == ["l1", "mse"]
    torch.testing.assert_close(terms["l1"], 2 * l1(estimates, targets))
    torch.testing.assert_close(terms["mse"], 0.5 * mse(estimates, targets))


def test_every_term_can_be_chosen():
    estimates, targets = signals(1, 2, 2, 5000)
    options = LossOptions.model_validate(dict.fromkeys(TERMS, 1.0))
    terms = options.terms(estimates, targets, targets.sum(1))
    assert list(terms) == list(TERMS)
    assert all(term.ndim == 0 for term in terms.values())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "at least one of l1, mse"),
        ({"spectrum": 1.0}, "Did you mean 'spectral'"),
        ({"spectral": {"nfft": 1024}}, "Did you mean 'n_fft'"),
        ({"l1": -1.0}, "greater than 0"),
        ({"masked_mse": {"quantile": 2.0}}, "less than or equal to 1"),
    ],
)
def test_mistakes_are_named(data, message):
    with pytest.raises(ConfigError, match=message):
        validate(LossOptions, data, "recipe.yaml")


def test_half_precision_is_raised_before_a_transform():
    estimate, target = signals(1, 1, 1, 4000)
    half = multi_resolution_stft(estimate.bfloat16(), target.bfloat16())
    assert half.dtype == torch.float32
