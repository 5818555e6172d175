import pytest
import reference
import torch

from separator.errors import ConfigError
from separator.networks import build_network

MUSIC = {"channels": 2, "sample_rate": 44_100, "features": 256, "kernel_size": 20, "dim": 256}


def test_agrees_with_the_reference_implementation():
    assert reference.relative_error("conv_tasnet") < reference.ROUNDING


def test_has_the_keys_and_shapes_of_torchaudios_pipeline():
    with torch.device("meta"):
        network = build_network("conv_tasnet", stems=["speaker 1", "speaker 2"])
    assert reference.layout(network.state_dict()) == (343, 4984881, 3169471965)


def test_music_variant_codes_all_channels_together():
    """Where only the left channel has weights, it is separated as the mono network does."""
    mono = reference.network("conv_tasnet")
    parameters = reference.CASES["conv_tasnet"].parameters
    stereo = build_network("conv_tasnet", **{**parameters, "channels": 2}).eval()
    state = mono.state_dict()
    for key, dim in (("encoder.weight", 1), ("decoder.weight", 1)):
        state[key] = torch.cat([state[key], torch.zeros_like(state[key])], dim)
    stereo.load_state_dict(state)
    mixture = reference.mixture(3001)
    with torch.inference_mode():
        both, left = stereo(mixture), mono(mixture[:, :1])
    torch.testing.assert_close(both[:, :, :1], left)
    assert not both[:, :, 1].any()


def test_sizes_for_music_are_those_of_the_demucs_paper():
    """Its authors report 42 MB of weights, for blocks without the outputs to the sum of skips."""
    with torch.device("meta"):
        network = build_network("conv_tasnet", stems=list("dbov"), layers=10, stacks=4, **MUSIC)
    theirs = sum(p.numel() for name, p in network.named_parameters() if "skip_out" not in name)
    assert theirs * 4 / 2**20 == pytest.approx(42, abs=0.5)


@pytest.mark.parametrize("samples", [1, 4, 5, 6, 1001])
def test_windows_of_odd_length_cover_the_signal(samples):
    network = build_network(
        "conv_tasnet", stems=["a"], features=8, kernel_size=5, dim=4, hidden=4, activation="sigmoid"
    )
    estimates = network(torch.randn(1, 1, samples))
    assert estimates.shape == (1, 1, 1, samples)
    assert (estimates != 0).all()


@pytest.mark.parametrize(
    "options", [{"kernel_size": 1}, {"mask_kernel_size": 4}, {"activation": "tanh"}]
)
def test_refuses_impossible_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build_network("conv_tasnet", stems=["a"], **options)
