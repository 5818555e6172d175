"""Foreign checkpoints: what loads, and what is refused without being run."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from separator.checkpoints.msst import read_msst
from separator.checkpoints.states import load_state, read_state
from separator.errors import ConfigError, ModelError
from separator.networks import build_network

SMALL: dict[str, Any] = {"dim": 8, "depth": 2, "heads": 2, "dim_head": 4, "hop_length": 512}

CONFIG: dict[str, Any] = {
    "audio": {"chunk_size": 88200, "sample_rate": 44100, "dim_t": 256, "hop_length": 441},
    "model": {"dim": 8, "depth": 2, "stereo": True, "flash_attn": True, "sage_attention": False},
    "training": {"instruments": ["Vocals", "other"], "target_instrument": None, "lr": 1e-5},
    "inference": {"num_overlap": 4, "batch_size": 1},
}

State = dict[str, Tensor]


def network(name: str = "bs_roformer", **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(name, **{"stems": ("vocals", "other"), **SMALL, **changes})


@pytest.fixture(scope="module")
def state() -> State:
    return network().state_dict()


def refused(path: Path, format: str = "msst") -> str:
    with pytest.raises(ModelError) as caught:
        read_state(path, format)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def write_config(folder: Path, **changes: dict[str, Any]) -> Path:
    """Write CONFIG with some of its sections changed."""
    config = {**CONFIG, **{key: {**CONFIG[key], **value} for key, value in changes.items()}}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state": state},
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model_state_dict": state, "best_metric": np.float64(9.5), "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        lambda state: {f"module.model.{key}": value for key, value in state.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_states(
    tmp_path: Path, state: State, wrap: Callable[[State], Any], zipped: bool
) -> None:
    path = tmp_path / "w.ckpt"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    found = read_state(path, "msst")
    assert found.keys() == state.keys()
    assert all(found[key].equal(state[key]) for key in state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_load_into_float32(tmp_path: Path, state: State, dtype: torch.dtype) -> None:
    path = tmp_path / "w.safetensors"
    save_file({key: value.to(dtype).clone() for key, value in state.items()}, path)
    target = network()
    load_state(target, read_state(path, "safetensors"), where="w")
    for key, value in target.state_dict().items():
        assert value.dtype == torch.float32
        assert value.equal(state[key].to(dtype).float())


class Hostile:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_refused_and_not_run(
    tmp_path: Path, state: State, zipped: bool
) -> None:
    path, proof = tmp_path / "w.ckpt", tmp_path / "proof"
    torch.save(
        {"state_dict": state, "x": Hostile(proof)}, path, _use_new_zipfile_serialization=zipped
    )
    assert "asks to run 'posix.mkdir'" in refused(path).replace("nt.mkdir", "posix.mkdir")
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists()  # it would have


def test_a_hostile_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for protocol in range(6):
        path = tmp_path / f"{protocol}.pth"
        path.write_bytes(pickle.dumps(Hostile(proof), protocol=protocol))
        refused(path)
        refused(path, "safetensors")
    assert not proof.exists()


def test_a_pickled_class_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    assert "'torch.nn.modules.linear.Linear'" in refused(path)


@pytest.mark.parametrize("format", ["msst", "safetensors"])
def test_damaged_files(tmp_path: Path, state: State, format: str) -> None:
    path = tmp_path / "w"
    if format == "msst":
        torch.save(state, path)
    else:
        save_file({key: value.clone() for key, value in state.items()}, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[: len(whole) // 2], b"<!DOCTYPE html><html>", b"PK" * 99):
        path.write_bytes(damaged)
        refused(path, format)
    path.write_bytes(whole[:64] + b"\x80" * 256 + whole[320:])
    refused(path, format)
    assert "No such file" in refused(tmp_path / "nothing", format)


@pytest.mark.parametrize("content", [[1, 2], 5, {}, {"a": 1}, {"a": {"b": torch.ones(1)}}])
def test_files_without_parameters(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "w.ckpt"
    torch.save(content, path)
    assert "no plain set of parameters" in refused(path)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("layers.0.0.lora_A", "LoRA"),
        ("mask_estimators.0.segm.conv.weight", "HyperACE"),
        ("layers.1.0.layers.0.0.to_value_residual_mix.0.weight", "value residuals"),
        ("layers.0.0.layers.0.static_alpha", "hyper-connections"),
        ("layers.0.0.layers.0.0.to_qkv.bias", "shared biases"),
    ],
)
def test_variants_are_named(tmp_path: Path, state: State, key: str, word: str) -> None:
    path = tmp_path / "w.ckpt"
    torch.save({**state, key: torch.ones(1)}, path)
    message = refused(path)
    assert word in message
    assert f"(it has '{key}')" in message
    assert "can't be run" in message


def test_what_does_not_fit_is_counted(state: State) -> None:
    broken = {key: value for key, value in state.items() if not key.startswith("layers.1.1")}
    broken["surplus"] = torch.ones(1)
    broken["final_norm.gamma"] = torch.ones(9)
    with pytest.raises(ModelError) as caught:
        load_state(network(), broken, where="w.ckpt")
    message = str(caught.value)
    lost = len(state) - len(broken) + 1
    assert f"{lost} parameters missing (layers.1.1." in message
    assert "; 1 parameter unknown (surplus); " in message
    assert "1 parameter of another shape (final_norm.gamma (9,) instead of (8,))" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["bs_roformer", "mel_band_roformer"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"mask_estimator_depth": 1},
        {"mask_estimator_depth": 3, "mlp_expansion_factor": 2},
        {"time_transformer_depth": 2, "ff_expansion": 2, "stems": ("a", "b", "c")},
        {"channels": 1, "n_fft": 4096, "depth": 1},
        {"heads": 1, "dim_head": 6},
        {"positions": "polar"},
    ],
)
def test_shapes_tell_the_hyperparameters(tmp_path: Path, name: str, shape: dict[str, Any]) -> None:
    """The YAML is wrong in all that shapes can tell, and lacks the rest."""
    if name == "bs_roformer" and "n_fft" in shape:
        shape = {**shape, "bands": [64] * 16 + [1025]}
    if name == "mel_band_roformer":
        shape = {**shape, "bands": 20}
    source = network(name, **shape)
    path = tmp_path / "w.ckpt"
    torch.save(source.state_dict(), path)
    lies = {"depth": 7, "mask_estimator_depth": 5, "heads": 3, "num_stems": 9, "num_bands": 3}
    config = write_config(
        tmp_path,
        model={**lies, "stft_n_fft": shape.get("n_fft", 2048)},
        training={"instruments": list(shape.get("stems", ("vocals", "other")))},
    )
    model = read_msst(path, config)
    assert model.network == name
    assert model.channels == shape.get("channels", 2)
    truth = {**SMALL, **shape}
    assert model.parameters.get("positions", "rotary") == shape.get("positions", "rotary")
    for key, value in model.parameters.items():
        assert truth.get(key, value) == value, key


def test_yaml_is_understood(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "w.ckpt")
    config = write_config(
        tmp_path,
        model={"skip_connection": True, "zero_dc": True, "stft_hop_length": 441},
        inference={"normalize": True, "chunk_size": 44100},
    )
    tuples = "\n  multi_stft_resolutions_window_sizes: !!python/tuple [4096, 2048]\n"
    config.write_text(config.read_text().replace("\nmodel:", "\nmodel:" + tuples.rstrip("\n")))
    model = read_msst(tmp_path / "w.ckpt", config)
    assert model.stems == ("vocals", "other")
    assert model.residual is None
    assert (model.segment, model.overlap, model.normalization) == (1.0, 0.75, "track")
    wanted = {"skip_connection": True, "zero_dc": True, "hop_length": 441, "depth": 2}
    assert wanted.items() <= model.parameters.items()


def test_one_target_leaves_a_residual(tmp_path: Path) -> None:
    torch.save(network(stems=("vocals",)).state_dict(), tmp_path / "w.ckpt")
    config = write_config(tmp_path, training={"target_instrument": "Vocals"})
    model = read_msst(tmp_path / "w.ckpt", config)
    assert (model.stems, model.residual) == (("vocals",), "other")
    with pytest.raises(ConfigError, match=r"names 2 stems .*checkpoint has 1"):
        read_msst(tmp_path / "w.ckpt", write_config(tmp_path))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("model", {"skip_conection": True}, "unknown key 'skip_conection'. Did you mean 'skip_con"),
        ("model", {"sources": []}, "The checkpoint is a bs_roformer: remove the key if that does"),
        ("model", {"use_shared_bias": True}, "shared biases"),
        ("model", {"linear_transformer_depth": 1}, "linear attention"),
        ("model", {"stft_hop_length": "441"}, "'stft_hop_length' is of type int, got '441'"),
        ("training", {"instruments": []}, "training.instruments"),
        ("audio", {"chunk_size": None}, "chunk_size' is missing"),
        ("audio", {"chunk_size": -5}, "audio.chunk_size"),
        ("inference", {"num_overlap": 0}, "inference.num_overlap"),
    ],
)
def test_yaml_mistakes(
    tmp_path: Path, state: State, section: str, change: dict[str, Any], message: str
) -> None:
    torch.save(state, tmp_path / "w.ckpt")
    with pytest.raises(ConfigError) as caught:
        read_msst(tmp_path / "w.ckpt", write_config(tmp_path, **{section: change}))
    assert message in str(caught.value)
    assert "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_runs_nothing(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "w.ckpt")
    proof = tmp_path / "proof"
    config = write_config(tmp_path)
    config.write_text(f"{config.read_text()}\nx: !!python/object/apply:os.mkdir ['{proof}']\n")
    with pytest.raises(ConfigError, match=r"not valid YAML.*os\.mkdir"):
        read_msst(tmp_path / "w.ckpt", config)
    assert not proof.exists()


def test_other_architectures_and_numbers_are_refused(tmp_path: Path, state: State) -> None:
    path, config = tmp_path / "w.ckpt", write_config(tmp_path)
    torch.save({"encoder.0.conv.weight": torch.ones(1)}, path)
    with pytest.raises(ModelError, match=r"no known architecture .*encoder\.0\.conv\.weight"):
        read_msst(path, config)
    torch.save({key: value for key, value in state.items() if "to_gates" not in key}, path)
    with pytest.raises(ModelError, match="parts of it are missing"):
        read_msst(path, config)
    torch.save({**state, "layers.0.2.layers.0.0.temperature": torch.ones(1)}, path)
    with pytest.raises(ModelError, match="3 transformers a layer, as with linear attention"):
        read_msst(path, config)
    torch.save({**state, "final_norm.gamma": torch.full((8,), torch.nan)}, path)
    with pytest.raises(ModelError, match=r"aren't finite, in 'final_norm\.gamma'"):
        read_msst(path, config)
