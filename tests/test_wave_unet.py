import pytest
import reference
import torch

from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.wave_unet import Interpolate


@pytest.mark.parametrize("samples", [1, 100, 3001])
@pytest.mark.parametrize("level", [0.1, 100.0])
def test_stems_sum_to_the_mixture(samples, level):
    mixture = level * reference.mixture(samples)
    with torch.inference_mode():
        estimates = reference.network("wave_unet")(mixture)
    torch.testing.assert_close(estimates.sum(1), mixture)


def test_sizes_are_those_of_the_paper():
    network = build_network("wave_unet", stems=["vocals", "rest"], width=1)
    assert network.sizes(16_384) == (147_443, 16_389)
    assert network.context == 147_443 - 16_389


@pytest.mark.parametrize("samples", [1, 2, 7, 8, 9, 1001])
def test_core_turns_input_sizes_into_output_sizes(samples):
    network = reference.network("wave_unet")
    before, after = network.sizes(samples)
    assert after >= samples
    assert before - after == network.context
    assert network.core(torch.randn(1, 2, before)).shape == (1, 4, after)


def test_with_context_an_excerpt_is_separated_as_in_the_whole():
    network = reference.network("wave_unet")
    whole = reference.mixture(4000)
    grid = 2**network.depth
    half = network.context // 2
    start, stop = -(-half // grid) * grid, 2000
    excerpt = whole[..., start - start : stop + half]
    with torch.inference_mode():
        expected = network(whole)[..., start:stop]
        torch.testing.assert_close(network(excerpt)[..., start:stop], expected)
        alone = network(whole[..., start:stop])
    assert (alone - expected).abs().max() > 1e-3


def test_interpolation_is_linear_and_keeps_the_samples():
    line = torch.arange(6.0).view(1, 2, 3)
    for learned in (False, True):  # sigmoid(0) is one half
        between = Interpolate(2, learned)(line)
        torch.testing.assert_close(between, torch.tensor([[[0, 0.5, 1, 1.5, 2],
                                                           [3, 3.5, 4, 4.5, 5]]]))  # fmt: skip


@pytest.mark.parametrize(
    ("options", "word"),
    [({"stems": ["a"]}, "two or more"), ({"kernel_up": 4}, "odd"), ({"kernel_down": 2}, "odd")],
)
def test_refuses_impossible_options(options, word):
    with pytest.raises(ConfigError, match=word):
        build_network("wave_unet", **({"stems": ["a", "b"]} | options))
