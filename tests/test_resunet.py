import pytest
import reference
import torch

from separator.checkpoints.foreign import read_foreign
from separator.checkpoints.states import load_state, read_state
from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.pqmf import PQMF
from separator.networks.resunet import PARTS, from_bytesep, infer_hyperparameters
from separator.spectral.masks import decoupled


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def batch_norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    values = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.{value}": (channels,) for value in values}
    return shapes | {f"{name}.num_batches_tracked": ()}


def residual_block(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    shapes = batch_norm(f"{name}.bn1", inputs) | batch_norm(f"{name}.bn2", outputs)
    shapes |= {f"{name}.conv1.weight": (outputs, inputs, 3, 3)}
    shapes |= {f"{name}.conv2.weight": (outputs, outputs, 3, 3)}
    if inputs != outputs:
        shapes |= {f"{name}.shortcut.weight": (outputs, inputs, 1, 1)}
        shapes |= {f"{name}.shortcut.bias": (outputs,)}
    return shapes


def authors_layout() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the checkpoints of 2021, for one stem, less their Fourier transforms."""
    shapes = batch_norm("bn0", 257)
    shapes |= {"pqmf.ana_conv_filter.weight": (4, 1, 64), "pqmf.syn_conv_filter.weight": (4, 4, 16)}
    encoders = [(8, 32), (32, 64), (64, 128), (128, 256), (256, 384), (384, 384)]
    stages = [(f"encoder_block{i}", 1, *widths) for i, widths in enumerate(encoders, start=1)]
    stages += [(f"conv_block7{letter}", 1, 384, 384) for letter in "abcd"]
    stages += [("after_conv_block1", 1, 32, 32)]
    decoders = [(384, 384), (384, 384), (384, 256), (256, 128), (128, 64), (64, 32)]
    for i, (inputs, outputs) in enumerate(decoders, start=1):
        scale = (1, 2) if i == 1 else (2, 2)
        shapes |= {f"decoder_block{i}.conv1.weight": (inputs, outputs, *scale)}
        shapes |= batch_norm(f"decoder_block{i}.bn1", inputs)
        stages.append((f"decoder_block{i}", 2, 2 * outputs, outputs))
    for name, first, inputs, outputs in stages:
        for block in range(4):
            width = outputs if block else inputs
            shapes |= residual_block(f"{name}.conv_block{first + block}", width, outputs)
    return shapes | {"after_conv2.weight": (32, 32, 1, 1), "after_conv2.bias": (32,)}


def test_has_the_keys_and_shapes_of_the_authors_checkpoints():
    with torch.device("meta"):
        network = build_network("resunet", stems=["vocals"])
    state = network.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == authors_layout()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(102e6, rel=0.01)
    convolutions = [key for key in state if state[key].ndim == 4 and "shortcut" not in key]
    assert len(convolutions) == 143  # hence the name


def test_reads_the_authors_state():
    case = reference.CASES["resunet"].parameters
    state = reference.network("resunet").state_dict()
    extra = {"stft.conv_real.weight": torch.ones(3), "istft.ola_window": torch.ones(3)}
    assert from_bytesep(state | extra).keys() == state.keys()
    inferred = infer_hyperparameters(state)
    assert inferred.pop("stem_count") == len(case["stems"])
    assert inferred.items() <= {**case, "channels": 2}.items()


def test_a_file_of_the_authors_tells_all(tmp_path):
    network = build_network("resunet", stems=["vocals"], widths=[4, 4], blocks=1).eval()
    network.load_state_dict(reference.weights(network.state_dict()))
    extra = {"stft.conv_real.weight": torch.ones(3), "istft.ola_window": torch.ones(3)}
    path = tmp_path / "resunet.pth"
    torch.save({"step": 5, "model": network.state_dict() | extra}, path)
    model = read_foreign(path)
    assert (model.network, model.stems, model.format) == ("resunet", ("vocals",), "bytesep")
    again = build_network(model.network, stems=model.stems, **model.parameters).eval()
    load_state(again, read_state(path, model.format), where=path.name)
    mixture = reference.mixture(3000)
    assert torch.equal(again(mixture), network(mixture))


@pytest.mark.parametrize("samples", [1, 1000, 6001])
@pytest.mark.parametrize(("subbands", "decibels"), [(1, -100), (4, -60)])
def test_masks_of_one_return_the_mixture(subbands, decibels, samples):
    parameters = reference.CASES["resunet"].parameters | {"subbands": subbands, "n_fft": 512}
    network = build_network("resunet", **parameters).eval()

    def core(magnitude, stems):
        parts = torch.zeros(1, 2, 2, PARTS, subbands, *magnitude.shape[2:])
        parts[:, :, :, :2] = 100.0  # a magnitude of one, and a real, positive mask
        return parts.flatten(1, 4)

    network.core.forward = core
    mixture = reference.mixture(samples)
    error = network(mixture)[:, 0] - mixture
    assert 20 * torch.log10(error.norm() / mixture.norm()) < decibels


def test_masks_may_exceed_one_and_turn_the_phase():
    """The residual adds to a silent mask: estimates of one everywhere, at a right angle."""
    network = reference.network("resunet")
    predicted = torch.zeros(1, 2, network.channels, PARTS, network.subbands, 3, 5)
    predicted[:, 1, :, 0], predicted[:, 1, :, 2], predicted[:, 1, :, 3] = -100.0, 9.0, 100.0
    parts = network.arrange(predicted.flatten(1, 4))
    assert parts.shape == (1, 2, network.channels * network.subbands, 3, 5, PARTS)
    mixture = torch.polar(torch.full((1, 8, 3, 5), 0.1), torch.rand(1, 8, 3, 5))
    estimate = decoupled(parts, mixture)[:, 1]
    torch.testing.assert_close(estimate, mixture * 10j)


def test_refuses_bins_that_cannot_be_halved():
    with pytest.raises(ConfigError, match="512"):
        build_network("resunet", stems=["a"], n_fft=2000)


@pytest.mark.parametrize(("subbands", "decibels"), [(2, -45), (4, -60), (8, -50)])
def test_synthesis_restores_what_was_analysed(subbands, decibels):
    pqmf = PQMF(subbands)
    signal = torch.randn(2, 3, 20 * subbands)
    bands = pqmf.analysis(signal)
    error = pqmf.synthesis(bands) - signal
    assert bands.shape == (2, 3 * subbands, 20 + 16)
    assert 20 * torch.log10(error.norm() / signal.norm()) < decibels


def test_a_tone_lies_in_its_sub_band():
    pqmf = PQMF(4)
    time = torch.arange(4000)
    for band in range(4):
        frequency = (band + 0.5) / 8  # cycles per sample, in the middle of the sub-band
        tone = torch.sin(2 * torch.pi * frequency * time).view(1, 1, -1)
        power = pqmf.analysis(tone)[0, :, 50:-50].square().sum(1)
        assert power[band] / power.sum() > 0.9999
