"""What makes training fast changes nothing that it computes."""

import pytest
import torch
from torch import nn

from separator.networks.layers import Attention, unit
from separator.networks.positions import rotate
from separator.training.optimizers import OptimizerOptions, build_optimizer


def test_the_gradient_of_unit_is_right():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, x.transpose(0, 1))


def test_unit_is_the_same_with_and_without_gradients():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [-1e-3, 2e-3]])
    with torch.no_grad():
        expected = unit(x)
    assert torch.equal(unit(x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotations_are_the_same_with_and_without_gradients(dtype):
    torch.manual_seed(0)
    x = torch.randn(7, 2, 3, 8, dtype=dtype).permute(1, 2, 0, 3)
    rotation = torch.polar(torch.ones(7, 4), torch.randn(7, 4))
    with torch.no_grad():
        expected = rotate(x, rotation)
    torch.testing.assert_close(rotate(x, rotation), expected)


def test_the_gradient_of_attention_is_that_of_its_output():
    torch.manual_seed(0)
    block = Attention(6, heads=2, dim_head=4)
    x, along = torch.randn(3, 9, 6), torch.randn(3, 9, 6)
    (slope,) = torch.autograd.grad(block(x.requires_grad_()).sum(), x)
    step = 1e-2
    with torch.no_grad():  # where all of it is computed in another way
        rise = (block(x + step * along).sum() - block(x - step * along).sum()) / (2 * step)
    torch.testing.assert_close((slope * along).sum(), rise, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon"])
def test_fused_updates_are_the_updates(name):
    options = OptimizerOptions(
        name=name, rate=0.1, weight_decay=0.1, matrix_rate=0.1 if name == "muon" else None
    )
    results = []
    for fused in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        optimizer = build_optimizer(options, network.modules(), fused=fused)
        for _ in range(5):
            optimizer.zero_grad()
            network(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    assert any(group.get("fused") for group in optimizer.param_groups)
