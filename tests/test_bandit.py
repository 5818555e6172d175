import reference
import torch

from separator.checkpoints.bandit import from_bandit
from separator.networks import build_network

TINY = {"stems": ["speech", "music"], "band_count": 5, "n_fft": 64, "hop_length": 16, "modules": 2}


def state():
    sizes = {"dim": 4, "rnn_hidden": 3, "mask_hidden": 5}
    return reference.weights(build_network("bsrnn", **TINY, **sizes).state_dict())


def pairs(value):
    """Reorder real parts, then imaginary parts, to pairs of both."""
    real, imaginary = value.chunk(2, dim=-1)
    return torch.stack([real, imaginary], dim=-1).flatten(-2)


def assert_equal(converted, wanted):
    assert converted.keys() == wanted.keys()
    assert all(torch.equal(converted[key], wanted[key]) for key in wanted)


def test_first_version_has_a_prefix_and_what_the_architecture_determines():
    foreign = {f"bsrnn.{key}": value for key, value in state().items()}
    foreign |= {"stft.window": torch.ones(64), "istft.window": torch.ones(64)}
    foreign["bsrnn.mask_estim.speech.freq_weights/3"] = torch.ones(4)
    assert_equal(from_bandit(foreign), state())


def test_second_version_orders_features_in_pairs_and_names_layers_twice():
    foreign = {"stft.window": torch.ones(64), "mask_estim.music.freq_weights/0": torch.ones(4)}
    for key, value in state().items():
        part, _, rest = key.partition(".")
        if part == "band_split":
            features_last = ".norm." in rest or rest.endswith("fc.weight")
            rest = rest.replace(".norm.", ".combined.0.").replace(".fc.", ".combined.1.")
            foreign[f"band_split.{rest}"] = pairs(value) if features_last else value
        elif part == "tf_model":
            _, layer, name = rest.split(".", 2)
            foreign[f"tf_model.seqband.{2 * int(layer)}.{name}"] = value
        else:
            foreign[key] = value
            numbers = {"norm": "0", "hidden": "1", "output": "2"}
            stem, mlp, band, layer, name = rest.split(".", 4)
            foreign[f"mask_estim.{stem}.{mlp}.{band}.combined.{numbers[layer]}.{name}"] = value
    assert_equal(from_bandit(foreign), state())
