"""Files that would grow: YAML, weights, hyper-parameters. They end in one line, and soon."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from separator.checkpoints.foreign import read_foreign
from separator.checkpoints.msst import TupleLoader
from separator.checkpoints.states import check_fit, read_state, without_values
from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.schema import SAFE_LOADER, read_yaml

LOADERS = [SAFE_LOADER, TupleLoader]


def laughs(levels: int, merged: bool) -> str:
    """Return lists (or mappings) of ten aliases of the one before."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, levels):
        ten = ",".join([f"*a{level - 1}"] * 10)
        content = f"{{<<: [{ten}]}}" if merged else f"[{ten}]"
        lines.append(f"a{level}: &a{level} {content}")
    return "\n".join(lines)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (laughs(9, merged=False), "more than 100,000 values"),
        (laughs(9, merged=True), "more than 100,000 values"),
        ("a: " + "[" * 100 + "]" * 100, "more than 50 levels deep"),
        ("a: " + "[" * 100_000, "more than 50 levels deep"),
        ("- " * 10_000 + "x", "more than 50 levels deep"),
        ("a: &a [*a]", r"alias '\*a' stands for nothing before it"),
        ("a: " + "x" * 1_000_000, "more than 1,000,000 characters"),
    ],
)
def test_a_yaml_that_would_grow_is_refused(tmp_path, loader, text, problem):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError, match=problem):
        read_yaml(path, loader)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("loader", LOADERS)
def test_a_few_aliases_are_read(tmp_path, loader):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {k: 1}\nb: {<<: *a, l: 2}\nc: [*a, *a]\nd: &e 3\nf: *e")
    assert read_yaml(path, loader) == yaml.safe_load(path.read_text())


def test_a_checkpoint_that_holds_itself(tmp_path):
    state: dict[str, Any] = {}
    state["state_dict"] = state
    torch.save(state, tmp_path / "x.ckpt")
    with pytest.raises(ModelError, match="no plain set of parameters"):
        read_state(tmp_path / "x.ckpt", "msst")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.zeros(1).expand(1_000_000_000),
        torch.zeros(4, device="meta"),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "repeated", "without values", "quantised"],
)
def test_tensors_in_unusual_forms_are_refused(tmp_path, tensor):
    torch.save({"a.weight": tensor}, tmp_path / "x.ckpt")
    with pytest.raises(ModelError, match=r"save it as plain tensors|damaged"):
        read_state(tmp_path / "x.ckpt", "msst")


def test_compressed_archives_are_refused(tmp_path):
    plain, packed = tmp_path / "plain.ckpt", tmp_path / "packed.ckpt"
    torch.save({"a.weight": torch.zeros(1_000_000)}, plain)
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert read_state(plain, "msst")["a.weight"].shape == (1_000_000,)
    with pytest.raises(ModelError, match="compressed archive"):
        read_state(packed, "msst")


def demucs(path: Path, **arguments: Any) -> Path:
    """Write a file of Demucs of one tensor, with these arguments."""
    kwargs = {"sources": ["drums", "vocals"]} | arguments
    metadata = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": json.dumps(kwargs)}
    save_file({"a": torch.zeros(1)}, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        {"t_layers": 10**6},
        {"depth": 10**6},
        {"channels": 10**9},
        {"segment": [1]},
        {"nfft": 10**12},
    ],
    ids=str,
)
def test_hyperparameters_that_ask_for_too_much_are_refused(tmp_path, arguments):
    path = demucs(tmp_path / "x.safetensors", **arguments)
    began = time.process_time()
    with pytest.raises((ModelError, ConfigError)):
        read_foreign(path)
    assert time.process_time() - began < 10


def test_shapes_are_compared_before_memory_is_taken():
    sizes = {"stems": ["a"], "dim": 4096, "depth": 64}  # 100 GB of weights
    with pytest.raises(ModelError, match="ask for more than 100 parameters, the file has 0"):
        check_fit(lambda: build_network("bs_roformer", **sizes), {}, where="x")
    network = without_values(lambda: nn.Linear(10**6, 10**6), 2, where="x")
    assert network.weight.device.type == "meta"
    with pytest.raises(ModelError, match="1 parameter missing"):
        check_fit(lambda: nn.Linear(2, 2), {"weight": torch.zeros(2, 2)}, where="x")
    assert nn.Linear(2, 2).weight.device.type == "cpu"  # nothing of it lasts


@pytest.mark.slow
def test_damaged_and_falsified_files_end_in_a_model_or_in_one_line():
    script = Path(__file__).parent.parent / "scripts" / "fuzz_weights.py"
    command = [sys.executable, str(script), "--seconds", "30", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 10
