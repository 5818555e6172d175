"""Training runs of a tiny network, for the tests: its recipe, its data, and what it has learnt."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from separator.datasets import LoadedAudio, Track
from separator.training import task as task_module
from separator.training.data.batches import Batches
from separator.training.recipe import Recipe, resolve
from separator.training.run import read_checkpoint

TINY = {
    "description": "For tests",
    "network": "bs_roformer",
    "parameters": {
        "dim": 8,
        "depth": 1,
        "heads": 1,
        "dim_head": 8,
        "n_fft": 256,
        "hop_length": 128,
        "bands": [1, 8, 40, 80],
        "mask_estimator_depth": 1,
        "mlp_expansion_factor": 1,
        "ff_dropout": 0.2,
    },
    "stems": ["vocals", "other"],
    "sample_rate": 8000,
    "data": {"segment": 0.1, "batch": 2, "steps_per_epoch": 7, "synthetic": {}},
    "loss": {"l1": 1.0},
    "optimizer": {"name": "muon", "rate": 0.001, "matrix_rate": 0.001},
    "schedule": {"name": "cosine", "warmup": 5},
    "steps": 4,
    "log": {"every": 1, "tensorboard": False},
}
#: What two runs must agree in to the bit; the other keys of a checkpoint are Lightning's own.
LEARNT = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "recipe")


class Noise:
    """Stems of noise: a function of the position, as every source's."""

    def __init__(self, stems: int, channels: int, samples: int) -> None:
        self.shape = (2, stems, channels, samples)

    def __getitem__(self, position: int) -> Tensor:
        noise = np.random.default_rng([7, position]).standard_normal(self.shape)
        return torch.from_numpy(0.1 * noise.astype(np.float32))


@pytest.fixture
def noise(monkeypatch, one_thread):
    """Train on noise instead of a recipe's data, in one thread."""

    def batches_of_noise(options, *, stems, sample_rate, channels, **_):
        source = Noise(len(stems), channels, round(options.segment * sample_rate))
        return Batches(source, options.steps_per_epoch)

    monkeypatch.setattr(task_module, "build_data", batches_of_noise)


@pytest.fixture
def validation(monkeypatch):
    """Options of a recipe that validates every other step, on two songs of noise."""

    def tracks(recipe, tell=None):
        return [track(recipe.stems, recipe.channels, seed) for seed in range(2)]

    monkeypatch.setattr(task_module, "validation_tracks", tracks)
    return {"every": 2, "generated": {}, "excerpt": 0.0}


def track(stems, channels: int = 2, seed: int = 0, samples: int = 2500) -> Track:
    generator = np.random.default_rng(seed)
    parts = {stem: 0.1 * generator.standard_normal((samples, channels)) for stem in stems}
    parts["mixture"] = sum(parts.values())
    files = {
        name: (LoadedAudio(lambda a=audio: a.astype(np.float32), channels, samples),)
        for name, audio in parts.items()
    }
    return Track(f"song{seed}", 8000, channels, samples, tuple(stems), files)


def recipe(**changes) -> Recipe:
    return resolve({**TINY, **changes}, "test")


def assert_learnt_the_same(one: Path, two: Path) -> None:
    """Compare what two runs end with, to the bit."""
    ends = [read_checkpoint(folder / "last.ckpt") for folder in (one, two)]
    for key in LEARNT:
        assert_same(*(end[key] for end in ends))


def assert_same(one, two) -> None:
    """Compare nested containers to the bit."""
    if isinstance(one, Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    else:
        assert one == two
