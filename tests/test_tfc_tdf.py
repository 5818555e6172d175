import pytest
import reference
import torch
from torch import nn

from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.tfc_tdf import FreqLinear, InstanceNorm, infer_hyperparameters

DRUMS = {"n_fft": 2048, "hop_length": 512, "bins": 1024}
TINY = {**DRUMS, "bins": 64, "scales": 2, "width": 4, "growth": 2, "stems": ["vocals", "other"]}


def test_agrees_with_the_reference_implementation():
    assert reference.relative_error("tfc_tdf") < reference.ROUNDING


@pytest.mark.parametrize(
    ("stems", "parameters", "expected"),
    [
        (2, {}, (319, 111990272, 1769023778)),
        (4, {}, (319, 111994368, 241191825)),
        (6, DRUMS, (319, 109378624, 1561442866)),
    ],
)
def test_has_the_keys_and_shapes_of_the_public_checkpoints(stems, parameters, expected):
    with torch.device("meta"):
        network = build_network("tfc_tdf", stems=["stem"] * stems, **parameters)
    assert reference.layout(network.state_dict()) == expected


@pytest.mark.parametrize("norm", ["BatchNorm", "InstanceNorm", None])
def test_infers_its_hyperparameters_from_a_state_dict(norm):
    sizes = {"bins": 256, "subbands": 2, "blocks_per_scale": 1, "scale": [2, 4]}
    parameters = {**TINY, **sizes, "bottleneck_factor": 8, "norm": norm}
    with torch.device("meta"):
        state = build_network("tfc_tdf", **parameters).state_dict()
    inferred = infer_hyperparameters(state)
    assert inferred.pop("stem_count") == 2
    assert inferred.pop("channels") == 2
    assert inferred == {key: parameters[key] for key in inferred}
    assert set(parameters) - set(inferred) == {"stems", "n_fft", "hop_length"}


def test_instance_norm_agrees_with_torch_far_from_zero():
    ours, theirs = InstanceNorm(3), nn.InstanceNorm2d(3, affine=True)
    theirs.load_state_dict(reference.weights(ours.state_dict()))
    ours.load_state_dict(theirs.state_dict())
    x = (5 + torch.randn(2, 3, 6, 7)).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("gradients", [True, False])
def test_frequencies_are_mixed_frame_by_frame(gradients):
    layer, x = FreqLinear(8, 5, bias=False), torch.randn(2, 3, 4, 8)
    with torch.set_grad_enabled(gradients):
        mixed = layer(x)
    assert mixed.requires_grad == gradients
    torch.testing.assert_close(mixed, nn.functional.linear(x, layer.weight))


@pytest.mark.parametrize("name", ["gelu", "relu", "elu0.5"])
@pytest.mark.parametrize("norm", ["BatchNorm", "InstanceNorm", "GroupNorm2", None])
def test_every_norm_and_activation_runs(name, norm):
    network = build_network("tfc_tdf", **TINY, norm=norm, activation=name).eval()
    with torch.inference_mode():
        assert network(reference.mixture(900)).isfinite().all()


def test_is_silent_above_the_bins_it_keeps():
    network = build_network("tfc_tdf", **TINY).eval()
    with torch.inference_mode():
        estimates = network(reference.mixture(64 * 512))
    spectrum = torch.fft.rfft(estimates * torch.hann_window(64 * 512)).abs()
    kept = spectrum.shape[-1] * 64 // 1024
    assert spectrum[..., 2 * kept :].max() < 1e-4 * spectrum.max()


def test_frames_fit_the_scales():
    network = build_network("tfc_tdf", **TINY)
    for length in range(1, 9000, 101):
        padded = network.padded(length)
        assert padded >= length and (1 + padded // 512) % 4 == 0 and padded % 512 == 0
    assert network.padded(63 * 512) == 63 * 512


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"bins": 2000}, "at most 1025"),
        ({"bins": 72}, "multiple"),
        ({"norm": "LayerNorm"}, "GroupNorm8"),
        ({"activation": "swish"}, "gelu, relu"),
    ],
)
def test_refuses_impossible_hyperparameters(options, word):
    with pytest.raises(ConfigError, match=word):
        build_network("tfc_tdf", **{**TINY, **options})


def test_computes_only_the_stems_asked_for():
    network, mixture = reference.network("tfc_tdf"), reference.mixture(3000)
    with torch.inference_mode():
        torch.testing.assert_close(network(mixture, stems=[1]), network(mixture)[:, 1:])
