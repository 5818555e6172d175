import pytest
import reference
import torch

from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.open_unmix import from_asteroid, infer_hyperparameters

TINY = {"stems": ["bass", "vocals"], "n_fft": 128, "hop_length": 32, "hidden_size": 8}


def build(name="open_unmix", **options):
    network = build_network(name, **{**TINY, **options}).eval()
    network.load_state_dict(reference.weights(network.state_dict()))
    return network


def test_agrees_with_the_reference_implementation():
    assert reference.relative_error("open_unmix") < 1e-5


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [(512, (46, 8903595, 3388058301)), (1024, (46, 28269483, 4026844639))],
)
def test_has_the_keys_and_shapes_of_the_public_files(hidden, expected):
    with torch.device("meta"):
        network = build_network("open_unmix", stems=["bass"], hidden_size=hidden, max_bin=1487)
    prefix = "target_models.bass."
    state = {key.removeprefix(prefix): value for key, value in network.state_dict().items()}
    buffers = {"sample_rate", "stft.window", "transform.0.window"} & set(state)
    assert not buffers and reference.layout(state) == expected


@pytest.mark.parametrize("unidirectional", [False, True])
def test_infers_its_hyperparameters_from_a_state_dict(unidirectional):
    sizes = {"channels": 1, "layers": 2, "max_bin": 50, "unidirectional": unidirectional}
    inferred = infer_hyperparameters(build(**sizes).state_dict())
    assert inferred.pop("stem_count") == 2
    assert inferred == {**{k: v for k, v in TINY.items() if k != "hop_length"}, **sizes}


def test_stems_are_silent_where_the_mixture_is():
    """Magnitudes are masks times the mixture; a frame reaches 128 samples back."""
    network, mixture = build(wiener_iterations=0), reference.mixture(2000)
    mixture[..., :1000] = 0
    with torch.inference_mode():
        estimates = network(mixture)
    assert not estimates[..., :860].any() and estimates[..., 1100:].any()


def test_the_filtered_stems_and_the_residual_sum_to_the_mixture():
    mixture = reference.mixture(2000)
    with torch.inference_mode():
        estimates = build(stems=["bass", "rest"], residual=True)(mixture)
    torch.testing.assert_close(estimates.sum(1), mixture, rtol=0, atol=1e-4)


def test_softmask_shares_the_mixture_without_a_filter():
    mixture = reference.mixture(2000)
    with torch.inference_mode():
        estimates = build(softmask=True, wiener_iterations=0)(mixture)
    torch.testing.assert_close(estimates.sum(1), mixture, rtol=0, atol=1e-5)


def test_a_single_stem_is_not_filtered():
    network = build(stems=["bass"], wiener_iterations=3)
    assert network.wiener_iterations == 0
    with torch.inference_mode():
        assert network(reference.mixture(500)).shape == (1, 1, 2, 500)


@pytest.mark.parametrize("name", ["open_unmix", "x_umx"])
@pytest.mark.parametrize("iterations", [0, 1])
def test_gives_the_stems_asked_for(name, iterations):
    network, mixture = build(name, wiener_iterations=iterations), reference.mixture(900)
    with torch.inference_mode():
        torch.testing.assert_close(network(mixture, stems=[1]), network(mixture)[:, 1:])


def twins(state):
    """Give all stems the network of the first."""
    return {key: state[key.replace("vocals", "bass")] for key in state}


def test_equal_networks_have_nothing_to_tell_each_other():
    alone, bridged = build(wiener_iterations=0), build("x_umx", wiener_iterations=0)
    state = twins(alone.state_dict())
    alone.load_state_dict(state), bridged.load_state_dict(state)
    mixture = reference.mixture(900)
    with torch.inference_mode():
        torch.testing.assert_close(bridged(mixture), alone(mixture))


def test_bridged_networks_hear_each_other():
    alone, bridged = build(wiener_iterations=0), build("x_umx", wiener_iterations=0)
    mixture = reference.mixture(900)

    def change(network):
        with torch.inference_mode():
            before = network(mixture)
            network.core.target_models["vocals"].fc1.weight.mul_(-1)
            return (network(mixture) - before).abs().amax((0, 2, 3)) > 0

    assert change(alone).tolist() == [False, True]
    assert change(bridged).tolist() == [True, True]


def test_renames_all_parameters_of_the_other_implementation():
    wanted = build("x_umx").state_dict()
    names = {"fc1": "enc.%s.enc.0", "bn1": "enc.%s.enc.1", "lstm": "lstm.%s", "fc2": "dec.%s.dec.0"}
    names |= {"bn2": "dec.%s.dec.1", "fc3": "dec.%s.dec.3", "bn3": "dec.%s.dec.4"}
    foreign = {}
    for key, value in wanted.items():
        _, stem, layer, *rest = key.split(".")
        name = "layer_" + names[layer] % stem if rest else f"mean_scale.{layer}_{stem}"
        foreign[".".join([name, *rest])] = value
    assert from_asteroid(foreign).keys() == wanted.keys()


def test_needs_a_stem_besides_the_residual():
    with pytest.raises(ConfigError, match="besides the residual"):
        build_network("open_unmix", stems=["rest"], residual=True)
