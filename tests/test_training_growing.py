"""Larger networks that begin with what smaller ones have learnt."""

import pytest
import torch
from training_runs import TINY, recipe

from separator.errors import ConfigError
from separator.networks import build_network
from separator.training.building import initial_network
from separator.training.export import write_model
from separator.training.growing import grow
from separator.training.recipe import resolve

SMALL = {**TINY["parameters"], "ff_dropout": 0.0}


def network(stems=("vocals", "other"), **changes):
    return build_network("bs_roformer", stems=stems, **{**SMALL, **changes}).eval()


def grown(small, **changes):
    large = network(**changes)
    grow(large, small.state_dict(), where="small")
    return large


@pytest.mark.parametrize(
    "change", [{"depth": 3}, {"ff_expansion": 8}, {"depth": 2, "ff_expansion": 6}]
)
@torch.no_grad()
def test_new_layers_and_units_change_nothing(change):
    small, mixture = network(), torch.randn(2, 2, 1000)
    large = grown(small, **change)
    torch.testing.assert_close(large(mixture), small(mixture))
    assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in small.parameters())


@torch.no_grad()
def test_a_hint_as_loud_as_the_mixture_changes_nothing():
    small, mixture = network(), torch.randn(2, 2, 1000)
    heard = torch.cat([mixture, -mixture], 1)
    torch.testing.assert_close(grown(small, inputs=2)(heard), small(mixture))


def test_what_is_new_learns():
    large = grown(network(), depth=2, inputs=2)
    heard = torch.cat([torch.randn(1, 2, 1000), torch.randn(1, 2, 1000)], 1)
    large(heard).square().sum().backward()
    hint = large.core.band_split.feature_weight_1.grad[..., 4 * 8 :]
    new = large.core.layers[1][0].layers[0][1].net[4].weight.grad
    assert hint.any()
    assert new.any()


@torch.no_grad()
def test_the_first_stems_alone():
    small, mixture = network(("a", "b", "c")), torch.randn(1, 2, 1000)
    two = grown(small, stems=("a", "b"))
    torch.testing.assert_close(two(mixture), small(mixture)[:, :2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ff_expansion": 1}, "make no part of the network smaller"),
        ({"stems": ("a", "b", "c")}, "'small' has no 'mask_estimators.2"),
    ],
)
def test_nothing_else_may_change(change, message):
    with pytest.raises(ConfigError, match=message):
        grown(network(), **change)


@torch.no_grad()
def test_a_recipe_grows_the_network_of_a_card(tmp_path):
    small = recipe(parameters=SMALL)
    card = write_model(small, network(), tmp_path, name="small", source="random")
    start = {"start": str(tmp_path / "small.yaml"), "grow": True}
    plan = recipe(**start, parameters={**card.parameters, "depth": 2})
    mixture = torch.randn(1, 2, 1000)
    first = initial_network(recipe(start=start["start"], parameters=SMALL))
    torch.testing.assert_close(initial_network(plan)(mixture), first(mixture))


def test_growing_needs_something_to_grow():
    with pytest.raises(ConfigError, match="'grow' needs a smaller model to start from"):
        resolve({**TINY, "grow": True}, "x")
