"""Training in two processes is training in one, with a batch of the same size.

Both ways to share the work run on processors with gloo, in two processes that torchrun starts on a
free port; sharding is also tried on every network, in a group of one process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import reference
import songsets
import torch
import torch.distributed as dist
import yaml
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from training_runs import TINY

from separator.errors import ConfigError
from separator.training.building import checkpoint_activations
from separator.training.export import export
from separator.training.lora import add_lora
from separator.training.recipe import LoraOptions, resolve
from separator.training.run import read_checkpoint, train
from separator.training.sharding import gathered, shard, whole
from separator.zoo.load import load_network
from separator.zoo.search import find_card

STEMS = ("vocals", "other")


def plan(folder: Path, **changes) -> dict:
    """A recipe on three songs of noise, whose batches don't depend on who makes them."""
    songs = str(folder / "songs")
    return {
        **TINY,
        "parameters": {**TINY["parameters"], "ff_dropout": 0.0},
        "data": {
            "segment": 0.05,
            "batch": 2,
            "folders": [{"path": songs, "split": "all"}],
            "cache": str(folder / "cache"),
        },
        "optimizer": {"name": "adamw", "rate": 0.001},
        "clip": 0.1,
        "ema": 0.5,
        "validation": {
            "every": 2,
            "folder": {"path": songs, "split": "all"},
            "segment": 4.0,
            "excerpt": 0.1,
        },
        "hardware": {"accelerator": "cpu"},
        "steps": 4,
        **changes,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Train by two strategies in two processes, and in one with batches of twice the size."""
    folder = tmp_path_factory.mktemp("distributed")
    for seed in range(3):
        for number, stem in enumerate(STEMS):
            signal = songsets.noise(10 * seed + number, samples=50000)
            songsets.write(folder / f"songs/{seed}/{stem}.wav", signal)
    (folder / "two").mkdir()
    data = plan(folder)["data"]
    for strategy in ("ddp", "fsdp"):
        hardware = {"accelerator": "cpu", "devices": 2, "strategy": strategy}
        changed = plan(folder, hardware=hardware, data={**data, "batch": 1})
        (folder / f"two/{strategy}.yaml").write_text(yaml.safe_dump(changed))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(resolve(plan(folder), "one"), folder / "one")
    torch.set_num_threads(threads)
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parent.parent)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--local-addr", "127.0.0.1"]  # a computer's own name may lead nowhere
    script = Path(__file__).parent / "distributed_runs.py"
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", str(script), str(folder / "two")],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.slow
def test_two_processes_learn_what_one_learns(runs, strategy):
    """Also over an interruption, with clipped gradients and an average that follows."""
    one = read_checkpoint(runs / "one/last.ckpt")
    two = read_checkpoint(runs / f"two/{strategy}/last.ckpt")
    assert one["global_step"] == two["global_step"] == 4
    assert one["state_dict"].keys() == two["state_dict"].keys()
    for key, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    moments = [state["optimizer_states"][0]["state"] for state in (one, two)]
    assert moments[0].keys() == moments[1].keys()
    for number, values in moments[0].items():
        for key, value in values.items():
            torch.testing.assert_close(moments[1][number][key], value, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.slow
def test_both_measure_all_tracks(runs, strategy):
    """Three tracks for two processes: the mean is over all of them."""
    scores = [
        {path.name.split("-sdr-")[0]: path.name for path in (folder / "best").iterdir()}
        for folder in (runs / "one", runs / f"two/{strategy}")
    ]
    assert scores[0] == scores[1]


@pytest.mark.slow
def test_a_sharded_run_exports_and_goes_on_alone(runs, tmp_path):
    """Its checkpoint is whole: one process resumes from it, and it becomes a model."""
    alone = resolve(plan(runs, steps=5), "alone")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last.ckpt").write_bytes((runs / "two/fsdp/last.ckpt").read_bytes())
    assert train(alone, tmp_path / "run", resume=True).step == 5
    card = export(runs / "two/fsdp", tmp_path / "models", name="shared")
    network = load_network(find_card(str(tmp_path / "models/shared.yaml")))
    assert network.stems == card.stems == STEMS


@pytest.fixture(scope="module")
def mesh() -> DeviceMesh:
    """A group of one process, which needs no port."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def gradients(network) -> list[Tensor]:
    return [whole(p.grad) for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("name", reference.one_case_each())
def test_every_network_can_be_sharded(mesh, name):
    case = reference.CASES[name]
    plain, shared = (reference.network(name).train() for _ in range(2))
    mixture = reference.mixture(case.samples, plain.channels)
    if not any(parameter.requires_grad for parameter in plain.parameters()):
        pytest.skip("there is nothing to train in it")
    shard(shared, mesh)
    for network in (plain, shared):
        torch.manual_seed(0)
        network(mixture).square().mean().backward()
    pairs = zip(gradients(plain), gradients(shared), strict=True)
    for one, two in pairs:
        torch.testing.assert_close(two, one)
    with torch.no_grad(), gathered(shared):
        torch.testing.assert_close(shared.eval()(mixture), plain.eval()(mixture))


def test_blocks_that_compute_twice_can_be_sharded(mesh):
    mixture = reference.mixture(3000)
    networks = [reference.network("bs_roformer").train() for _ in range(2)]
    assert checkpoint_activations(networks[1])
    shard(networks[1], mesh)
    for network in networks:
        network(mixture).square().mean().backward()
    for one, two in zip(*map(gradients, networks), strict=True):
        torch.testing.assert_close(two, one)


def test_low_rank_updates_can_be_sharded(mesh):
    """Frozen weights are shared, too, and get no gradient."""
    networks = [reference.network("bs_roformer").train() for _ in range(2)]
    mixture = reference.mixture(3000)
    for network in networks:
        torch.manual_seed(0)
        add_lora(network, LoraOptions(rank=2))
    shard(networks[1], mesh)
    for network in networks:
        network(mixture).square().mean().backward()
    one, two = map(gradients, networks)
    assert 0 < len(one) < len(list(networks[0].parameters()))
    for expected, found in zip(one, two, strict=True):
        torch.testing.assert_close(found, expected)


def test_sharding_wants_a_precision_that_it_can_keep(tmp_path):
    hardware = {"strategy": "fsdp"}
    with pytest.raises(ConfigError, match="not float16"):
        resolve(plan(tmp_path, hardware=hardware, precision="float16"), "test")
