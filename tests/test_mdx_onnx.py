"""ONNX graphs made here, run as those of the public models are."""

import hashlib
from pathlib import Path

import pytest
import reference
import torch
from torch import nn

from separator.checkpoints import mdx_onnx
from separator.checkpoints.mdx_onnx import PUBLIC_GRAPHS, identify, read_graph
from separator.checkpoints.states import load_state
from separator.errors import ConfigError, ModelError
from separator.networks import build_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

N_FFT, HOP, FRAMES, BINS = 256, 64, 16, 128
ALL_BINS = N_FFT // 2 + 1
PARAMETERS = {"n_fft": N_FFT, "hop_length": HOP, "frames": FRAMES, "bins": BINS}


def write_graph(path: Path, operator: str, *constants: float, shape: tuple = (4, BINS, FRAMES)):
    """Write a graph of one operator on the input and on constants."""
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name in ("input", "output")
    ]
    names = [f"constant{index}" for index in range(len(constants))]
    tensors = [
        helper.make_tensor(name, TensorProto.FLOAT, [], [value])
        for name, value in zip(names, constants, strict=True)
    ]
    node = helper.make_node(operator, ["input", *names], ["output"])
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def network(path: Path, **options: object) -> nn.Module:
    """Build the network for a file and load it."""
    parameters = PARAMETERS | {"silent_bins": 0, "graph_bytes": path.stat().st_size} | options
    built = build_network("mdx_onnx", stems=["vocals"], **parameters)
    load_state(built, read_graph(path), where=path.name)
    return built.eval()


@pytest.mark.parametrize("samples", [1, 703, 704, 705, 5001])  # a window gives 704
def test_a_graph_that_does_nothing_returns_the_mixture(samples, tmp_path):
    path = write_graph(tmp_path / "same.onnx", "Identity", shape=(4, ALL_BINS, FRAMES))
    built = network(path, bins=ALL_BINS)
    assert built.step == 704
    mixture = reference.mixture(samples)
    estimates = built(mixture)
    assert estimates.shape == (1, 1, 2, samples)
    torch.testing.assert_close(estimates[:, 0], mixture, atol=1e-6, rtol=1e-5)


def test_the_estimate_is_the_graphs_times_the_compensation(tmp_path):
    path = write_graph(tmp_path / "half.onnx", "Mul", 0.5, shape=(4, ALL_BINS, FRAMES))
    built = network(path, bins=ALL_BINS, compensate=1.5)
    mixture = torch.cat([reference.mixture(2000), 3 * reference.mixture(2000).flip(-1)])
    torch.testing.assert_close(built(mixture)[:, 0], 0.75 * mixture, atol=1e-6, rtol=1e-5)
    assert torch.equal(built(mixture, stems=[0]), built(mixture))
    assert built(mixture, stems=[]).shape == (2, 0, 2, 2000)


def test_bins_below_and_above_the_graphs_are_silent(tmp_path):
    path = write_graph(tmp_path / "same.onnx", "Identity", shape=(4, 60, FRAMES))
    turns = torch.arange(5000) / N_FFT
    low, middle, high = (torch.sin(2 * torch.pi * bin * turns) for bin in (1, 30, 90))
    estimate = network(path, silent_bins=3, bins=60)((low + middle + high).expand(1, 2, -1))
    error = (estimate[0, 0, 0] - middle)[500:-500]
    assert error.abs().max() < 0.01  # that leaks from where the edges of windows are reflected


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_agrees_with_the_network_that_was_exported(tmp_path):
    """A TFC-TDF network here, and its graph in onnxruntime."""
    sizes = {"scales": 2, "width": 4, "convs": 1}
    stft = {"n_fft": N_FFT, "hop_length": HOP, "bins": BINS}
    own = build_network("tfc_tdf_v2", stems=["vocals"], **stft, **sizes).eval()
    own.load_state_dict(reference.weights(own.state_dict()))
    path = tmp_path / "exported.onnx"
    window = torch.zeros(1, 4, BINS, FRAMES)
    torch.onnx.export(own.core, (window,), str(path), dynamo=False, input_names=["input"])
    mixture = reference.mixture(HOP * (FRAMES - 1))
    built = network(path)
    with torch.inference_mode():
        features = torch.randn(1, 4, BINS, FRAMES, generator=torch.manual_seed(0))
        ours, theirs = own.core(features), built.core(features)
        assert (ours - theirs).norm() / ours.norm() < 1e-5
        middle = slice(built.margin, -built.margin)
        framed = nn.functional.pad(mixture[..., middle], (built.margin, built.margin))
        expected = own(framed)[..., middle]
        torch.testing.assert_close(built(mixture[..., middle]), expected, atol=1e-5, rtol=1e-4)


def test_another_state_ends_the_session(tmp_path):
    built = network(write_graph(tmp_path / "half.onnx", "Mul", 0.5))
    mixture = reference.mixture(1000)
    before = built(mixture)
    quarter = write_graph(tmp_path / "quarter.onnx", "Mul", 0.25)
    load_state(built, read_graph(quarter), where="quarter")
    torch.testing.assert_close(built(mixture), before / 2)


def test_refuses_what_is_no_graph(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(ModelError, match="damaged"):
        network(path)(torch.zeros(1, 2, 100))


def test_refuses_a_graph_for_other_spectrograms(tmp_path):
    path = write_graph(tmp_path / "other.onnx", "Identity", shape=(4, BINS, FRAMES + 1))
    with pytest.raises(ModelError, match="4 x 128 x 16"):
        network(path)(torch.zeros(1, 2, 100))


def test_refuses_a_graph_that_reads_other_files(tmp_path):
    """Tensors may lie in files beside the graph; a hostile one could name any."""
    from onnx import TensorProto

    path = write_graph(tmp_path / "outside.onnx", "Mul", 0.5)
    model = onnx.load(path)
    (tensor,) = model.graph.initializer
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="can't be run"):
        network(path)(torch.zeros(1, 2, 100))


def test_says_what_to_install(tmp_path, monkeypatch):
    built = network(write_graph(tmp_path / "same.onnx", "Identity"))
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"separator\[onnx\]"):
        built(torch.zeros(1, 2, 100))


@pytest.mark.parametrize("options", [{"stems": ["a", "b"]}, {"n_fft": 960}, {"bins": 130}])
def test_refuses_impossible_options(options):
    with pytest.raises(ConfigError, match="MDX-Net"):
        build_network("mdx_onnx", **({"stems": ["a"], "graph_bytes": 1} | PARAMETERS | options))


def test_public_models_fit_their_windows():
    lines = PUBLIC_GRAPHS.strip().splitlines()
    assert len({line.split()[0] for line in lines}) == len(lines) == 44
    for line in lines:
        _, n_fft, bins, frames, compensate, stem = line.split()
        built = build_network(
            "mdx_onnx",
            stems=[stem],
            graph_bytes=1,
            n_fft=int(n_fft),
            bins=int(bins),
            frames=int(frames),
        )
        assert built.step > 100_000
        assert 1 < float(compensate) < 2


def test_identifies_a_file_by_the_checksum_of_its_end(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"any start" + b"the end")
    monkeypatch.setattr(mdx_onnx, "IDENTIFYING_BYTES", 7)
    checksum = hashlib.md5(b"the end").hexdigest()
    monkeypatch.setattr(mdx_onnx, "PUBLIC_GRAPHS", f"\n{checksum} 6144 2048 256 1.035 vocals\n")
    stem, parameters = identify(path)
    assert stem == "vocals"
    assert parameters == {
        "graph_bytes": 16,
        "n_fft": 6144,
        "bins": 2048,
        "frames": 256,
        "compensate": 1.035,
    }
    path.write_bytes(b"another")
    with pytest.raises(ModelError, match="no public MDX-Net"):
        identify(path)
    with pytest.raises(ModelError, match="Can't read"):
        identify(tmp_path / "missing.onnx")
