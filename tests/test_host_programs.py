"""What programs that import the package do to it: gradients, devices, processes, buffers."""

import os
import pickle
import platform
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
from conftest import music

from separator.api import Separator
from separator.errors import ConfigError

FORK = """
import os, sys, torch
from separator import Separator
torch.set_num_threads(4)
separator = Separator(sys.argv[1], device="cpu", precision="float32")
song = torch.linspace(-1, 1, 30000).expand(2, -1)
before = separator.separate(song, 44100)["vocals"]
if os.fork() == 0:
    after = separator.separate(song, 44100)["vocals"]
    os._exit(0 if torch.allclose(before, after, atol=1e-5) else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""

UNTOUCHED = """
import ctypes, sys
import separator.heap
separator.heap._told = lambda options: print("told")
from separator import Separator
Separator(sys.argv[1], device="cpu")
"""


@pytest.mark.parametrize("rate", [44100, 48000])
def test_a_mixture_with_gradients_is_separated_without(tiny, rate):
    mixture = torch.from_numpy(music(1, rate)).requires_grad_()
    stems = tiny.separate(mixture, rate, stems=["vocals"], residual="rest")
    assert not any(stem.requires_grad for stem in stems.values())


def test_a_callers_default_device_changes_nothing(tiny_models, tiny):
    mixture = music(1, 48000)
    expected = tiny.separate(mixture, 48000)
    torch.set_default_device("meta")  # stands for a GPU
    try:
        separator = Separator(tiny_models / "tiny.yaml", device="cpu", precision="float32")
        found = separator.separate(mixture, 48000)
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(found[name], stem) for name, stem in expected.items())


@pytest.mark.parametrize("name", ["htdemucs", "bs_roformer", "open_unmix"])
def test_networks_heed_their_inputs_device(name):
    mixture, network = reference.mixture(3000), reference.network(name)
    with torch.inference_mode():
        torch.set_default_device("meta")
        try:
            found = network(mixture)
        finally:
            torch.set_default_device(None)
        assert torch.equal(found, network(mixture))


@pytest.mark.parametrize("name", reference.CASES)
def test_networks_can_be_pickled(name):
    network = reference.network(name)
    again = pickle.loads(pickle.dumps(network))
    state = again.state_dict()
    assert list(state) == list(network.state_dict())
    again.load_state_dict(state)
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_a_separator_can_be_sent_to_another_process(tiny):
    again = pickle.loads(pickle.dumps(tiny))
    mixture = music(1)
    found = again.separate(mixture, 44100)
    assert all(torch.equal(found[name], x) for name, x in tiny.separate(mixture, 44100).items())


def test_blocks_may_be_filled_again(tiny):
    mixture, buffer = music(1), np.empty((2, 4410), np.float32)

    def ring():
        for start in range(0, mixture.shape[1], 4410):
            buffer[:] = mixture[:, start : start + 4410]
            yield buffer

    stems = list(tiny.stream(ring(), 44100, stems=["vocals"], residual="rest"))
    total = torch.cat([piece["vocals"] + piece["rest"] for piece in stems], dim=-1)
    torch.testing.assert_close(total, torch.from_numpy(mixture), atol=1e-6, rtol=0)


def test_blocks_of_other_channels_are_refused(tiny):
    blocks = [music(0.5), music(0.5, channels=1)]
    with pytest.raises(ConfigError, match="has 1 channels, those before it have 2"):
        list(tiny.stream(blocks, 44100))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_separates_too(tiny_models):
    command = [sys.executable, "-c", FORK, tiny_models / "tiny.yaml"]
    assert subprocess.check_output(command, text=True, timeout=600) == "0\n"


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_separator_leaves_the_hosts_allocator_alone(tiny_models):
    command = [sys.executable, "-c", UNTOUCHED, tiny_models / "tiny.yaml"]
    assert subprocess.check_output(command, text=True) == ""
