import numpy as np
import pytest
import reference
import torch
import yaml
from conftest import weights_entry

from separator.api import Separator
from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.open_unmix import from_asteroid, infer_hyperparameters
from separator.zoo.cards import read_card
from separator.zoo.members import find_members

TINY = {"stems": ["bass", "vocals"], "n_fft": 128, "hop_length": 32, "hidden_size": 8}


def build(name="open_unmix", **options):
    network = build_network(name, **{**TINY, **options}).eval()
    network.load_state_dict(reference.weights(network.state_dict()))
    return network


@pytest.mark.parametrize("case", ["open_unmix", "open_unmix_targets", "x_umx"])
def test_agrees_with_the_reference_implementation(case):
    assert reference.relative_error(case) < reference.ROUNDING


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


@pytest.fixture
def targets(tmp_path):
    """Write a file for each target of a network, as Open-Unmix does, and cards; return a folder."""
    case = reference.CASES["open_unmix_targets"]
    parameters = {
        k: v for k, v in case.parameters.items() if k not in ("stems", "wiener_iterations")
    }
    state = reference.network("open_unmix_targets").state_dict()
    common = {"description": "Tiny", "licence": "MIT"}
    for stem in case.parameters["stems"]:
        prefix = f"target_models.{stem}."
        file = tmp_path / f"{stem}.pth"
        torch.save({k.removeprefix(prefix): v for k, v in state.items() if prefix in k}, file)
        card = {"name": f"umx-{stem}", "network": "open_unmix", "parameters": parameters}
        card |= {"stems": [stem], "segment": 1.0, "weights": weights_entry(file, "open_unmix")}
        (tmp_path / f"umx-{stem}.yaml").write_text(yaml.safe_dump(card | common))
    members = [{"model": f"umx-{stem}"} for stem in ("bass", "vocals", "drums")]
    card = {"name": "umx", "stems": ["vocals", "drums", "bass"], "members": members, "wiener": 1}
    (tmp_path / "umx.yaml").write_text(yaml.safe_dump(card | {"domain": "network"} | common))
    return tmp_path


def test_files_of_single_targets_run_as_one_network_with_one_filter(targets):
    """From files to stems it gives what the package does, which filters before the inverse."""
    separator = Separator(targets / "umx.yaml", device="cpu", precision="float32")
    mixture = reference.mixture(reference.CASES["open_unmix_targets"].samples)[0]
    stems = separator.separate(mixture, 44100)
    assert list(stems) == ["vocals", "drums", "bass"]
    ours = reference.some(torch.stack(list(stems.values()))[None])
    theirs = np.load(reference.DATA / "reference_open_unmix_targets.npz")["estimates"]
    assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)
    some = separator.separate(mixture, 44100, stems=["bass"])
    torch.testing.assert_close(some, {"bass": stems["bass"]})
    assert separator.network[0].stems == ("bass", "vocals", "drums")


@pytest.mark.parametrize(
    ("card", "changes", "message"),
    [
        ("umx-bass", {"segment": 2.0}, r"umx: 'members.1.model': 'umx-vocals' has segment 1.0"),
        ("umx-bass", {"stems": ["drums"]}, "'umx-drums' and 'umx-bass' both give 'drums'"),
        ("umx", {"members": [{"model": "umx-bass", "overlap": 0.5}]}, "'members.0.overlap'"),
        ("umx", {"consistency": "energy"}, "'consistency' needs the domain"),
    ],
)
def test_members_of_one_network_must_be_alike(targets, card, changes, message):
    file = targets / f"{card}.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    (targets / "umx.yaml").write_text((targets / "umx.yaml").read_text().replace("- bass\n", ""))
    with pytest.raises(ConfigError, match=message):
        find_members(read_card(targets / "umx.yaml"))


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
