"""What every network promises, for each of the small cases in reference.py."""

import pytest
import reference
import torch
from torch import nn

from separator.errors import ConfigError, ModelError
from separator.networks import NETWORKS, build_network

LENGTHS = (1, 2, 100, 1023, 4099, 20011)


@pytest.fixture(scope="module", params=reference.CASES)
def network(request) -> nn.Module:
    return reference.network(request.param)


@pytest.fixture
def mixture(network) -> torch.Tensor:
    return reference.mixture(3001, network.channels)


def separate(network: nn.Module, mixture: torch.Tensor, **options: object) -> torch.Tensor:
    with torch.inference_mode():
        return network(mixture, **options)


def error(estimates: torch.Tensor, expected: torch.Tensor) -> float:
    return float((estimates - expected).norm() / expected.norm())


def test_every_network_has_a_case():
    """All but the ONNX graphs, which have no gradients: test_mdx_onnx.py is about them."""
    cases = {case.network for case in reference.CASES.values()}
    assert cases == set(NETWORKS) - {"mdx_onnx"}


def test_describes_itself(network):
    assert isinstance(network.stems, tuple)
    assert all(isinstance(stem, str) for stem in network.stems)
    assert isinstance(network.sample_rate, int)
    assert network.channels in (1, 2)


@pytest.mark.parametrize("samples", LENGTHS)
def test_estimates_have_the_length_of_the_mixture(network, samples):
    estimates = separate(network, reference.mixture(samples, network.channels))
    assert estimates.shape == (1, len(network.stems), network.channels, samples)
    assert estimates.dtype == torch.float32
    assert estimates.isfinite().all()


@pytest.mark.parametrize("level", [0.0, 1e-6, 1e3])
def test_estimates_are_finite_at_any_level(network, mixture, level):
    assert separate(network, level * mixture).isfinite().all()


def test_examples_of_a_batch_are_independent(network, mixture):
    other = mixture.flip(-1)
    batch = separate(network, torch.cat([mixture, 10 * other]))
    assert error(batch[:1], separate(network, mixture)) < 1e-5
    assert error(batch[1:], separate(network, 10 * other)) < 1e-5


def test_chosen_stems_are_those_of_all(network, mixture):
    expected = separate(network, mixture)
    last = len(network.stems) - 1
    for chosen in ([last], list(range(last, -1, -1))):
        assert error(separate(network, mixture, stems=chosen), expected[:, chosen]) < 1e-5


def test_the_same_input_gives_the_same_bytes(network, mixture):
    assert torch.equal(separate(network, mixture), separate(network, mixture))


def test_gradient_reaches_every_parameter(network, mixture):
    network.zero_grad()
    estimates = network(mixture)
    weights = torch.randn(estimates.shape, generator=torch.Generator().manual_seed(0))
    (estimates * weights).sum().backward()
    untouched = [
        name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()
    ]
    network.zero_grad()
    assert not untouched


def test_inference_agrees_with_training(network, mixture):
    """Kernels may differ where no gradient is needed; numbers may not."""
    assert error(separate(network, mixture), network(mixture).detach()) < 1e-5


def test_separates_other_numbers_of_channels(network, request):
    """A network for stereo can be built for mono, too, and the other way round."""
    case = reference.CASES[request.node.callspec.params["network"]]
    channels = 3 - network.channels
    parameters = case.parameters | {"channels": channels}
    if case.network == "scnet":  # whose first width is that of its input
        parameters["dims"] = [2 * channels, *case.parameters["dims"][1:]]
    other = build_network(case.network, **parameters).eval()
    for samples in LENGTHS:
        estimates = separate(other, reference.mixture(samples, channels))
        assert estimates.shape == (1, len(network.stems), channels, samples)


def test_state_round_trip(network, mixture, request):
    case = reference.CASES[request.node.callspec.params["network"]]
    state = network.state_dict()
    assert not any(key.startswith("core.") for key in state)
    other = build_network(case.network, **case.parameters).eval()
    other.load_state_dict(state)
    assert torch.equal(separate(other, mixture), separate(network, mixture))


def test_core_computes_in_bfloat16(network, mixture, request):
    expected = separate(network, mixture)
    network = reference.network(request.node.callspec.params["network"])
    network.core.to(torch.bfloat16)
    estimates = separate(network, mixture)
    assert estimates.dtype == torch.float32
    assert 0 < error(estimates, expected) < 0.05


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ModelError, match="Did you mean 'bs_roformer'"):
        build_network("bsroformer")
    with pytest.raises(ConfigError, match="Did you mean 'depth'"):
        build_network("bs_roformer", stems=["a"], dim=8, dept=1)
    with pytest.raises(ConfigError, match=r"needs the hyper-parameter.*dim, depth"):
        build_network("bs_roformer", stems=["a"])


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("bs_roformer", {"dim": "384"}, "'dim' should be a valid integer; got '384'"),
        ("bs_roformer", {"stems": "vocals"}, "'stems' .* got 'vocals'"),
        ("bs_roformer", {"skip_connection": 1}, "'skip_connection' should be a valid boolean"),
        ("bs_roformer", {"bands": [4, "x"]}, "'bands' should be a valid integer"),
        ("scnet", {"dims": 4}, "'dims' "),
        ("demucs", {"growth": "fast"}, "'growth' should be a valid number"),
        ("complex_unet", {"mask": "none"}, "'mask' should be 'complex', 'bounded' or 'magnitude'"),
        ("bs_roformer", {"heads": -1}, "can't be built .*negative"),
        ("demucs", {"depth": 40}, "can't be built"),
    ],
)
def test_hyperparameters_of_wrong_types_or_sizes_are_refused(network, options, message):
    settings = {"stems": ["a"]} | ({"dim": 8, "depth": 1} if network == "bs_roformer" else {})
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        build_network(network, **(settings | options))
