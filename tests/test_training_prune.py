"""Pruning: what a gate passes, and that the small network is what the gated one was."""

import math

import pytest
import reference
import torch
from training_runs import TINY, recipe

from separator.errors import ConfigError, ModelError
from separator.networks import build_network
from separator.training import prune as prune_module
from separator.training import task as task_module
from separator.training.building import bare_network
from separator.training.export import export
from separator.training.prune import Gate, add_gates, learn_gates, prune, shrink, smaller
from separator.training.recipe import load_recipe
from separator.training.run import train
from separator.zoo.load import load_network
from separator.zoo.search import find_card

pytest_plugins = ["training_runs"]
pytestmark = pytest.mark.usefixtures("noise")

WIDE = {**TINY["parameters"], "heads": 4, "dim_head": 4, "ff_dropout": 0.0, "depth": 2}


def test_a_gate_passes_the_best_and_lets_the_others_learn():
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.1, 0.2]])
    gate = Gate(weight, units=3, keep=2)
    assert gate.chosen.tolist() == [0, 1]
    out = gate(weight)
    torch.testing.assert_close(out, torch.tensor([[1.0, 2.0, 3.0, 4.0, 0.0, 0.0]]))
    out.sum().backward()
    slope = gate.scores.sigmoid() * (1 - gate.scores.sigmoid())
    torch.testing.assert_close(gate.scores.grad, slope.detach() * torch.tensor([3.0, 7.0, 0.3]))


def test_a_gate_may_have_one_unit():
    gate = Gate(torch.tensor([[1.0, 2.0]]), units=1, keep=1)
    assert gate.scores.tolist() == [0.0]


def test_half_of_the_units_are_left():
    plan = recipe(parameters=WIDE)
    left = smaller(plan, 0.5).parameters
    assert (left["heads"], left["ff_expansion"]) == (2, 2)
    assert {k: left[k] for k in WIDE if k != "heads"} == {k: WIDE[k] for k in WIDE if k != "heads"}


@pytest.mark.parametrize("positions", ["rotary", "polar"])
def test_the_small_network_is_what_the_gated_one_was(positions):
    plan = recipe(parameters={**WIDE, "positions": positions})
    mixture = reference.mixture(1000)
    network, small = bare_network(plan), bare_network(smaller(plan, 0.5))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "pope_embed" in name:  # begins at zero
                parameter.uniform_(-3, 0)
        whole = network(mixture)
        gates = add_gates(network, small)
        assert len(gates) == 2 * 2 * 2  # layers, axes, and attention and feed-forward
        for gate in gates.values():
            torch.nn.init.normal_(gate.scores)
        gated = network(mixture)
        shrink(network, gates, small)
        torch.testing.assert_close(small(mixture), gated, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in network.parameters())
    assert (whole - gated).abs().max() > 0.01 * gated.abs().max()


def test_only_the_scores_learn():
    """Every gate moves, and no weight does."""
    plan = recipe(parameters=WIDE)
    network, small = bare_network(plan), bare_network(smaller(plan, 0.5))
    gates = add_gates(network, small)
    before = {name: gate.scores.detach().clone() for name, gate in gates.items()}
    frozen = {name: p.clone() for name, p in network.named_parameters() if "scores" not in name}
    batches = iter(torch.randn(3, 1, 2, 2, 800, generator=torch.Generator().manual_seed(0)))
    learn_gates(network, gates, plan, batches, steps=3)
    for name, gate in gates.items():
        moved = (gate.scores.detach() - before[name]).abs().max()
        assert 0.0 < float(moved) <= 3.1 * 0.05  # Adam's steps are as long as its rate
    for name, parameter in network.named_parameters():
        if "scores" not in name:
            assert torch.equal(parameter, frozen[name])


def test_a_loss_that_is_not_finite_chooses_nothing():
    plan = recipe(parameters=WIDE)
    network, small = bare_network(plan), bare_network(smaller(plan, 0.5))
    gates = add_gates(network, small)
    with pytest.raises(ModelError, match="isn't finite at step 1"):
        learn_gates(network, gates, plan, iter([torch.full((1, 2, 2, 800), torch.nan)]), steps=1)


def test_a_pruned_model_is_a_model_like_any_other(tmp_path, validation, monkeypatch):
    monkeypatch.setattr(prune_module, "build_data", task_module.build_data)
    monkeypatch.setattr(prune_module, "validation_tracks", task_module.validation_tracks)
    train(recipe(parameters=WIDE, steps=1), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "models", name="wide")
    plan = recipe(
        parameters=WIDE, start=str(tmp_path / "models/wide.yaml"), steps=4, validation=validation
    )
    pruned = prune(plan, tmp_path / "pruned", 0.5, until=2)
    before, after = pruned.macs
    assert 0.3 * before < after < 0.9 * before
    assert pruned.result.step == 2
    assert all(math.isfinite(score) for score in pruned.sdr)
    own = load_recipe(str(tmp_path / "pruned/recipe.yaml"))
    assert train(own, tmp_path / "pruned", resume=True).step == 4
    card = export(tmp_path / "pruned", tmp_path / "models", name="narrow")
    assert (card.parameters["heads"], card.parameters["ff_expansion"]) == (2, 2)
    narrow = load_network(find_card(str(tmp_path / "models/narrow.yaml")))
    wide = build_network("bs_roformer", stems=TINY["stems"], **WIDE)
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in wide.parameters())
    with pytest.raises(ConfigError, match=r"a run in .* already"):
        prune(plan, tmp_path / "pruned", 0.5)


def test_what_cannot_be_pruned_is_refused(tmp_path):
    plan = recipe(parameters=WIDE)
    for ratio in (0.0, 1.0, -1.0):
        with pytest.raises(ConfigError, match="more than 0, less than 1"):
            smaller(plan, ratio)
    with pytest.raises(ConfigError, match="leaves all of them"):
        smaller(plan, 0.05)
    with pytest.raises(ConfigError, match="has no transformer"):
        smaller(recipe(network="wave_unet", parameters={"depth": 3, "width": 4}), 0.5)
    with pytest.raises(ConfigError, match="needs a trained model"):
        prune(plan, tmp_path, 0.5)
    many = recipe(start="pocket", network="bs_roformer", hardware={"devices": 2})
    with pytest.raises(ConfigError, match=r"hardware\.devices=1"):
        prune(many, tmp_path, 0.5)
