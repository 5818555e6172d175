import pytest
import reference
import torch
import torch.nn.functional as F

from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.scnet import (
    ConvolutionModule,
    Fusion,
    from_time_spectrum,
    infer_hyperparameters,
    split_bins,
    to_time_spectrum,
)

STEMS = ["drums", "bass", "other", "vocals"]
XL = {"dims": [4, 64, 128, 256], "band_ratios": [0.23, 0.37, 0.4], "dual_path_layers": 8}
IHF = {**XL, "band_kernels": [3, 4, 4], "band_strides": [1, 4, 4], "conv_depths": [3, 3, 3]}


@pytest.mark.parametrize("case", ["scnet", "scnet_masked"])
def test_agrees_with_the_reference_implementation(case):
    assert reference.relative_error(case) < reference.ROUNDING


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (372, 10578768, 3235987716)),
        (XL, (420, 54006896, 2429296841)),
        (IHF, (510, 53466800, 2540757376)),
    ],
)
def test_has_the_keys_and_shapes_of_the_public_checkpoints(parameters, expected):
    with torch.device("meta"):
        network = build_network("scnet", stems=STEMS, **parameters)
    assert reference.layout(network.state_dict()) == expected


def test_infers_its_hyperparameters_from_a_state_dict():
    parameters = {**IHF, "stems": STEMS, "compress": 2, "expand": 2, "conv_kernel": 5}
    parameters |= {"mask_hidden": 64}
    with torch.device("meta"):
        state = build_network("scnet", **parameters).state_dict()
    inferred = infer_hyperparameters(state)
    assert inferred.pop("stem_count") == len(STEMS)
    assert inferred.pop("channels") == 2
    assert inferred == {key: parameters[key] for key in inferred}
    assert set(parameters) - set(inferred) == {"stems", "band_ratios"}


def test_bands_share_all_bins():
    bands = split_bins(2049, (0.175, 0.392, 0.433), (3, 4, 16), (1, 4, 16))
    assert sum(band.bins for band in bands) == 2049
    assert [band.compressed for band in bands] == [359, 201, 56]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"band_ratios": [0.5, 0.5]}, "as many band_ratios"),
        ({"band_ratios": [0.0, 0.5, 0.5]}, "every band"),
        ({"band_kernels": [3, 4, 8]}, "shorter than its stride"),
        ({"dual_path_layers": 3}, "even number"),
        ({"channels": 1}, "dims"),
    ],
)
def test_refuses_impossible_hyperparameters(options, word):
    with pytest.raises(ConfigError, match=word), torch.device("meta"):
        build_network("scnet", stems=STEMS, **options)


def test_fusion_convolves_two_copies_of_the_sum():
    fusion, x, skip = Fusion(4), torch.randn(1, 4, 6, 5), torch.randn(1, 4, 6, 5)
    expected = F.glu(fusion.conv((x + skip).repeat(1, 2, 1, 1)), dim=1)
    torch.testing.assert_close(fusion(x, skip), expected)


def test_time_spectrum_is_orthonormal_and_invertible():
    x = torch.randn(1, 3, 5, 8)
    spectrum = to_time_spectrum(x)
    assert spectrum.shape == (1, 6, 5, 5)
    torch.testing.assert_close(from_time_spectrum(spectrum), x)
    constant = to_time_spectrum(torch.ones(1, 1, 1, 16)).flatten()
    assert constant[0].item() == pytest.approx(4) and constant[1:].abs().max() < 1e-6


def test_gated_convolutions_keep_frequencies_apart():
    module = ConvolutionModule(4, depth=2, compress=2, kernel=3)
    x = torch.randn(1, 4, 3, 7)
    changed = x.clone()
    changed[:, :, 1] = 9
    difference = (module(x) - module(changed)).abs().amax((0, 1, 3))
    assert (difference > 0).tolist() == [False, True, False]


def test_masks_leave_silence_silent():
    network = reference.network("scnet_masked")
    mixture = reference.mixture(6000)
    mixture[..., 2000:] = 0
    with torch.inference_mode():
        estimates = network(mixture)
    assert estimates[..., :2000].abs().max() > 0.01
    assert estimates[..., 2600:].abs().max() < 1e-6


def test_frames_are_even_and_padding_costs_nothing():
    network = reference.network("scnet")
    lengths = range(1, 2000, 13)
    assert all(network.padded(n) > n and network.padded(n) // 128 % 2 for n in lengths)
    assert network.padded(6000) == 47 * 128  # 6000 samples fill 46.9 hops


@pytest.mark.parametrize("case", ["scnet", "scnet_masked"])
def test_computes_only_the_stems_asked_for(case):
    network, mixture = reference.network(case), reference.mixture(3000)
    with torch.inference_mode():
        torch.testing.assert_close(network(mixture, stems=[1]), network(mixture)[:, 1:])
