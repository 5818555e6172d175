"""What runs on a CUDA device: the same results as on the processor, and training."""

import pytest
import reference
import torch
from test_networks import error
from training_runs import assert_learnt_the_same, recipe

from separator import Separator
from separator.networks import NETWORKS
from separator.training.run import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GPU = {"hardware": {"accelerator": "gpu"}, "sample_rate": 44100}
STEMS = ["vocals", "other"]


@pytest.mark.parametrize("case", reference.CASES)
def test_every_network_answers_as_on_the_processor(case):
    network = reference.network(case)
    mixture = reference.mixture(6001, network.channels)
    with torch.inference_mode():
        expected = network(mixture)
        estimates = network.cuda()(mixture.cuda())
    assert error(estimates.cpu(), expected) < 1e-3


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_a_song_is_separated_as_on_the_processor(precision, most):
    mixture = 0.1 * torch.randn(2, 8 * 44100, generator=torch.Generator().manual_seed(0))
    expected = Separator("pocket", device="cpu", precision="float32").separate(mixture, 44100)
    stems = Separator("pocket", device="cuda", precision=precision).separate(mixture, 44100)
    for stem, audio in expected.items():
        assert error(stems[stem].cpu(), audio) < most


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_learns_saves_and_goes_on(tmp_path, precision):
    changes = {**GPU, "precision": precision, "ema": 0.9, "clip": 1.0}
    studio = {"duration": 2.0, "processes": 1, "opening": 1, "pool": 2, "batches_per_song": 2}
    changes["data"] = {"segment": 0.1, "batch": 2, "studio": studio}
    first = train(recipe(**changes), tmp_path / "run", until=2)
    assert first.step == 2
    assert train(recipe(**changes), tmp_path / "run", resume=True).step == 4


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path):
    torch.backends.cudnn.deterministic = True
    run = recipe(**GPU, augmentation={"swap": {}, "equalizer": {}, "reverb": {}})
    train(run, tmp_path / "one")
    train(run, tmp_path / "two", until=2)
    train(run, tmp_path / "two", resume=True)
    assert_learnt_the_same(tmp_path / "one", tmp_path / "two")


def test_every_network_is_known_here():
    assert {case.network for case in reference.CASES.values()} <= set(NETWORKS)
